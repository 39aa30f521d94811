"""Logs of a training: `train.jsonl` always, TensorBoard or Weights & Biases where it is asked for."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from recognition.files import whole_file

NO_LOG = "none"
JSONL = "train.jsonl"
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


@runtime_checkable
class _Sink(Protocol):
    def add(self, step: int, figures: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Log:
    """Where the figures of a training go: every line of `train.jsonl` has step, epoch and the figures.

    Args:
        folder: Of `train.jsonl`.
        done: Steps done before; what an earlier process told of later steps is taken back.
        sink: Who else is told.
    """

    def __init__(self, folder: Path, done: int, sink: _Sink | None = None) -> None:
        self.sink = sink
        path = folder / JSONL
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= done]
        with whole_file(path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())
        self.file = path.open("a")

    def write(self, step: int, epoch: int, **figures: float) -> None:
        """Adds the figures after a step, counted over the whole training from 1."""
        # JSON has no infinity: a gradient that overflowed in fp16 is null.
        told = {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in figures.items()}
        self.file.write(json.dumps({"step": step, "epoch": epoch, **told}) + "\n")
        self.file.flush()
        if self.sink is not None:
            self.sink.add(step, figures)

    def close(self) -> None:
        self.file.close()
        if self.sink is not None:
            self.sink.close()


@contextmanager
def opened(kind: str, folder: Path, done: int) -> Iterator[Log]:
    """The log of a training in a folder, closed at the end.

    Raises:
        ValueError: As `check_log`.
    """
    check_log(kind)
    log = Log(folder, done, _sink(kind, folder, done))
    try:
        yield log
    finally:
        log.close()


def check_log(kind: str) -> None:
    """Raises ValueError unless the kind of log is known and its package is installed."""
    if kind not in (NO_LOG, *_PACKAGES):
        raise ValueError(f"log: expected one of {NO_LOG}, {', '.join(_PACKAGES)}, got {kind!r}")
    if kind in _PACKAGES and importlib.util.find_spec(_PACKAGES[kind]) is None:
        raise ValueError(f"log: expected {_PACKAGES[kind]} to be installed (pip install {kind}), found no such module")


def _sink(kind: str, folder: Path, done: int) -> _Sink | None:
    if kind == "tensorboard":
        return _TensorBoard(folder, done)
    return _Wandb(folder) if kind == "wandb" else None


class _TensorBoard:
    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def add(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """Offline: nothing leaves the machine until the user syncs it."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self.run: Any = wandb.init(mode="offline", dir=str(folder), project="facemint", name=folder.name)

    def add(self, step: int, figures: dict[str, float]) -> None:
        self.run.log(figures, step=step)

    def close(self) -> None:
        self.run.finish()


def _whole_lines(path: Path) -> list[str]:
    """Lines of a file, less one that a killed process did not finish; none of a file that is not there."""
    return path.read_text().split("\n")[:-1] if path.exists() else []
