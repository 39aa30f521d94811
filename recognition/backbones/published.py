"""Loads weights that others have published into the backbones of this house.

A file of weights says neither which network it is of nor in which order its channels come; both are told to
`load_published`, which refuses what does not fit and says what it unwrapped. No code of a file is ever run.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from recognition.backbones import BACKBONES

# Where trainers put a state dict among other things: this house the average of its weights, if there is one, which is
# then its result; Lightning (AdaFace), arcface_torch, many others and this house.
_KEYS = ("average", "state_dict", "state_dict_backbone", "model")
# What wrappers put before a name: DistributedDataParallel, Lightning modules (AdaFace), a class around it, CVLface.
_PREFIXES = ("module.", "model.", "backbone.", "net.")
_TORCH, _SAFETENSORS = (".pt", ".pth", ".ckpt", ".bin"), (".safetensors",)
# What Lightning's checkpoints name beside tensors, as AdaFace's do: its callbacks, and the kinds of its settings.
_BYSTANDERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "argparse.Namespace", "pathlib.")
_CHANNEL_ORDERS = ("RGB", "BGR")
_IN_BOTH_ORDERS = ("ir50", "ir_se50")  # designs that some publish for RGB and some for BGR
# What torch.load raises for files that are cut, damaged, of something else, or of more than tensors: it has no error of
# its own, so these are what 12,000 damaged files raised.
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)


class ChannelSwap(nn.Module):
    """Takes RGB and hands BGR to a network that was trained on BGR.

    Attributes:
        model: The network that takes BGR.
        dimensions: Length of the embedding.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.dimensions = model.dimensions

    def forward(self, x: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b d"]:
        return self.model(x.flip(1))


@dataclass(frozen=True, eq=False)
class Published:
    """Published weights in a network of this house.

    Attributes:
        model: Takes RGB, as every backbone does, whatever the weights were trained on; in eval mode, on the CPU.
        backbone: Its name in `BACKBONES`.
        channel_order: What the weights were trained on, "RGB" or "BGR"; with "BGR" the model is a `ChannelSwap`.
        unwrapped: What was taken off or left out before the weights fitted, a sentence each; empty for a bare state
            dict.
    """

    model: nn.Module
    backbone: str
    channel_order: str
    unwrapped: tuple[str, ...]


def load_published(path: Path, backbone: str, channel_order: str | None = None) -> Published:
    """Loads a state dict of others, every tensor of it, and nothing but tensors.

    A checkpoint of Lightning may hold its callbacks and settings beside it; they are left out, and told.

    A state dict may lie under the key "average", "state_dict", "state_dict_backbone" or "model", and its names may
    begin with "module.", "model.", "backbone." or "net."; what lies beside it under another prefix, a head for
    instance, is left out. `Published.unwrapped` tells it.

    Args:
        path: A .pt, .pth, .ckpt or .bin file of torch.save, or a .safetensors file.
        backbone: A name in `BACKBONES`.
        channel_order: "RGB" or "BGR": what the weights were trained on. insightface's are RGB, which is the default for
            the designs that it publishes. The IR designs have none: AdaFace's weights want BGR, CVLface's what
            `color_space` says in the file beside them.

    Raises:
        ValueError: If an argument is unknown, the channel order is not told and cannot be known, or the file is
            missing, empty, cut short, no file of weights, holds more than tensors, or has missing, unexpected, wrongly
            shaped or not finite tensors; the line names the file and the tensors.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    channel_order = _channel_order(backbone, channel_order)
    state, unwrapped = _read(path)
    model = _without_initial_weights(backbone)
    expected = model.state_dict()
    state, prefixes = _without_prefixes(state, expected)
    _check(path, backbone, state, expected)
    model.load_state_dict(state)
    model.eval()
    house = ChannelSwap(model).eval() if channel_order == "BGR" else model
    return Published(house, backbone, channel_order, (*unwrapped, *prefixes))


def _channel_order(backbone: str, told: str | None) -> str:
    if told is None and backbone in _IN_BOTH_ORDERS:
        raise ValueError(
            f'channel_order: expected "RGB" or "BGR" for {backbone}, got None: '
            "AdaFace's published weights want BGR, CVLface's what color_space in their model.yaml says"
        )
    order = "RGB" if told is None else told
    if order not in _CHANNEL_ORDERS:
        raise ValueError(f'channel_order: expected "RGB" or "BGR", got {order!r}')
    return order


def _without_initial_weights(backbone: str) -> nn.Module:
    """The network with memory but no values: drawing weights that are thrown away takes seconds, and random numbers."""
    with torch.device("meta"):
        model = BACKBONES[backbone]()
    return model.to_empty(device="cpu")


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file, and what it was taken from."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, found none")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected a file of weights, found an empty file")
    if path.suffix in _SAFETENSORS:
        try:
            return load_file(path), ()
        except SafetensorError as error:
            raise ValueError(f"{path}: expected a safetensors file, found one that is damaged: {error}") from error
    if path.suffix not in _TORCH:
        raise ValueError(f"{path}: expected a name ending in {', '.join(_TORCH + _SAFETENSORS)}")
    loaded, bystanders = _tensors_only(path)
    state, unwrapped = _state_dict(path, loaded)
    return state, (*unwrapped, *(f"left out what it holds of {name}" for name in bystanders))


class _Nothing:
    """What stands for a bystander: takes whatever a file gives it, and does nothing with it."""

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _tensors_only(path: Path) -> tuple[object, tuple[str, ...]]:
    """What a file holds, and which bystanders it named; they are not looked up, so nothing of theirs is run."""
    try:
        named = [name for name in _named(path) if name.startswith(_BYSTANDERS)]
        with torch.serialization.safe_globals([(type("_Nothing", (_Nothing,), {}), name) for name in named]):
            return torch.load(path, map_location="cpu", weights_only=True), tuple(sorted(named))
    except _UNREADABLE as error:
        raise ValueError(f"{path}: expected a file of tensors by torch.save, found {_reason(error)}") from error


def _named(path: Path) -> list[str]:
    """What a file names that torch does not know as safe, read off without running it; nothing of the old format."""
    return torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []


def _reason(error: Exception) -> str:
    """Why torch did not read a file, in a line; its own advice, to run the file's code, is left out."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code is not None:
        return f"one that holds {code[1]}, too, which is not read; save its state dict alone where it was made"
    if "torchscript" in str(error).lower():
        return "a TorchScript archive, which is code; save its state dict alone where it was made"
    if isinstance(error, pickle.UnpicklingError):
        return "one that is damaged or of something else"
    first_line = str(error).strip().split("\n")[0]
    return f"one that is damaged or of something else ({type(error).__name__}: {first_line[:200]})"


def _state_dict(path: Path, loaded: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    unwrapped: tuple[str, ...] = ()
    if isinstance(loaded, Mapping):
        for key in _KEYS:
            if loaded.get(key) and isinstance(loaded[key], Mapping):
                unwrapped = (f'taken from the key "{key}"',)
                loaded = loaded[key]
                break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{path}: expected a state dict, found {type(loaded).__name__}")
    strange = [str(key) for key, value in loaded.items() if not (isinstance(key, str) and _dense(value))]
    if strange:
        raise ValueError(f"{path}: expected a state dict, names to dense tensors; not so: {_some(strange)}")
    return dict(loaded), unwrapped


def _dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _without_prefixes(
    state: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Takes prefixes off until a name fits; names without the prefix, where others have it, are left out and told."""
    told = []
    while not state.keys() & expected.keys():
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        others = [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        told.append(f'"{prefix}" taken off' + (f"; left out: {_some(others)}" if others else ""))
    return state, tuple(told)


def _check(path: Path, backbone: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of the wrong shape": [
            f"{name} {tuple(value.shape)} for {tuple(expected[name].shape)}"
            for name, value in state.items()
            if name in expected and value.shape != expected[name].shape
        ],
        "not finite": [name for name, value in state.items() if not value.isfinite().all()],
    }
    told = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if told:
        raise ValueError(f"{path}: expected the weights of {backbone}, found {'; '.join(told)}")


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
