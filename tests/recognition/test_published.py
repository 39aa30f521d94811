import argparse
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from recognition.backbones import BACKBONES
from recognition.backbones.published import ChannelSwap, load_published

NAME = "iresnet_tiny"


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """A network with norms as after training."""
    torch.manual_seed(0)
    model = BACKBONES[NAME]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


WRAPPED = {
    "bare": (lambda state: state, ()),
    "another process's": (lambda state: prefixed(state, "module."), ('"module." taken off',)),
    "a class around it": (lambda state: prefixed(state, "backbone."), ('"backbone." taken off',)),
    "CVLface": (lambda state: prefixed(state, "net."), ('"net." taken off',)),
    "two wrappers": (
        lambda state: prefixed(state, "module.model."),
        ('"module." taken off', '"model." taken off'),
    ),
    "arcface_torch's checkpoint": (
        lambda state: {"epoch": 3, "state_dict_backbone": state, "state_dict_softmax_fc": {"weight": torch.ones(2)}},
        ('taken from the key "state_dict_backbone"',),
    ),
    "a checkpoint of this house": (
        lambda state: {"model": state, "average": {}, "losses": [1.0]},
        ('taken from the key "model"',),
    ),
    "a checkpoint of this house with averaged weights": (
        lambda state: {"model": {name: value + 1 for name, value in state.items()}, "average": state},
        ('taken from the key "average"',),
    ),
    "AdaFace's checkpoint": (
        lambda state: {
            "epoch": 26,
            "state_dict": prefixed(state, "model.") | {"head.kernel": torch.ones(2), "head.t": torch.ones(1)},
        },
        ('taken from the key "state_dict"', '"model." taken off; left out: head.kernel, head.t'),
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_published_weights_are_loaded_and_what_was_unwrapped_is_told(theirs, pictures, tmp_path, wrapper, suffix):
    wrap, told = WRAPPED[wrapper]
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(theirs.state_dict()), path)
    found = load_published(path, NAME)
    assert (found.unwrapped, found.channel_order, found.backbone) == (told, "RGB", NAME)
    assert not found.model.training
    assert torch.equal(found.model(pictures), theirs(pictures))


def test_safetensors_and_half_precision_are_loaded(theirs, pictures, tmp_path):
    state = theirs.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save(halved, tmp_path / "half.pt")
    assert torch.equal(load_published(tmp_path / "weights.safetensors", NAME).model(pictures), theirs(pictures))
    half = load_published(tmp_path / "half.pt", NAME).model
    assert {value.dtype for value in half.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(half.fc.weight, state["fc.weight"].half().float())


def test_weights_trained_on_bgr_take_rgb_in_this_house(theirs, pictures, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    found = load_published(tmp_path / "weights.pt", NAME, channel_order="BGR")
    assert isinstance(found.model, ChannelSwap)
    assert (found.channel_order, found.model.dimensions) == ("BGR", 128)
    red, green, blue = pictures.unbind(1)
    assert torch.equal(found.model(pictures), theirs(torch.stack([blue, green, red], 1)))


def test_the_channel_order_of_an_ir_has_to_be_told(tmp_path):
    for name in ("ir50", "ir_se50"):
        with pytest.raises(ValueError, match=f'channel_order: expected "RGB" or "BGR" for {name}, got None: AdaFace'):
            load_published(tmp_path / "none.pt", name)


def test_loading_draws_no_random_numbers(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    before = torch.get_rng_state()
    load_published(tmp_path / "weights.pt", NAME)
    assert torch.equal(torch.get_rng_state(), before)


def changed(state: dict, **changes) -> dict:
    """The state with some values replaced, or left out where None."""
    new = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in new.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fc__bias": None}, "found 1 missing: fc.bias"),
        ({"extra__weight": torch.ones(2)}, "found 1 unexpected: extra.weight"),
        ({"fc__bias": torch.ones(64)}, r"found 1 of the wrong shape: fc.bias \(64,\) for \(128,\)"),
        ({"fc__bias": torch.full((128,), float("nan"))}, "found 1 not finite: fc.bias"),
        ({"fc__bias": "text"}, "names to dense tensors; not so: fc.bias"),
        ({"fc__bias": torch.ones(128).to_sparse()}, "names to dense tensors; not so: fc.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_line_that_names_them(theirs, tmp_path, changes, line):
    path = tmp_path / "weights.pt"
    torch.save(changed(theirs.state_dict(), **changes), path)
    with pytest.raises(ValueError, match=line) as error:
        load_published(path, NAME)
    assert str(error.value).startswith(f"{path}: expected ")
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused_with_some_names_of_each_fault(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"expected the weights of plain_b, found \d+ missing: .* more; \d+ unexpected: .* more"
    ):
        load_published(tmp_path / "weights.pt", "plain_b")


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class _Theirs:
    """Stands for Lightning's classes in a file: shouts where it is made."""

    def __init__(self, word="saving"):
        if word == "loading":
            raise AssertionError("the file's class was run")

    def __reduce__(self):
        return type(self), ("loading",), {"dirpath": "epochs"}


def lightning_checkpoint(path: Path, state: dict, module: str, monkeypatch) -> None:
    """As Lightning 1.3 writes it: callbacks by their class, settings of any kind."""
    parts = module.split(".")
    for place in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
        monkeypatch.setitem(sys.modules, place, types.ModuleType(place))
    theirs = type("ModelCheckpoint", (_Theirs,), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], "ModelCheckpoint", theirs, raising=False)
    settings_of = {"args": argparse.Namespace(root=Path("faces")), "callback": theirs(), "lr": 0.1}
    torch.save({"state_dict": state, "callbacks": {theirs: {"best": 0.9}}, "hyper_parameters": settings_of}, path)
    monkeypatch.undo()


def test_what_lightning_keeps_beside_the_weights_is_left_out_and_told(theirs, pictures, tmp_path, monkeypatch):
    path, module = tmp_path / "adaface.ckpt", "pytorch_lightning.callbacks.model_checkpoint"
    lightning_checkpoint(path, prefixed(theirs.state_dict(), "model."), module, monkeypatch)
    found = load_published(path, NAME)
    assert torch.equal(found.model(pictures), theirs(pictures))
    assert found.unwrapped == (
        'taken from the key "state_dict"',
        "left out what it holds of argparse.Namespace",
        f"left out what it holds of {type(Path()).__module__}.PosixPath",
        f"left out what it holds of {module}.ModelCheckpoint",
        '"model." taken off',
    )


def test_what_anybody_else_keeps_beside_the_weights_is_refused(theirs, tmp_path, monkeypatch):
    path, module = tmp_path / "weights.ckpt", "pytorch_lightnings.callbacks"
    lightning_checkpoint(path, theirs.state_dict(), module, monkeypatch)
    with pytest.raises(ValueError, match=r"one that holds pytorch_lightnings\.callbacks\.ModelCheckpoint, too"):
        load_published(path, NAME)


def test_no_code_of_a_file_runs(theirs, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    torch.save({**theirs.state_dict(), "a": Hostile(marker)}, tmp_path / "hidden.pth")
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": Hostile(marker)}, tmp_path / "lightning.ckpt")
    for name in ("plain.pt", "hidden.pth", "lightning.ckpt"):
        with pytest.raises(ValueError, match="expected a file of tensors") as error:
            load_published(tmp_path / name, NAME)
        assert name in str(error.value)
        assert "found one that holds posix.mkdir, too, which is not read" in str(error.value)
        assert "weights_only" not in str(error.value)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file")
def test_a_script_module_is_refused(theirs, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script\.pt: .* a TorchScript archive, which is code"):
        load_published(tmp_path / "script.pt", NAME)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.pt", None, "expected a file of weights, found none"),
        ("empty.pt", b"", "found an empty file"),
        ("empty.safetensors", b"", "found an empty file"),
        ("page.pt", b"<!DOCTYPE html><html>Sign in</html>", "damaged or of something else"),
        ("page.safetensors", b"<!DOCTYPE html><html>Sign in</html>", "found one that is damaged"),
        ("long.safetensors", struct.pack("<Q", 2**40) + b"{}", "found one that is damaged"),
        ("weights.onnx", b"x", r"expected a name ending in \.pt"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, name, content, line):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=line) as error:
        load_published(tmp_path / name, NAME)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("content", [{}, [torch.ones(2)], torch.ones(2), {"state_dict": {}}, {3: torch.ones(2)}])
def test_a_file_of_tensors_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="expected a state dict"):
        load_published(tmp_path / "weights.pt", NAME)


@pytest.mark.parametrize(
    ("backbone", "channel_order", "line"),
    [("iresnet51", None, "backbone: expected one of iresnet18, .* got 'iresnet51'"), (NAME, "GRB", "got 'GRB'")],
)
def test_an_unknown_name_is_refused_before_the_file_is_looked_for(tmp_path, backbone, channel_order, line):
    with pytest.raises(ValueError, match=line):
        load_published(tmp_path / "none.pt", backbone, channel_order)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> dict[str, bytes]:
    """The same small state in the three formats."""
    folder = tmp_path_factory.mktemp("whole")
    state = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "a.pt")
    torch.save(state, folder / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "c.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), name=st.sampled_from(["a.pt", "b.pt", "c.safetensors"]), cut=st.booleans())
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_damage_makes_anything_but_a_line_that_names_the_file(whole_files, tmp_path, seed, name, cut):
    """The undamaged file is of no network here, so that every file is refused."""
    rng, content = random.Random(seed), bytearray(whole_files[name])
    if cut:
        content = content[: rng.randrange(1, len(content))]
    else:
        for _ in range(rng.choice([1, 2, 5, 20])):
            content[rng.randrange(len(content) if rng.random() < 0.3 else min(len(content), 700))] = rng.randrange(256)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="expected") as error:
        load_published(tmp_path / name, NAME)
    assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_a_member_of_the_archive_that_is_cut_is_refused(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "cut.pt", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            cut.writestr(name, content[: len(content) // 2] if name.endswith("data/0") else content)
    with pytest.raises(ValueError, match=r"cut\.pt: expected a file of tensors"):
        load_published(tmp_path / "cut.pt", NAME)
