"""One model after another, from nothing to the files that are shipped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.weights.card import machine_of, publish
from pipeline.weights.generator import make_generator, make_reader, render_generator
from pipeline.weights.made import FOLDER as GENERATOR
from pipeline.weights.measuring import (
    PEOPLE_STREAM,
    make_detector,
    make_embedder,
    render_measuring,
    scores_of,
)
from pipeline.weights.recipe import WeightsRecipe
from pipeline.weights.regressor import make_regressor, publish_regressor, render_regressor
from pipeline.weights.renders import claim
from pipeline.weights.stopwatch import Stopwatch
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
        recipe: What to make; by default all that is bundled, as it was made.
        workers: Processes at a time, one thread each.
        device: Where torch computes; by default the GPU where there is one, which is said.
    Raises:
        ValueError: If `work` belongs to another recipe.
        OSError: If `out` cannot be made, before any work.
    """
    recipe = recipe or WeightsRecipe()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    say(f"weights: {recipe.people} people x {recipe.pictures} renders on {device}, {workers} processes")
    claim(work, recipe.measuring)
    claim(work / REGRESSOR, asdict(recipe.regressor))
    claim(work / GENERATOR, asdict(recipe.generator))
    out.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(work / "seconds.json")
    with watch.of("renders"), pool(workers) as processes:
        render_measuring(work, recipe, processes, device, say)
        render_regressor(work / REGRESSOR, recipe.regressor, processes, device)
        render_generator(work / GENERATOR, recipe.generator, processes, device, say)
    with watch.of("models that measure"):
        _train_side_by_side(work, recipe, workers, device)
        scores = scores_of(work)
    with watch.of("generator"), pool(1) as processes:  # anew, for its memory
        processes.submit(make_generator, work, recipe, device).result()
    publish(work, out, recipe, scores, watch.seconds, machine_of(device, workers))
    publish_regressor(work / REGRESSOR, out)
    say(f"weights: wrote {out / 'CARD.md'}, in {sum(watch.seconds.values()) / 3600:.1f} hours in all")


def _train_side_by_side(work: Path, recipe: WeightsRecipe, workers: int, device: str) -> None:
    """All that needs renders alone, and the regressor, whose crops the detector's landmarks align."""
    with pool(workers) as processes:  # anew, for its memory
        detector = processes.submit(make_detector, work, recipe, device)
        others = [processes.submit(make_embedder, work, recipe, name, device) for name in ("embedder_a", "embedder_b")]
        detector.result()
        others.append(processes.submit(_regressor, work, recipe, device))
        others.append(processes.submit(_reader, work, recipe, device))
        for running in others:
            running.result()


def _regressor(work: Path, recipe: WeightsRecipe, device: str) -> None:
    others, detector = work / "renders", work / "detector.onnx"
    make_regressor(work / REGRESSOR, others, PEOPLE_STREAM, recipe.regressor, teller(REGRESSOR), device, detector)


def _reader(work: Path, recipe: WeightsRecipe, device: str) -> None:
    make_reader(work / GENERATOR, recipe.generator, teller("reader"), device)
