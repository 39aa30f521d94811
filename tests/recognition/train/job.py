"""Trainings for the tests, in a process of their own: `python -m tests.recognition.train.job FOLDER NAME ...`.

Under torchrun, in several. Each writes what it came to into FOLDER/NAME.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from recognition.augment import Compose
from recognition.margins import AdaFace
from recognition.train import Pictures, Progress, Recipe, networks, processes, train
from tests.recognition.train.conftest import RECIPE, faces


class WithoutNorms(nn.Module):
    """A backbone of a convolution and a matrix."""

    dimensions = 16

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, 16)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * 49, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.conv(x).tanh().flatten(1)))


PLAIN = replace(RECIPE, augment=Compose(()), epochs=3, peak_lr=0.001)
JOBS: dict[str, tuple[bool, Recipe]] = {  # whether the backbone has norms, and the recipe
    "plain": (False, PLAIN),
    "plain_in_two": (False, replace(PLAIN, accumulate=2)),
    "adaface_adamw": (False, replace(PLAIN, margin=AdaFace(), optimizer="adamw", peak_lr=1e-3)),
    "norms": (True, replace(RECIPE, epochs=3, ema_decay=0.5)),
    "norms_in_two": (True, replace(RECIPE, epochs=3, ema_decay=0.5, accumulate=2)),
    "pk": (False, replace(PLAIN, batches="pk")),
}


def run(folder: Path, name: str, **watched: object) -> dict[str, object]:
    norms, recipe = JOBS[name]
    with_norms = networks.BACKBONES
    if not norms:
        networks.BACKBONES = {"iresnet_tiny": WithoutNorms}
    try:
        trained = train(Pictures(*faces(5, 10)), recipe, folder / name, say=lambda line: None, **watched)
    finally:
        networks.BACKBONES = with_norms
    return {"losses": list(trained.losses), "weights_sha256": trained.weights_sha256, "ranks": processes.ranks()}


def killed_at(epoch: int, step: int) -> Callable[[Progress], None]:
    """Ends this process without a word after a step."""

    def kill(at: Progress) -> None:
        if (at.epoch, at.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if sys.argv[2] == "killed":
        run(where, sys.argv[3], on_progress=killed_at(2, 2), checkpoint_steps=1)
    with processes.joined("cpu"):
        for job in sys.argv[2:]:
            told = run(where, job)
            (where / f"{job}.{processes.rank()}.json").write_text(json.dumps(told))
