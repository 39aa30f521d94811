"""What is shipped: the files, `weights.json` with their hashes, and `CARD.md` about them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from jinja2 import StrictUndefined, Template

from pipeline.weights.listing import shipped, write_listing
from pipeline.weights.made import FOLDER as GENERATOR
from pipeline.weights.made import POPULATION, WEIGHTS
from pipeline.weights.measuring import SPACES, session
from pipeline.weights.recipe import WeightsRecipe


def publish(
    work: Path,
    out: Path,
    recipe: WeightsRecipe,
    scores: dict[str, Any],
    seconds: Mapping[str, float],
    machine: str,
) -> None:
    """Copies the files of a work folder that is done, and writes what is said of them.

    Args:
        seconds: That each part has taken.
        machine: What it was made on.
    """
    listed = {name: _measuring_model(work / f"{name}.onnx", out, space) for name, space in SPACES.items()}
    # Neither has an output in a space of embeddings, which is what a space of this list means.
    vectors_of = listed["embedder_a"]["sha256"]
    listed["generator"] = shipped(work / GENERATOR / WEIGHTS, out, vectors_of=vectors_of)
    listed["population"] = shipped(work / GENERATOR / POPULATION, out, vectors_of=vectors_of)
    write_listing(out, listed)
    about = {"recipe": recipe.measuring, "generator": asdict(recipe.generator), "seconds": seconds, "machine": machine}
    (out / "CARD.md").write_text(_card(listed, scores, about))


def machine_of(device: str, workers: int) -> str:
    """What trains, in words."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if torch.device(device).type == "cuda" else ""
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    return f"{gpu}{os.cpu_count()} cores of {platform.machine()}, {workers} processes, {versions}"


def _measuring_model(path: Path, out: Path, space: str) -> dict[str, Any]:
    return shipped(path, out, space, session(path).get_outputs()[0].shape[1] if space else 0)


def _card(listed: Mapping[str, Any], scores: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """CARD.md: data, recipe, scores, hashes."""
    source = Path(__file__).with_name("card.md.jinja").read_text()
    template = Template(source, undefined=StrictUndefined, trim_blocks=True)
    return template.render(listed=listed, scores=scores, **about) + "\n"
