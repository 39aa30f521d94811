"""Train: a recogniser on the shards, and the control's on as many of its own: model/ of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.steps.control import size
from pipeline.steps.files import digest, read_json, write_text
from pipeline.steps.make import expect_made, shards_digest
from pipeline.steps.order import Lazy
from pipeline.steps.seeds import stream

if TYPE_CHECKING:  # torch is loaded when there is something to train
    from recognition.train import Pictures, Recipe

FINISHED = "model.json"


def train(run: RunDir, recipe: Lazy, recipe_made_from: str, recognisers: int, anew: bool) -> None:
    """Trains the recognisers on the shards, and the control's on as many of its own: model/, model_1/ ... of each.

    Args:
        recipe: Builds what training does, apart from the pictures.
        recipe_made_from: Its fingerprint.
        recognisers: How many are trained, a seed each; number i of the dataset and of the control have the same.
        anew: Whether to do it again where nothing changed.
    """
    total = size(run).pictures
    _train_all(run, recipe, recipe_made_from, None, recognisers, anew, "train")
    if run.control.plan.exists():
        expect_made(run.control)
        _train_all(run.control, recipe, recipe_made_from, total, recognisers, anew, "train control")


def seed_of(seed: int, number: int) -> int:
    """Seed of recogniser `number`: the recipe's own for the first, streams of it for the others."""
    return stream(seed, f"recogniser {number}") if number else seed


def _train_all(
    run: RunDir, recipe: Lazy, made_from: str, limit: int | None, recognisers: int, anew: bool, label: str
) -> None:
    """Trains those of the recognisers that are not there yet, or are of other pictures or another recipe."""
    inputs = [digest(made_from, shards_digest(run), str(limit), str(number)) for number in range(recognisers)]
    told = [read_json(run.model(number) / FINISHED).get("inputs") for number in range(recognisers)]
    missing = [number for number in range(recognisers) if anew or told[number] != inputs[number]]
    if not missing:
        say(f"{label}: {run.model()} is up to date" + f", {recognisers} recognisers" * (recognisers > 1))
        return
    pictures = _pictures(run, limit, label)
    for number in missing:
        name = label if recognisers == 1 else f"{label} {number + 1} of {recognisers}"
        _train_one(run.model(number), pictures, recipe(), number, inputs[number], anew, name)


def _pictures(run: RunDir, limit: int | None, label: str) -> Pictures:
    """Kept crops, decoded once into the run's folder, and whose each is, numbered from 0 without gaps."""
    from recognition.formats.shards import open_shards
    from recognition.train.memory_map import decoded

    source = open_shards(sorted(run.shards.glob("*.tar")), run.shards)
    with Watch(f"{label}: decode", len(source), "pictures") as watch:
        crops = decoded(source, run.crops, on_progress=watch.reach)
        watch.reach(len(source))
    if limit is None:
        return crops.pictures()
    rows = evenly(crops.labels, limit)
    say(f"{label}: {len(rows)} of {len(crops)} pictures, as many of each person as can be; asked for {limit}")
    return crops.pictures(rows)


def _train_one(
    folder: Path, pictures: Pictures, recipe: Recipe, number: int, inputs: str, anew: bool, label: str
) -> None:
    """Trains one recogniser, or goes on where it stands; model.json, written last, says that it is whole."""
    import torch

    from pipeline.fit import Order, fit

    _make_way(folder, inputs, anew)
    chosen = replace(recipe, seed=seed_of(recipe.seed, number))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fit(pictures, chosen, Order(folder, inputs, label, FINISHED, device))


def _make_way(folder: Path, inputs: str, anew: bool) -> None:
    """Empties a run's own folder where it holds the training of another order, or one that is wanted anew."""
    from pipeline.fit import BEGUN, occupied

    if occupied(folder, {"inputs": inputs}) is None and not (anew and (folder / FINISHED).exists()):
        return
    for path in (folder / BEGUN, folder / FINISHED, *folder.glob("*")):  # the first two vouch for the others
        if path.is_file():
            path.unlink()
    write_text(folder / BEGUN, json.dumps({"inputs": inputs}))


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
