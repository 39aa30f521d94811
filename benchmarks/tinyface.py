"""TinyFace (Cheng et al., 2018): who of 157,871 gallery pictures is on a face of 20 pixels? Rank 1, 5, 20, closed set.

The folder has `Probe`, `Gallery_Match` and `Gallery_Distractor` with aligned 112x112 crops (in itself or in
`Testing_Set`), and the two lists `probe_img_ID_pairs.mat` and `gallery_match_img_ID_pairs.mat`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from benchmarks.identification import NOBODY, RANKS, closed_set
from benchmarks.matlab import read_mat
from benchmarks.pictures import Pictures
from benchmarks.protocols import BATCH, Model, embed

PROTOCOL = "tinyface-closed-set-v1"
PROBE, MATCH, DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
LISTS = {PROBE: ("probe_img_ID_pairs.mat", "probe"), MATCH: ("gallery_match_img_ID_pairs.mat", "gallery")}
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True, eq=False)
class TinyFace:
    """Pictures of gallery (distractors last) and probes, and who is on them; `NOBODY` on distractors."""

    name: str
    gallery: Pictures
    gallery_people: Int64[np.ndarray, " i"]
    probes: Pictures
    probe_people: Int64[np.ndarray, " n"]
    meta: tuple[Path, ...] = ()


def is_tinyface(folder: Path) -> bool:
    """Whether a folder has TinyFace's folders of pictures, in itself or in `Testing_Set`."""
    return any((root / PROBE).is_dir() and (root / MATCH).is_dir() for root in (folder, folder / "Testing_Set"))


def read_tinyface(folder: str | os.PathLike[str]) -> TinyFace:
    """Reads the lists; pictures are decoded later.

    Raises:
        ValueError: If a list is missing or malformed, or pictures are (how many, and the first); names the file.
    """
    folder = Path(folder)
    root = folder if (folder / PROBE).is_dir() else folder / "Testing_Set"
    lists = {place: root / name for place, (name, _) in LISTS.items()}
    probes, probe_people = _listed(lists[PROBE], root / PROBE, LISTS[PROBE][1])
    gallery, gallery_people = _listed(lists[MATCH], root / MATCH, LISTS[MATCH][1])
    distractors = sorted(each for each in (root / DISTRACTOR).glob("*") if each.suffix.lower() in SUFFIXES)
    if not distractors:
        raise ValueError(f"{root / DISTRACTOR}: expected distractors, got none; without them ranks are not TinyFace's")
    return TinyFace(
        "tinyface",
        Pictures([*gallery, *distractors], str(root)),
        np.concatenate([gallery_people, np.full(len(distractors), NOBODY)]),
        Pictures(probes, str(root)),
        probe_people,
        tuple(lists.values()),
    )


def score_tinyface(
    data: TinyFace,
    model: Model,
    flip: bool = True,
    batch: int = BATCH,
    watch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """An entry of `protocols`, as in JSON: rank 1, 5, 20 among gallery and distractors, by exact search.

    Raises:
        ValueError: If a picture cannot be decoded or is not 112x112, or an embedding has no direction.
    """

    def told(start: int, stop: int) -> None:
        if watch is not None:
            watch(stop - start)

    try:
        gallery, probes = (embed(each, model, flip, batch, told).vectors for each in (data.gallery, data.probes))
    except ValueError as fault:
        raise ValueError(f"{data.name}: {fault}") from fault
    ranks = closed_set(gallery, data.gallery_people, probes, data.probe_people, RANKS)
    distractors = int((data.gallery_people == NOBODY).sum())
    return {"protocol": PROTOCOL, "coverage": 1.0, "distractors": distractors, **ranks}


def _listed(path: Path, folder: Path, kind: str) -> tuple[list[Path], Int64[np.ndarray, " n"]]:
    """Pictures of a list and their people."""
    if not path.is_file():
        raise ValueError(f"{path}: expected TinyFace's list, found none")
    said = read_mat(path)
    names, people = said.get(f"{kind}_set"), said.get(f"{kind}_ids")
    if not isinstance(names, list) or not isinstance(people, np.ndarray):
        raise ValueError(
            f"{path}: expected names {kind}_set and numbers {kind}_ids, got {', '.join(said) or 'nothing'}"
        )
    if len(names) != len(people) or not names or not (np.isfinite(people) & (people == np.round(people))).all():
        raise ValueError(f"{path}: expected a name and a number of each picture, got {len(names)} and {len(people)}")
    numbers = people.astype(np.int64)
    if any(Path(name).name != name or "\0" in name for name in names) or (numbers < 0).any():
        raise ValueError(f"{path}: expected names of files without folders, and people from 0")
    pictures = [folder / str(name) for name in names]
    missing = [each.name for each in pictures if not each.is_file()]
    if missing:
        shown = ", ".join(missing[:3])
        raise ValueError(f"{folder}: expected {len(names)} pictures, {len(missing)} are not there: {shown} ...")
    return pictures, numbers
