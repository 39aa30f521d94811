import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import recognition.backbones
from recognition.backbones import BACKBONES, IR, IResNet, MobileFaceNet

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


def house_name(name: str) -> str:
    return {"mbf": "mobilefacenet", "mbf_large": "mobilefacenet_large"}.get(name, f"iresnet{name[1:]}")


def without_weights(name: str, **arguments) -> torch.nn.Module:
    with torch.device("meta"):
        return BACKBONES[name](**arguments)


@pytest.mark.parametrize("name", ["r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large"])
def test_a_backbone_of_insightface_has_its_state_dict(name):
    model = without_weights(house_name(name))
    state, parameters = model.state_dict(), dict(model.named_parameters())
    found = [
        [
            key,
            list(value.shape),
            str(value.dtype).removeprefix("torch."),
            "parameter" if key in parameters else "buffer",
        ]
        for key, value in state.items()
    ]
    assert found == layout(name)
    told = json.loads((GOLDEN / f"layout_{name}.json").read_text())
    assert sum(parameter.numel() for parameter in parameters.values()) == told["parameters"]
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == told["trainable"]


@pytest.mark.parametrize("name", ["r18", "mbf"])
def test_the_formula_fills_as_recorded(name):
    salt = int(np.load(GOLDEN / f"output_{name}.npz")["salt"])
    names = [row[0] for row in layout(name)]
    for key, (total, first, last) in json.loads((GOLDEN / f"fill_check_{name}.json").read_text()).items():
        place = names.index(key)
        values = formula(place, tuple(layout(name)[place][1]), key, salt).double().flatten()
        assert values.sum().item() == pytest.approx(total, rel=1e-9, abs=1e-6)
        assert (values[0].item(), values[-1].item()) == (first, last)


@pytest.mark.parametrize(("name", "tolerance"), [("r18", 1e-4), ("r50", 1e-3), ("mbf", 1e-4)])
def test_a_backbone_of_insightface_computes_what_insightface_computes(name, tolerance):
    recorded = np.load(GOLDEN / f"output_{name}.npz")
    model = filled(BACKBONES[house_name(name)](), int(recorded["salt"]))
    with torch.inference_mode():
        output = model(torch.from_numpy(np.load(GOLDEN / "input.npz")["input"]))
    np.testing.assert_allclose(output.numpy(), recorded["output"], atol=tolerance, rtol=0)


def test_the_sizes_told_of_every_backbone_are_those_it_has():
    told = re.findall(r"^    (\w+) +([\d.]+) M +([\d,]+) M", recognition.backbones.__doc__, re.MULTILINE)
    assert [name for name, _, _ in told] == list(BACKBONES)
    for name, parameters, multiply_adds in told:
        model = without_weights(name).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 112, 112, device="meta"))
        decimals = len(parameters.split(".")[1])
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, decimals) == float(parameters)
        assert round(counter.get_total_flops() / 2e6) == int(multiply_adds.replace(",", ""))


def test_ir_se_101_has_the_size_that_cavaface_tells():
    """65.5 M parameters and 24.18 G operations for "IR-SE-100", docs/MODEL_ZOO.md of cavalleria/cavaface @ db6e2d4."""
    with torch.device("meta"):
        model = IR(blocks=(3, 13, 30, 3), squeeze_excite=True).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 112, 112, device="meta"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(65.5, abs=0.05)
    assert counter.get_total_flops() / 1e9 == pytest.approx(24.18, rel=2e-3)  # theirs counts norms and PReLUs, too


def test_ir50_is_iresnet50_less_one_shortcut_and_the_last_norms_scale_and_shift():
    recorded = json.loads((GOLDEN / "layout_r50.json").read_text())["parameters"]
    first_shortcut, last_norm = 64 * 64 + 2 * 64, 2 * 512
    squeezes = sum(count * 2 * width * width // 16 for count, width in ((3, 64), (4, 128), (14, 256), (3, 512)))
    for name, expected in (
        ("ir50", recorded - first_shortcut - last_norm),
        ("ir_se50", recorded - first_shortcut - last_norm + squeezes),
    ):
        assert sum(p.numel() for p in without_weights(name).parameters()) == expected


@pytest.mark.parametrize("name", ["ir50", "ir_se50"])
def test_ir_has_the_keys_of_adafaces_checkpoints_in_their_order(name):
    """Written from the layers of mk-minchul/AdaFace @ c60eaa7, net.py: input, output, then 24 units."""
    norm, counter = ("weight", "bias", "running_mean", "running_var"), ("num_batches_tracked",)

    def keys(layer: str, names: tuple[str, ...]) -> list[str]:
        return [f"{layer}.{name}" for name in names]

    weight, whole_norm = ("weight",), norm + counter
    expected = keys("input_layer.0", weight) + keys("input_layer.1", whole_norm) + keys("input_layer.2", weight)
    expected += keys("output_layer.0", whole_norm) + keys("output_layer.3", ("weight", "bias"))
    expected += keys("output_layer.4", norm[2:] + counter)
    for unit in range(24):
        if unit in (3, 7, 21):  # the first of 128, 256 and 512 channels; 64 come in and go out before
            expected += keys(f"body.{unit}.shortcut_layer.0", weight) + keys(
                f"body.{unit}.shortcut_layer.1", whole_norm
            )
        for place, names in enumerate((whole_norm, weight, whole_norm, weight, weight, whole_norm)):
            expected += keys(f"body.{unit}.res_layer.{place}", names)
        if name == "ir_se50":
            expected += keys(f"body.{unit}.res_layer.se_block.fc1", weight)
            expected += keys(f"body.{unit}.res_layer.se_block.fc2", weight)
    assert list(without_weights(name).state_dict()) == expected


def norm(x: torch.Tensor, state: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    """Batch normalisation as its formula has it, from running statistics."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = (state[f"{layer}.running_{name}"].reshape(shape) for name in ("mean", "var"))
    scale, shift = (
        state.get(f"{layer}.{name}", torch.tensor(default)) for name, default in (("weight", 1.0), ("bias", 0.0))
    )
    scale, shift = (value.expand(x.shape[1]).reshape(shape) for value in (scale, shift))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def by_hand(x: torch.Tensor, state: dict[str, torch.Tensor], strides: list[int], squeeze_excite: bool) -> torch.Tensor:
    """IR as its description has it: every picture pixel by pixel from the state dict alone."""

    def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, x * slope.reshape(1, -1, 1, 1))

    x = F.conv2d(x, state["input_layer.0.weight"], padding=1)
    x = prelu(norm(x, state, "input_layer.1"), state["input_layer.2.weight"])
    for unit, stride in enumerate(strides):
        residual, shortcut = f"body.{unit}.res_layer", f"body.{unit}.shortcut_layer"
        y = F.conv2d(norm(x, state, f"{residual}.0"), state[f"{residual}.1.weight"], padding=1)
        y = prelu(norm(y, state, f"{residual}.2"), state[f"{residual}.3.weight"])
        y = norm(F.conv2d(y, state[f"{residual}.4.weight"], stride=stride, padding=1), state, f"{residual}.5")
        if squeeze_excite:
            fc1, fc2 = (state[f"{residual}.se_block.{name}.weight"][:, :, 0, 0] for name in ("fc1", "fc2"))
            weights = 1 / (1 + torch.exp(-((y.mean((2, 3)) @ fc1.T).clamp(min=0) @ fc2.T)))
            y = y * weights[:, :, None, None]
        x = x[:, :, ::stride, ::stride]
        if f"{shortcut}.0.weight" in state:
            x = norm(
                torch.einsum("oi,bihw->bohw", state[f"{shortcut}.0.weight"][:, :, 0, 0], x), state, f"{shortcut}.1"
            )
        x = x + y
    x = norm(x, state, "output_layer.0").flatten(1)
    return norm(x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"], state, "output_layer.4")


@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_ir_computes_what_its_description_says(squeeze_excite):
    model = IR((2, 1, 2), (16, 16, 32), stem_width=16, squeeze_excite=squeeze_excite, dimensions=8)
    model = filled(model, salt=7)
    x = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = by_hand(x, model.state_dict(), [2, 1, 2, 2, 1], squeeze_excite)
        torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_ir_begins_with_kaimings_deviations():
    torch.manual_seed(0)
    model = IR((1,), (64,), stem_width=64, squeeze_excite=True, dimensions=32)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            fan_out = module.weight[:, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("name", "default"), [("ir50", 0.4), ("ir_se50", 0.4), ("iresnet18", 0.0), ("iresnet_tiny", 0.0)]
)
def test_dropout_may_be_told_where_the_design_has_one(name, default):
    def rates(model: torch.nn.Module) -> list[float]:
        return [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]

    assert rates(without_weights(name)) == [default]
    assert rates(without_weights(name, dropout=0.25)) == [0.25]


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_backbone_tells_the_length_of_its_embeddings(name):
    model = without_weights(name).eval()
    assert model(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, model.dimensions)


@pytest.mark.parametrize("name", ["iresnet_tiny", "residual_a", "plain_b"])
def test_the_small_backbones_fit_in_four_megabytes(name):
    model = BACKBONES[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000
    assert model.eval()(torch.zeros(2, 3, 112, 112)).shape == (2, 128)


def test_a_stage_without_a_width_is_refused():
    with pytest.raises(ValueError, match="one width and one stride a stage"):
        IResNet(blocks=(1, 1), widths=(8,), strides=(2, 2))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: IR(blocks=(1, 1), widths=(16,)), "one width a stage"),
        (lambda: IR(blocks=(1,), widths=(24,), squeeze_excite=True), "multiples of 16"),
    ],
)
def test_an_ir_that_cannot_be_is_refused(make, fault):
    with pytest.raises(ValueError, match=fault):
        make()


def test_the_second_stage_of_mobilefacenet_has_64_groups_of_two_channels():
    with torch.device("meta"):
        model = MobileFaceNet()
    assert model.layers[1].layers[0].groups == 64
