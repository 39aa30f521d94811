"""Models to be verified, whoever trained them: `.onnx` files and `.pt` weights as callables, crops -> raw embeddings.

An ONNX file is run as insightface's `ArcFaceONNX` runs it: RGB, (x - 127.5) / 127.5, or x as it is where the graph
scales its input itself, which insightface reads off the names of its first eight nodes ("Sub..." and "Mul..."). What
was assumed, and what really ran it, is told in `Loaded.about`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from recognition.files import sha256_of

INPUT_PX = 112
WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")
UNKNOWN_EPOCH = "as given: the file does not say which epoch it is"
TOLD = ("model.json", "train.json")  # beside recogniser.onnx: of a run, and of `facemint train`
BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that is ready: raw embeddings of RGB crops.

    Attributes:
        about: What it is and how it is run, for JSON: file, sha256, provider, precision, channel order, mean and std,
            recipe and checkpoint where they are known.
        run: The network: scaled float32 input (b, 3, 112, 112), b as fixed, to embeddings.
        mean, std: Of the scaling (x - mean) / std.
        bgr: Whether the network wants blue first.
        batch: Crops that the network takes at once. fixed: Whether it takes no other number.
    """

    about: Mapping[str, Any]
    run: Callable[[np.ndarray], np.ndarray]
    mean: float
    std: float
    bgr: bool
    batch: int
    fixed: bool = False

    def __call__(self, crops: UInt8[np.ndarray, "b 112 112 3"]) -> Float32[np.ndarray, "b d"]:
        """Raises ValueError, naming the file, if the network fails, or does not give one vector per crop."""
        parts = [self._part(crops[start : start + self.batch]) for start in range(0, len(crops), self.batch)]
        return np.concatenate(parts)

    def _part(self, crops: np.ndarray) -> np.ndarray:
        planes = (crops[..., ::-1] if self.bgr else crops).transpose(0, 3, 1, 2)
        x = (planes.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)
        missing = self.batch - len(x) if self.fixed else 0
        raw = self.run(np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x)
        if raw.ndim != 2 or len(raw) != len(x) + missing:
            raise ValueError(f"{self.about['file']}: expected embeddings ({len(x)}, d), got shape {raw.shape}")
        return raw[: len(x)].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are to be loaded.

    Args:
        backbone: A name in `recognition.backbones.BACKBONES`: what weights are of. Says nothing of ONNX files,
            which have their graph.
        bgr: Whether the network wants blue first, as AdaFace's published weights do; None: red first, but for designs
            whose published weights come in both orders, which must be told.
        fp16: Whether `.pt` weights are run in half precision; an ONNX file has its own.
        mean, std: Of the input; None: insightface's, by its rule.
        device: "cpu" or "cuda"; None: the GPU where there is one.
        batch: Crops at once.
        threads: Of the CPU; 0: as many as the library likes.
    """

    backbone: str | None = None
    bgr: bool | None = None
    fp16: bool = False
    mean: float | None = None
    std: float | None = None
    device: str | None = None
    batch: int = BATCH
    threads: int = 0

    def __post_init__(self) -> None:
        if self.device not in (None, "cpu", "cuda"):
            raise ValueError(f"device: expected cpu or cuda, got {self.device!r}")
        if self.batch < 1 or self.threads < 0:
            raise ValueError(f"batch, threads: expected at least 1 and 0, got {self.batch}, {self.threads}")
        if (self.mean is None) != (self.std is None) or (self.std is not None and not self.std > 0):
            raise ValueError(f"mean, std: expected both or neither, std > 0, got {self.mean}, {self.std}")


def load_model(path: Path, settings: Settings = Settings()) -> Loaded:
    """A model from its file.

    Raises:
        ValueError: If the file is missing, empty, cut off, hostile, or not a recogniser of 112x112 crops, or if a
            setting does not go with it; names the file and the fault.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise ValueError(f"{path}: expected a model, found {'an empty file' if path.is_file() else 'none'}")
    if path.suffix == ".onnx":
        return _load_onnx(path, settings)
    if path.suffix in WEIGHTS:
        return _load_weights(path, settings)
    raise ValueError(f"{path}: expected a name ending in .onnx, {', '.join(WEIGHTS)}")


def model_files(path: Path) -> list[Path]:
    """The models that a path means: the file itself, or those of a run directory, a seed each.

    Raises:
        ValueError: If there is none, or a folder holds several that are not a run's: which of them is scored is then
            for the user to say, since choosing by a test set marks the score.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: expected a model, a run directory, or a folder with one model, found none")
    of_run = sorted(path.glob("model*/recogniser.onnx"), key=lambda each: (len(each.parent.name), each.parent.name))
    found = of_run or checkpoints(path)
    if not found:
        raise ValueError(f"{path}: expected a file .onnx, {', '.join(WEIGHTS)}, found none")
    exported = [each for each in found if each.name == "recogniser.onnx"]
    if not of_run and len(found) > 1 and len(exported) != 1:
        raise ValueError(
            f"{path}: expected one model, found {len(found)}: {', '.join(each.name for each in found[:4])}. "
            "The last epoch is scored by rule: name its file; --choose-on SET picks the one that is best on a set, and "
            "marks the score"
        )
    return found if of_run else exported or found


def checkpoints(folder: Path) -> list[Path]:
    """Models of a folder, by name."""
    return sorted(each for each in folder.iterdir() if each.suffix in (".onnx", *WEIGHTS) and each.is_file())


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _load_onnx(path: Path, settings: Settings) -> Loaded:
    if settings.fp16:
        raise ValueError(f"{path}: fp16: expected an ONNX file to be run in its own precision, got a wish for half")
    scaled_inside = _scales_itself(path)
    session, faults = _session(path, settings)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"{path}: expected one input and one output, got {_names(inputs)} and {_names(outputs)}")
    wanted = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    shape, kind = inputs[0].shape, inputs[0].type
    if len(shape) != 4 or list(shape[1:]) != [3, INPUT_PX, INPUT_PX] or kind not in wanted:
        raise ValueError(f"{path}: expected input (N, 3, 112, 112) of floats, got {shape} of {kind}")
    name, fixed = inputs[0].name, isinstance(shape[0], int)
    mean, std = (0.0, 1.0) if scaled_inside else (127.5, 127.5)
    if settings.mean is not None and settings.std is not None:
        mean, std = settings.mean, settings.std

    def run(x: np.ndarray) -> np.ndarray:
        try:
            return session.run(None, {name: np.ascontiguousarray(x, wanted[kind])})[0]
        except faults as fault:
            raise ValueError(f"{path}: the network failed: {_first_line(fault)}") from fault

    about = {
        **_about(path, settings, mean, std),
        "kind": "onnx",
        "provider": session.get_providers()[0],
        "precision": "fp16" if kind == "tensor(float16)" else "fp32",
        "scaled_inside": scaled_inside,
    }
    return Loaded(about, run, mean, std, bool(settings.bgr), shape[0] if fixed else settings.batch, fixed)


def _scales_itself(path: Path) -> bool:
    """insightface's rule (`ArcFaceONNX`): nodes named Sub... (or _minus) and Mul... (or _mul) among the first eight.

    On the way, tensors are refused that a file would read from elsewhere than beside itself.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except DecodeError as fault:
        raise ValueError(f"{path}: expected a whole ONNX file: {_first_line(fault)}") from fault
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and (Path(entry.value).is_absolute() or ".." in Path(entry.value).parts):
                raise ValueError(f"{path}: refused: it reads a tensor from {entry.value[:80]!r}")
    first = [node.name for node in graph.node[:8]]
    return any(name.startswith(("Sub", "_minus")) for name in first) and any(
        name.startswith(("Mul", "_mul")) for name in first
    )


def _session(path: Path, settings: Settings) -> tuple[Any, tuple[type[Exception], ...]]:
    """An ONNX session where it was asked for, and what its library raises."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    kinds = (getattr(native, name) for name in dir(native))
    native_faults = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    # ValueError: a name in the file that is not text
    faults: tuple[type[Exception], ...] = (*native_faults, RuntimeError, ValueError)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if settings.threads:
        options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
    cuda = "CUDAExecutionProvider"
    there = cuda in onnxruntime.get_available_providers()
    if settings.device == "cuda" and not there:
        raise ValueError(f"device: expected onnxruntime with {cuda}, got {onnxruntime.get_available_providers()}")
    wanted = [cuda, "CPUExecutionProvider"] if there and settings.device != "cpu" else ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=wanted, enable_fallback=0)
    except faults as fault:
        raise ValueError(f"{path}: expected a whole ONNX file: {_first_line(fault)}") from fault
    if settings.device == "cuda" and session.get_providers()[0] != cuda:
        raise ValueError(f"device: expected {cuda}, got {session.get_providers()[0]}: onnxruntime fell back")
    return session, faults


def _names(ports: Sequence[Any]) -> str:
    return f"{len(ports)} ({', '.join(port.name for port in ports[:4])})"


# --- weights ----------------------------------------------------------------------------------------------------------


def _load_weights(path: Path, settings: Settings) -> Loaded:
    import torch

    if settings.backbone is None:
        raise ValueError(f"{path}: backbone: expected the name of the network that these weights are of, got none")
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a GPU that torch can use, got none")
    network, told, swap = _network(path, settings.backbone, settings.bgr)
    network = network.to(device).eval()
    network = network.half() if settings.fp16 else network
    mean, std = (127.5, 127.5) if settings.mean is None or settings.std is None else (settings.mean, settings.std)
    kind = torch.float16 if settings.fp16 else torch.float32

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), _threads(settings.threads):
            return network(torch.from_numpy(np.ascontiguousarray(x)).to(device, kind)).float().cpu().numpy()

    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    about = {
        **_about(path, settings, mean, std),
        "kind": "torch",
        "provider": f"torch {torch.__version__} on {where}",
        "precision": "fp16" if settings.fp16 else "fp32",
        "backbone": settings.backbone,
        **told,
    }
    return Loaded(about, run, mean, std, swap, settings.batch)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch in here; 0: as they are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _network(path: Path, backbone: str, bgr: bool | None) -> tuple[Any, dict[str, Any], bool]:
    """The network with the weights of a file, what the file tells of itself, and whether crops must be swapped."""
    from recognition.backbones.published import load_published

    ours = _our_checkpoint(path, backbone) if path.suffix == ".pt" else None
    if ours is not None:
        return *ours, bool(bgr)
    loaded = load_published(path, backbone, {None: None, True: "BGR", False: "RGB"}[bgr])
    return loaded.model, {"channel_order": loaded.channel_order, "unwrapped": list(loaded.unwrapped)}, False


def _our_checkpoint(path: Path, backbone: str) -> tuple[Any, dict[str, Any]] | None:
    """What `recognition.train` leaves after its last epoch, running average first; None for another file."""
    import torch

    from recognition.backbones import BACKBONES

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, OSError, TypeError) as fault:
        raise ValueError(f"{path}: expected weights by torch.save, and tensors alone: {_first_line(fault)}") from fault
    if not (isinstance(saved, dict) and {"recipe", "losses", "model"} <= saved.keys()):
        return None
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are thrown away
        network = BACKBONES[backbone]()
    try:
        network.load_state_dict(saved.get("average") or saved["model"])
    except (RuntimeError, TypeError, AttributeError) as fault:
        raise ValueError(f"{path}: expected the weights of {backbone}: {_first_line(fault)}") from fault
    epochs = len(saved["losses"])
    return network, {"recipe_sha256": saved["recipe"], "checkpoint": f"last epoch so far: epoch {epochs}"}


# --- what is told -----------------------------------------------------------------------------------------------------


def _about(path: Path, settings: Settings, mean: float, std: float) -> dict[str, Any]:
    return {
        "file": str(path),
        "sha256": sha256_of(path),
        "channel_order": "BGR" if settings.bgr else "RGB",
        "input_mean": mean,
        "input_std": std,
        **_told_beside(path),
    }


def _told_beside(path: Path) -> dict[str, Any]:
    """What the JSON of a run's training, or of `facemint train`, says of the model beside it."""
    beside = next(filter(Path.is_file, map(path.with_name, TOLD)), None)
    if path.name != "recogniser.onnx" or beside is None:
        return {"recipe_sha256": None, "checkpoint": UNKNOWN_EPOCH}
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
        epochs, recipe, seed = len(said["losses"]), str(said["recipe_sha256"]), said.get("seed")
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{beside}: expected what a training says of its model: {fault!r}") from fault
    return {"recipe_sha256": recipe, "seed": seed, "checkpoint": f"last epoch, {epochs} of {epochs}, by rule"}


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:200]
