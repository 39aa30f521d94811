import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recognition.backbones import BACKBONES, IResNet

GOLDEN = Path(__file__).parents[1] / "golden" / "iresnet"


def layout(name: str) -> list[list]:
    return json.loads((GOLDEN / f"layout_{name}.json").read_text())["state_dict"]


def formula(place: int, shape: tuple[int, ...], name: str, salt: int) -> torch.Tensor:
    """The recipe of tests/golden/iresnet/README.md."""
    with np.errstate(over="ignore"):
        x = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint32)
        x += np.uint32((0x9E3779B9 * (place + 1) + salt) % 2**32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    u = 2 * (x / 2**32) - 1
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        u = 1 + 0.5 * u
    elif name.endswith("running_mean"):
        u = 0.2 * u
    elif len(shape) > 1:
        u = u * np.sqrt(3 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        u = 0.75 + 0.5 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def filled(model: torch.nn.Module, salt: int) -> torch.nn.Module:
    state = model.state_dict()
    filled_state = {name: formula(k, tuple(v.shape), name, salt) for k, (name, v) in enumerate(state.items())}
    model.load_state_dict(filled_state, strict=True)
    return model.eval()


@pytest.mark.parametrize("name", ["r18", "r34", "r50", "r100"])
def test_iresnet_has_the_state_dict_of_arcface_torch(name):
    with torch.device("meta"):
        state = BACKBONES[f"iresnet{name[1:]}"]().state_dict()
    found = [(key, list(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()]
    assert found == [(key, shape, dtype) for key, shape, dtype, _ in layout(name)]


def test_the_formula_fills_as_recorded():
    salt = int(np.load(GOLDEN / "output_r18.npz")["salt"])
    names = [row[0] for row in layout("r18")]
    for name, (total, first, last) in json.loads((GOLDEN / "fill_check_r18.json").read_text()).items():
        place = names.index(name)
        values = formula(place, tuple(layout("r18")[place][1]), name, salt).double().flatten()
        assert values.sum().item() == pytest.approx(total, rel=1e-9, abs=1e-6)
        assert (values[0].item(), values[-1].item()) == (first, last)


@pytest.mark.parametrize(("name", "tolerance"), [("r18", 1e-4), ("r50", 1e-3)])
def test_iresnet_computes_what_arcface_torch_computes(name, tolerance):
    recorded = np.load(GOLDEN / f"output_{name}.npz")
    model = filled(BACKBONES[f"iresnet{name[1:]}"](), int(recorded["salt"]))
    with torch.inference_mode():
        output = model(torch.from_numpy(np.load(GOLDEN / "input.npz")["input"]))
    np.testing.assert_allclose(output.numpy(), recorded["output"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["iresnet_tiny", "residual_a", "plain_b"])
def test_the_small_backbones_fit_in_four_megabytes(name):
    model = BACKBONES[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000
    assert model.eval()(torch.zeros(2, 3, 112, 112)).shape == (2, 128)


def test_a_stage_without_a_width_is_refused():
    with pytest.raises(ValueError, match="one width and one stride a stage"):
        IResNet(blocks=(1, 1), widths=(8,), strides=(2, 2))
