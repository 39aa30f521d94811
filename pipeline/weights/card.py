"""What is shipped: the files, `weights.json` with their hashes, and `CARD.md` about them."""

from __future__ import annotations

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


def publish(work: Path, out: Path, recipe: WeightsRecipe, scores: dict[str, Any]) -> None:
    """Copies the files of a work folder that is done, and writes what is said of them."""
    listed = {name: _measuring_model(work / f"{name}.onnx", out, space) for name, space in SPACES.items()}
    # Neither has an output in a space of embeddings, which is what a space of this list means.
    listed["generator"] = shipped(work / GENERATOR / WEIGHTS, out)
    listed["population"] = shipped(work / GENERATOR / POPULATION, out)
    write_listing(out, listed)
    (out / "CARD.md").write_text(_card(listed, recipe, scores))


def _measuring_model(path: Path, out: Path, space: str) -> dict[str, Any]:
    return shipped(path, out, space, session(path).get_outputs()[0].shape[1] if space else 0)


def _card(listed: Mapping[str, Any], recipe: WeightsRecipe, scores: Mapping[str, Any]) -> str:
    """CARD.md: data, recipe, scores, hashes."""
    source = Path(__file__).with_name("card.md.jinja").read_text()
    template = Template(source, undefined=StrictUndefined, trim_blocks=True)
    machine = f"{platform.machine()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    about = {"recipe": recipe.measuring, "generator": asdict(recipe.generator)}
    return template.render(listed=listed, scores=scores, machine=machine, **about) + "\n"
