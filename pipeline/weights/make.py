"""One model after another, from nothing to the files that are shipped."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from generation.train.regressor import render_block
from pipeline.weights.card import publish
from pipeline.weights.generator import make_generator
from pipeline.weights.measuring import PEOPLE_STREAM, make_measuring
from pipeline.weights.recipe import WeightsRecipe
from pipeline.weights.regressor import blocks_of, make_regressor, publish_regressor
from pipeline.weights.renders import claim
from pipeline.weights.workers import Say, pool, teller

REGRESSOR = "regressor"  # folder of the work folder


def make_weights(
    out: Path,
    work: Path,
    recipe: WeightsRecipe | None = None,
    workers: int = 2,
    device: str | None = None,
    say: Say = print,
) -> None:
    """Trains, exports and scores all bundled models; writes `weights.json` and `CARD.md` beside them.

    Args:
        out: Where the weights go.
        work: Renders, checkpoints and protocols; what is there is not made again.
        recipe: What to make; the default is what was shipped.
        workers: Processes at a time, one thread each.
        device: Where torch computes; by default the GPU where there is one, which is said.
    Raises:
        ValueError: If `work` belongs to another recipe.
    """
    recipe = recipe or WeightsRecipe()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    say(f"weights: {recipe.people} people x {recipe.pictures} renders on {device}, {workers} processes")
    scores = make_measuring(work, recipe, workers, device, say)
    _make_regressor(work, recipe, workers, device)
    make_generator(work, recipe, workers, device, say)
    publish(work, out, recipe, scores)
    publish_regressor(work / REGRESSOR, out)
    say(f"weights: wrote {out / 'CARD.md'}")


def _make_regressor(work: Path, recipe: WeightsRecipe, workers: int, device: str) -> None:
    folder, order = work / REGRESSOR, recipe.regressor
    claim(folder, asdict(order))
    job = partial(render_block, folder / "renders", pictures=order.pictures, seed=order.seed, device=device)
    with pool(workers) as processes:
        list(processes.map(job, blocks_of(order)))
    with pool(1) as processes:
        processes.submit(_regressor, work, recipe, device).result()


def _regressor(work: Path, recipe: WeightsRecipe, device: str) -> None:
    others, detector = work / "renders", work / "detector.onnx"
    make_regressor(work / REGRESSOR, others, PEOPLE_STREAM, recipe.regressor, teller(REGRESSOR), device, detector)
