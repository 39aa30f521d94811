"""One model after another, from nothing to the files that are shipped."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.weights.card import publish
from pipeline.weights.generator import make_generator
from pipeline.weights.measuring import make_measuring
from pipeline.weights.recipe import WeightsRecipe
from pipeline.weights.workers import Say


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
    make_generator(work, recipe, workers, device, say)
    publish(work, out, recipe, scores)
    say(f"weights: wrote {out / 'CARD.md'}")
