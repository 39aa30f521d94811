"""An evaluation from its config: makes the sets of pictures, measures, and writes the folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_class
from jaxtyping import Float32
from omegaconf import DictConfig, OmegaConf, open_dict

from benchmarks.generators import asked_versus_seen, own_versus_other, within_people
from benchmarks.report.generator import bar_table, markdown, sheet, write_generator_page
from generation.regressor import NUMBERS
from pipeline import preflight
from pipeline.evaluate import figures
from pipeline.evaluate.people import Asked, Vectors, as_rendered, drawn, portrayed, rows_of, unseen
from pipeline.evaluate.pictures import PictureSet, Studio
from pipeline.evaluate.sheets import attribute_rows, beside
from pipeline.factory import builder, where
from pipeline.meaning import by_hash, fingerprint, plain
from pipeline.progress import CONSOLE, Watch, say
from pipeline.steps import stream
from pipeline.steps.files import write_text
from recognition.files import whole_file
from stages.records import Variation


@dataclass(frozen=True, eq=False)
class Sets:
    """All pictures that an evaluation looks at.

    Attributes:
        asked: Who was asked for.
        rows: The plan of `generated`; `renders` follow it with other chance.
        portraits: Rendered. enrolled: The same portraits, made by the generator.
    """

    asked: Asked
    rows: list[Variation]
    portraits: PictureSet
    renders: PictureSet
    enrolled: PictureSet
    generated: PictureSet

    @property
    def pictures_per_person(self) -> int:
        return len(self.rows) // len(self.asked.ids)


def evaluate(cfg: DictConfig, to_markdown: Path | None = None) -> None:
    """Measures the generator of a config: evaluation.json, evaluation.html and two sheets in the config's `run`.

    Args:
        cfg: The composed config.
        to_markdown: Where the figures also go as a results page.
    Raises:
        ConfigError: If the evaluation cannot begin.
    """
    folder = where()
    with open_dict(cfg):
        cfg.run = str(folder)
    preflight.check_evaluation(cfg, folder)
    studio = Studio(
        folder,
        builder(cfg.runner)(),
        cfg.chunk_people,
        builder(cfg.embedder),
        builder(cfg.witness),
        seen_by=_made_from(cfg.embedder) + _made_from(cfg.witness),
        regressor=preflight.regressor_of(cfg),
    )
    sets = _make(cfg, studio)
    evaluation = _measured(cfg, studio, sets)
    sheets = _sheets(cfg, studio, sets)
    write_text(folder / "evaluation.json", json.dumps(evaluation, indent=1, allow_nan=False))
    for name, png in sheets.items():
        with whole_file(folder / f"{name}.png") as file:
            file.write(png)
    write_generator_page(folder / "evaluation.html", evaluation, sheets)
    if to_markdown is not None:
        write_text(to_markdown, markdown(evaluation))
    CONSOLE.print(bar_table(evaluation))
    say(f"evaluate: {folder / 'evaluation.html'}")


# --- pictures --------------------------------------------------------------------------------------------------------


def _make(cfg: DictConfig, studio: Studio) -> Sets:
    render: Callable[..., PictureSet] = partial(
        studio.make, generator=builder(cfg.truth), made_from=_made_from(cfg.truth)
    )
    generate: Callable[..., PictureSet] = partial(
        studio.make, generator=builder(cfg.generator), made_from=_made_from(cfg.generator)
    )
    planner, portraitist = builder(cfg.planner)(), builder(cfg.enrol.planner)()
    portrait_seed, chance = stream(cfg.seed, "portraits"), stream(cfg.seed, "renders")
    world = unseen(cfg.people, cfg.seed)
    portraits = render(
        "portraits", vectors=world, rows=as_rendered(rows_of(portraitist, list(world), portrait_seed), chance)
    )
    generator: Any = get_class(cfg.generator["_target_"])
    space = str(preflight.space_of(plain(cfg.generator)))
    asked = portrayed(world, portraits.seen(), cfg.asked_portraits, space, generator.unit_vectors)
    if asked.left_out:
        say(f"evaluate: {asked.left_out} people are left out, of whom too few portraits show a face")
    rows = rows_of(planner, asked.ids, cfg.seed)
    vectors = _vectors(cfg, asked)
    return Sets(
        asked,
        rows,
        portraits,
        renders=render("renders", vectors=_those(world, asked.ids), rows=as_rendered(rows, chance)),
        enrolled=generate("enrolled", vectors=vectors, rows=rows_of(portraitist, asked.ids, portrait_seed)),
        generated=generate("generated", vectors=vectors, rows=rows),
    )


def _vectors(cfg: DictConfig, asked: Asked) -> Vectors:
    """What the generator is conditioned on: the people asked for, or people drawn by the sampler."""
    sampler = OmegaConf.select(cfg, "sampler")
    return asked.vectors if sampler is None else drawn(builder(sampler)(), asked.ids, cfg.seed)


def _those(vectors: Vectors, ids: Sequence[int]) -> Vectors:
    return {person: vectors[person] for person in ids}


def _made_from(part: DictConfig) -> str:
    """Fingerprint of a part, its weights by their hash."""
    return fingerprint(by_hash(plain(part)))


# --- figures ---------------------------------------------------------------------------------------------------------


def _measured(cfg: DictConfig, studio: Studio, sets: Sets) -> dict[str, Any]:
    generated, renders = sets.generated.seen(), sets.renders.seen()
    truth = OmegaConf.select(cfg, "sampler") is None
    steps = _steps(cfg, studio, sets) if "steps" in cfg.generator else []
    return {
        "about": _about(cfg, sets, studio),
        "identity": figures.identity(generated, renders, sets.asked, truth, _training(cfg, studio)),
        "attributes": figures.attributes(sets.rows, generated, renders),
        "styles": figures.styles(sets.rows, generated, renders),
        "yield": {
            kind: _judged(cfg, kind, portraits, pictures)
            for kind, portraits, pictures in (
                ("generated", sets.enrolled, sets.generated),
                ("renders", sets.portraits, sets.renders),
            )
        },
        "speed": _speed(sets.generated),
        "steps": steps,
    }


def _judged(cfg: DictConfig, kind: str, portraits: PictureSet, pictures: PictureSet) -> dict[str, Any]:
    """By the judge of the config, whose rules look for the people of a run in a folder of their own."""
    folder = Path(cfg.run) / "judged" / kind
    apart = cfg.copy()
    with open_dict(apart):
        apart.run = str(folder)
    limits = cfg.enrol.min_found, cfg.enrol.max_cosine
    return figures.judged(portraits, pictures, builder(apart.judge), folder / "identities.parquet", *limits)


def _speed(made: PictureSet) -> dict[str, Any]:
    speed = made.speed()
    return {"pictures": speed.pictures, "workers": speed.workers, "images_per_s": speed.images_per_s}


def _training(cfg: DictConfig, studio: Studio) -> Float32[np.ndarray, "m w"] | None:
    """The witness's embeddings of the pictures that the generator has learnt, kept in a file."""
    if cfg.training is None:
        return None
    paths = sorted(Path(cfg.training).glob("*.npz"))
    told = [[path.name, path.stat().st_size] for path in paths]
    key = hashlib.sha256((json.dumps(told) + studio.seen_by).encode()).hexdigest()[:16]
    kept = studio.folder / "seen" / f"training-{key}.npy"
    if not kept.exists():
        eyes = studio.witness()
        parts = []
        with Watch("training pictures", len(paths), "files") as watch:
            for path in paths:
                parts.append(eyes.embed_crops(np.load(path)["crops"])[0])
                watch.advance(1)
        with whole_file(kept) as file:
            np.save(file, np.concatenate(parts))
    embeddings: Float32[np.ndarray, "m w"] = np.load(kept)
    return embeddings


def _steps(cfg: DictConfig, studio: Studio, sets: Sets) -> list[dict[str, Any]]:
    """The generator with other numbers of steps, on the first people; one line of figures for each."""
    ids = sets.asked.ids[: cfg.steps_people]
    rows = [row for row in sets.rows if row.identity_id in set(ids)]
    vectors = _those(_vectors(cfg, sets.asked), ids)
    truth = OmegaConf.select(cfg, "sampler") is None
    told = []
    for steps in cfg.steps:
        part = cfg.generator.copy()
        part.steps = steps
        made = studio.make(f"steps-{steps}", builder(part), _made_from(part), vectors, rows)
        told.append(
            {"steps": steps, "people": len(ids), **_speed(made), **_in_short(made, sets.asked, len(ids), truth)}
        )
    return told


def _in_short(made: PictureSet, asked: Asked, people: int, truth: bool) -> dict[str, Any]:
    """The figures that are compared over numbers of steps."""
    seen, rows = made.seen(), made.rows
    owners = np.searchsorted(np.array(asked.ids[:people]), seen.owners)[seen.found]
    embeddings = seen.witness[seen.found]
    whose = (
        own_versus_other(embeddings, owners, asked.references[:people])
        if truth
        else figures.among_themselves(embeddings, owners)
    )
    told: dict[str, Any] = {name: whose[name] for name in ("auc", "rank1")}
    told["within"] = within_people(embeddings, owners)["mean_cosine"]
    for short, name, figure in (
        ("yaw_median_error", "yaw_deg", "median_error"),
        ("smile_spearman", "smile", "spearman"),
        ("age_spearman", "age_years", "spearman"),
        ("light_spearman", "light_azimuth_deg", "spearman"),
    ):
        told[short] = None
        if all(name in row.attributes for row in rows):
            wanted = np.array([row.attributes[name] for row in rows])[seen.found]
            told[short] = asked_versus_seen(wanted, seen.numbers[seen.found, NUMBERS.index(name)])[figure]
    return told


# --- what it was -----------------------------------------------------------------------------------------------------


def _about(cfg: DictConfig, sets: Sets, studio: Studio) -> dict[str, Any]:
    generator: Any = get_class(cfg.generator["_target_"])
    sampler = OmegaConf.select(cfg, "sampler")
    drawn_by = "" if sampler is None else f"people drawn by {sampler['_target_'].rpartition('.')[2]}"
    return {
        "name": cfg.name,
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["facemint", "evaluate", *sys.argv[1:]]),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "generator": cfg.generator["_target_"],
        "licence": generator.licence,
        "space": preflight.space_of(plain(cfg.generator)),
        "source": drawn_by or "unseen people of the world",
        "people": len(sets.asked.ids),
        "people_left_out": sets.asked.left_out,
        "pictures_per_person": sets.pictures_per_person,
        "seed": cfg.seed,
        "found_in_generated": f"{100 * sets.generated.seen().found.mean():.2f} % of the pictures show a face",
        "found_in_renders": f"{100 * sets.renders.seen().found.mean():.2f} % of the renders show a face",
        "compared_with": cfg.truth["_target_"],
        "judge_space": preflight.space_of(plain(cfg.embedder)),
        "witness_space": preflight.space_of(plain(cfg.witness)),
        "regressor_sha256": studio.regressor.sha256,
        "no_steps": "the generator has no steps" if "steps" not in cfg.generator else "steps=[] was asked for",
        "config": OmegaConf.to_yaml(cfg, resolve=True),
    }


# --- sheets ----------------------------------------------------------------------------------------------------------


def _sheets(cfg: DictConfig, studio: Studio, sets: Sets) -> dict[str, bytes]:
    generator: Any = get_class(cfg.generator["_target_"])
    ids = sets.asked.ids[: cfg.sheet_people]
    titles, rows = attribute_rows(ids, generator.controls)
    vectors = _those(_vectors(cfg, sets.asked), ids)
    made = studio.make("sheet", builder(cfg.generator), _made_from(cfg.generator), vectors, rows)
    pixels = _pixels(made, len(rows))
    lines = pixels.reshape(len(ids), len(titles), *pixels.shape[1:])
    pictures = len(ids) * sets.pictures_per_person
    pair = beside(_pixels(sets.generated, pictures), _pixels(sets.renders, pictures), len(ids))
    return {"attributes": sheet(lines, titles), "beside": sheet(pair)}


def _pixels(made: PictureSet, count: int) -> np.ndarray:
    """The first pictures of a set."""
    parts: list[np.ndarray] = []
    for chunk in made.chunks:
        if sum(map(len, parts)) >= count:
            break
        parts.append(made.pixels(chunk))
    return np.concatenate(parts)[:count]
