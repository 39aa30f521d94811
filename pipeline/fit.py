"""One recogniser, from pictures to its files: what the step `train`, `facemint train` and Ray Train all call.

Under torch.distributed every process calls it, and the first one says, keeps and writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.progress import Watch, say
from pipeline.steps.files import read_json, write_text
from recognition.train import Data, Progress, Recipe, processes

BEGUN, ONNX = "begun.json", "recogniser.onnx"
RULE = "the last epoch"  # which checkpoint is the result; no score chooses it


@dataclass(frozen=True)
class Order:
    """What is asked of a training beside recipe and pictures; none of it changes the result.

    Attributes:
        folder: Of the checkpoint and everything else.
        inputs: Fingerprint of recipe and pictures: what lies in the folder and is of others makes way.
        label: On the progress lines.
        finished: Name of the JSON that is written last, and says that all is whole.
        anew: Whether to train again where all is whole.
        device: Where torch computes in this process.
        log: "none", "tensorboard" or "wandb".
        checkpoint_steps: Steps of an epoch after which a checkpoint is written, too; 0: at its end alone.
        start: As in `recognition.train.train`.
        told: What the JSON says beside.
        on_epoch: As in `recognition.train.train`.
    """

    folder: Path
    inputs: str
    label: str
    finished: str = "model.json"
    anew: bool = False
    device: str = "cpu"
    log: str = "none"
    checkpoint_steps: int = 0
    start: Path | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    on_epoch: Callable[[Any, int], None] | None = None


def fit(data: Data, recipe: Recipe, order: Order) -> dict[str, Any]:
    """Trains one recogniser, or goes on where its folder stands. Returns what its JSON says.

    Raises:
        ValueError: As `recognition.train.train`.
    """
    from recognition.export import export_onnx
    from recognition.train import train

    first, images = processes.rank() == 0, len(data.labels)
    if first:
        _begin(order)
    processes.wait()
    with Watch(order.label, recipe.epochs * images, "pictures", quiet=not first) as watch:
        trained = train(
            data,
            recipe,
            order.folder,
            lambda at: watch.reach(_seen(at, images)),
            on_epoch=order.on_epoch,
            device=order.device,
            start=order.start,
            checkpoint_steps=order.checkpoint_steps,
            say=lambda line: say(f"{order.label}: {line}"),
            log=order.log,
        )
    told = {
        "inputs": order.inputs,
        "recipe_sha256": recipe.sha256,
        "recipe": recipe.told,
        "seed": recipe.seed,
        "weights_sha256": trained.weights_sha256,
        "chosen": RULE,
        "images": images,
        "identities": int(data.labels.max()) + 1,
        "processes": processes.ranks(),
        "losses": list(trained.losses),
        "findings": {finding.name: finding.said for finding in trained.findings},
        **order.told,
    }
    if first:
        export_onnx(trained.model, order.folder / ONNX)
        write_text(order.folder / order.finished, json.dumps(told, indent=1))
    processes.wait()
    return told


def _begin(order: Order) -> None:
    """Clears the folder of another training's files, and says whose it is now."""
    begun, finished = order.folder / BEGUN, order.folder / order.finished
    if (order.anew and finished.exists()) or read_json(begun).get("inputs") != order.inputs:
        for path in order.folder.glob("*"):
            if path.is_file():
                path.unlink()
    order.folder.mkdir(parents=True, exist_ok=True)
    write_text(begun, json.dumps({"inputs": order.inputs}))


def _seen(at: Progress, images: int) -> int:
    return round((at.epoch - 1 + at.step / at.steps) * images)
