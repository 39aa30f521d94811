"""Makes the bundled regressor: renders its own people, trains it, exports it, and says how far it errs on others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import StrictUndefined, Template

from benchmarks.generators import asked_versus_seen, styles_seen
from generation.regressor import CLASSES, NUMBERS
from generation.train.loop import Say
from generation.train.regressor import (
    BLOCK,
    Examples,
    RegressorRecipe,
    classes_of,
    drawn_block,
    export_regressor,
    numbers_of,
    read_blocks,
    render_block,
    train_regressor,
)
from generation.weights import bundled
from generation.world.scenes import training_attributes
from pipeline.evaluate.pictures import Regressor
from pipeline.weights.listing import LISTING, shipped, write_listing
from stages.embed.align import crop
from stages.embed.detector import Detector


@dataclass(frozen=True)
class RegressorOrder:
    """What the regressor is made from.

    Attributes:
        people: Of its own, in blocks of 25; of every second block close-ups, of the others whole pictures.
        pictures: Of each.
        held_out: The last of them, who are not trained on but scored on.
        other_people: The first people of the embedders' renders, whose whole pictures join in.
        seed: Of people and photographs.
    """

    people: int = 4000
    pictures: int = 6
    held_out: int = 100
    other_people: int = 4000
    seed: int = 2026
    training: RegressorRecipe = field(default_factory=RegressorRecipe)

    def __post_init__(self) -> None:
        if not 1 <= self.held_out <= self.people or self.people % BLOCK:
            raise ValueError(
                f"people, held_out: expected a multiple of {BLOCK}, of whom some are held out, "
                f"got {self.people}, {self.held_out}"
            )


def blocks_of(order: RegressorOrder) -> Sequence[int]:
    """The first person of each block: what `render_block` is called with, in any order and by any process."""
    return range(0, order.people, BLOCK)


def render_regressor(folder: Path, order: RegressorOrder, processes: Executor, device: str) -> None:
    """Renders what the regressor is trained and scored on; what is there is not made again."""
    job = partial(render_block, folder / "renders", pictures=order.pictures, seed=order.seed, device=device)
    list(processes.map(job, blocks_of(order)))


def make_regressor(
    work: Path,
    renders: Path | None,
    stream: int,
    order: RegressorOrder,
    say: Say = print,
    device: str = "cpu",
    detector: Path | None = None,
) -> dict[str, Any]:
    """Trains and exports `work/regressor.onnx` and scores it on held-out people; what is there is not made again.

    Args:
        work: Its renders, checkpoint and scores.
        renders: Folder of the embedders' joined renders (`pictures.npy`, `labels.npy`), or None for its own alone.
        stream: Of random numbers that those people come from; their attributes are drawn again.
        detector: The file that finds the faces; the bundled one if not given.
    Returns:
        `scores.json`: per attribute median error and rank correlation by framing, and how often styles are seen.
    Raises:
        ValueError: If the renders are of other photographs than the stream draws.
    """
    blocks = [render_block(work / "renders", first, order.pictures, order.seed, device) for first in blocks_of(order)]
    examples = read_blocks(blocks, partial(aligned, detector or bundled("detector").verify()))
    onnx = work / "regressor.onnx"
    if not onnx.exists():
        others = None if renders is None else whole_pictures(renders, stream, order)
        own = examples.of(range(order.people - order.held_out))
        export_regressor(train_regressor(own, others, order.training, work, say, device), onnx)
    scores = errors(Regressor(onnx), examples.of(range(order.people - order.held_out, order.people)))
    (work / "scores.json").write_text(json.dumps({"order": asdict(order), "held_out": scores}, indent=1))
    return scores


SECTION = "## The regressor"


def publish_regressor(work: Path, out: Path) -> None:
    """Puts `work/regressor.onnx` beside the other bundled weights: the file, its line in `weights.json`, its section in
    `CARD.md`, in place of those of an earlier one.
    """
    entry = shipped(work / "regressor.onnx", out)
    write_listing(out, json.loads((out / LISTING).read_text()) | {"regressor": entry})
    before, _, after = (out / "CARD.md").read_text().partition(SECTION)
    rest = after.partition("\n## ")[2]
    section = card_section(json.loads((work / "scores.json").read_text()), entry)
    (out / "CARD.md").write_text(before.rstrip("\n") + "\n\n" + section + (f"\n## {rest}" if rest else ""))


def card_section(scores: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The regressor's part of the card: file and hash, data, recipe, and how far it errs on held-out people."""
    source = Path(__file__).with_name("regressor_card.md.jinja").read_text()
    template = Template(source, undefined=StrictUndefined, trim_blocks=True)
    told = {"order": scores["order"], "told": scores["held_out"], "numbers": NUMBERS, "classes": list(CLASSES)}
    return template.render(entry=entry, **told) + "\n"


def aligned(detector: Path, pictures: UInt8[np.ndarray, "n 112 112 3"]) -> UInt8[np.ndarray, "n 112 112 3"]:
    """Crops by the detector's landmarks, as the belt cuts them."""
    landmarks, _ = Detector(detector, threads=1)(pictures)
    return crop(pictures, landmarks)


def whole_pictures(renders: Path, stream: int, order: RegressorOrder) -> Examples:
    """The embedders' renders with what they are like, drawn again from their stream."""
    labels, yaw = (np.load(renders / f"{name}.npy") for name in ("labels", "yaw_deg"))
    per_person = int((labels == 0).sum())
    count = min(order.other_people, int(labels.max()) + 1)
    blocks = range(0, count, BLOCK)
    tables = [drawn_block(stream, order.seed, first, per_person, training_attributes)[1] for first in blocks]
    attributes = np.concatenate(tables)[: count * per_person]
    if not np.array_equal(attributes[:, 0], yaw[: len(attributes)]):
        raise ValueError(f"renders: expected photographs as stream {stream} draws them, got other yaws in {renders}")
    pictures, crops = (
        np.load(renders / f"{name}.npy", mmap_mode="r")[: len(attributes)] for name in ("pictures", "crops")
    )
    count = len(attributes)
    return Examples(pictures[:count], crops[:count], attributes, labels[:count])


def errors(regressor: Regressor, examples: Examples) -> dict[str, Any]:
    """Asked and seen on people that were not trained on, close-ups and whole pictures apart."""
    close = examples.labels // BLOCK % 2 == 0
    return {
        framing: _errors(regressor, examples.at(rows))
        for framing, rows in (("close_up", close), ("whole", ~close))
        if rows.any()
    }


def _errors(regressor: Regressor, examples: Examples) -> dict[str, Any]:
    seen, *styles = regressor(examples.pictures, examples.crops)
    asked = numbers_of(examples.attributes)
    told: dict[str, Any] = {
        name: asked_versus_seen(asked[:, place], seen[:, place]) for place, name in enumerate(NUMBERS)
    }
    for name, read in zip(CLASSES, styles, strict=True):
        told[name] = styles_seen(classes_of(examples.attributes, name), read)
    return told
