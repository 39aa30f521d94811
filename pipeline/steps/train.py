"""Train: a recogniser on the shards, and the control's on as many of its own: model/ of each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.steps.control import size
from pipeline.steps.files import digest, read_json, write_text
from pipeline.steps.make import expect_made, shards_digest
from pipeline.steps.order import Lazy


def train(run: RunDir, recipe: Lazy, recipe_made_from: str, anew: bool) -> None:
    """Trains the recogniser on the shards, and the control's on as many of its own: model/ of each."""
    total = size(run).pictures
    _train_one(run, recipe, recipe_made_from, None, anew, "train")
    if run.control.plan.exists():
        expect_made(run.control)
        _train_one(run.control, recipe, recipe_made_from, total, anew, "train control")


def _train_one(run: RunDir, recipe: Lazy, made_from: str, limit: int | None, anew: bool, label: str) -> None:
    from recognition.export import export_onnx
    from recognition.shards import load_training_set
    from recognition.train import train as train_recogniser

    inputs = digest(made_from, shards_digest(run), str(limit))
    begun, finished = run.model / "begun.json", run.model / "model.json"
    if read_json(finished).get("inputs") == inputs and not anew:
        say(f"{label}: {run.model} is up to date")
        return
    if (anew and finished.exists()) or read_json(begun).get("inputs") != inputs:
        for path in run.model.glob("*"):
            path.unlink()
    run.model.mkdir(parents=True, exist_ok=True)
    write_text(begun, json.dumps({"inputs": inputs}))
    data = load_training_set(sorted(run.shards.glob("*.tar")))
    rows = evenly(data.labels, limit)
    if limit is not None:
        say(f"{label}: {len(rows)} of {len(data.labels)} pictures, as many of each person as can be; asked for {limit}")
    labels, images = data.labels[rows], data.images[rows]
    people = np.unique(labels)
    labels = np.searchsorted(people, labels).astype(np.int64)
    chosen = recipe()
    with Watch(label, chosen.epochs * len(images), "pictures") as watch:
        trained = train_recogniser(images, labels, chosen, run.model, lambda at: watch.reach(_seen(at, len(images))))
    export_onnx(trained.model, run.model / "recogniser.onnx")
    told = {
        "inputs": inputs,
        "recipe_sha256": chosen.sha256,
        "weights_sha256": trained.weights_sha256,
        "images": len(images),
        "identities": len(people),
        "losses": list(trained.losses),
    }
    write_text(finished, json.dumps(told, indent=1))


def _seen(at: Any, images: int) -> int:
    return round((at.epoch - 1 + at.step / at.steps) * images)


def evenly(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Rows of the first pictures of everybody, then the second ones and so on, until there are `limit`; in row order.

    Args:
        labels: Whose each picture is, int64, in the order in which a person's pictures count as first, second ...
        limit: How many rows at most; None is all.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    turn = np.empty(len(labels), np.int64)
    turn[order] = np.arange(len(labels)) - starts
    return np.sort(np.lexsort((labels, turn))[:limit])
