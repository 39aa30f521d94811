"""One recogniser, from pictures to its files: what the step `train`, `facemint train` and Ray Train all call.

Under torch.distributed every process calls it, and the first one says, keeps and writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        inputs: Fingerprint of recipe and pictures.
        label: On the progress lines.
        finished: Name of the JSON that is written last, and says that all is whole.
        device: Where torch computes in this process: said on the progress lines and in the JSON.
        log: "none", "tensorboard" or "wandb".
        checkpoint_steps: Steps of an epoch after which a checkpoint is written, too; 0: at its end alone.
        start: As in `recognition.train.train`.
        told: Says at the end what the JSON says beside.
        on_epoch: As in `recognition.train.train`.
    """

    folder: Path
    inputs: str
    label: str
    finished: str = "model.json"
    device: str = "cpu"
    log: str = "none"
    checkpoint_steps: int = 0
    start: Path | None = None
    told: Callable[[], Mapping[str, Any]] = dict
    on_epoch: Callable[[Any, int], None] | None = None


def fit(data: Data, recipe: Recipe, order: Order) -> dict[str, Any]:
    """Trains one recogniser, or goes on where its folder stands. Returns what its JSON says.

    Raises:
        ValueError: As `begin`, and as `recognition.train.train`.
    """
    from recognition.export import export_onnx
    from recognition.train import train

    first, images = processes.rank() == 0, len(data.labels)
    if first:
        begin(order.folder, {"inputs": order.inputs})
    processes.wait()
    with Watch(f"{order.label} on {order.device}", recipe.epochs * images, "pictures", quiet=not first) as watch:
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
    if first:
        export_onnx(trained.model, order.folder / ONNX)
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
        "device": order.device,
        "losses": list(trained.losses),
        "findings": {finding.name: finding.said for finding in trained.findings},
        **order.told(),
    }
    if first:
        write_text(order.folder / order.finished, json.dumps(told, indent=1))
    processes.wait()
    return told


def begin(folder: Path, facts: Mapping[str, Any]) -> None:
    """Says in a folder, before anything else is in it, which training it is of.

    Args:
        folder: The training's own.
        facts: What tells it from others, by name, as far as it is known; others may be added later.
    Raises:
        ValueError: If the folder is not this training's: see `occupied`.
    """
    told = occupied(folder, facts)
    if told is not None:
        raise ValueError(told)
    write_text(folder / BEGUN, json.dumps({**read_json(folder / BEGUN), **facts}, indent=1))


def occupied(folder: Path, facts: Mapping[str, Any]) -> str | None:
    """Why a training may not write into a folder, in a line; None where that is empty, or was begun with these facts.

    A fact that was not said when it was begun is no difference.
    """
    if folder.exists() and not folder.is_dir():
        return f"{folder}: expected a folder, found a file; name another"
    begun = read_json(folder / BEGUN)
    if begun:
        other = [name for name, fact in facts.items() if begun.get(name, fact) != fact]
        found = f"a training that differs in {' and '.join(other)}" if other else ""
    else:
        found = _listed(folder)
    if not found:
        return None
    return f"{folder}: expected an empty folder or this very training's, found {found}; name another, or remove it"


def _listed(folder: Path) -> str:
    """What lies in a folder: the first names, and how many more; nothing where it is empty or not there."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _seen(at: Progress, images: int) -> int:
    return round((at.epoch - 1 + at.step / at.steps) * images)
