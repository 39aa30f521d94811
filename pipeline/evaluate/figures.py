"""From what was seen in sets of pictures to the figures of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Float64, Int64

from benchmarks.generators import (
    among_themselves,
    asked_versus_seen,
    entropy_bits,
    frechet_beside_floor,
    memorisation,
    own_versus_other,
    styles_seen,
    within_people,
)
from generation.regressor import CLASSES, LOGARITHMIC, NUMBERS, SIZE_PX
from generation.world import ATTRIBUTES
from pipeline.evaluate.people import Asked
from pipeline.evaluate.pictures import Lazy, PictureSet, Seen, faces_of
from pipeline.steps.files import write_table
from stages.embed.align import crop
from stages.records import Chunk, Identity, Variation
from stages.sample.enrol import Enrol
from stages.sample.select import unlike_everyone_kept


def identity(
    generated: Seen, renders: Seen, asked: Asked, truth: bool, training: Float32[np.ndarray, "m w"] | None
) -> dict[str, Any]:
    """Every figure about identity, by the witness, of pictures that show a face.

    Args:
        generated: What was seen in generated pictures. renders: In renders of the same plan.
        asked: Who was asked for; the same people in the renders.
        truth: Whether the generated people are those of the renders.
        training: The witness's embeddings of the renders that the generator has learnt.
    """
    ours, our_owners = _witnessed(generated, asked.ids)
    theirs, their_owners = _witnessed(renders, asked.ids)
    both = {"generated": (ours, our_owners), "renders": (theirs, their_owners)}
    return {
        "asked": {kind: own_versus_other(*told, asked.references) for kind, told in both.items()} if truth else None,
        "among": {kind: among_themselves(*told) for kind, told in both.items()},
        "within": {kind: within_people(*told) for kind, told in both.items()},
        "frechet": frechet_beside_floor(ours, our_owners, theirs, their_owners),
        "memorisation": None if training is None else memorisation(ours, theirs, training),
    }


def _witnessed(seen: Seen, ids: Sequence[int]) -> tuple[Float32[np.ndarray, "n w"], Int64[np.ndarray, " n"]]:
    """Embeddings of the pictures that show a face, and each one's place among the people."""
    owners = np.searchsorted(np.array(ids), seen.owners)
    return seen.witness[seen.found], owners[seen.found]


# --- attributes ------------------------------------------------------------------------------------------------------


def attributes(rows: Sequence[Variation], generated: Seen, renders: Seen) -> dict[str, Any]:
    """Asked and seen, attribute by attribute, of pictures that show a face; and how evenly each is spread.

    An attribute that the plan does not name is not here; one that it holds still has no rank correlation.
    """
    named = [name for name in NUMBERS if all(name in row.attributes for row in rows)]
    told: dict[str, Any] = {}
    for name in named:
        asked = _comparable(name, np.array([row.attributes[name] for row in rows]))
        told[name] = {
            kind: _number(name, asked, seen) for kind, seen in (("generated", generated), ("renders", renders))
        }
    return told


def _number(name: str, asked: Float64[np.ndarray, " n"], seen: Seen) -> dict[str, Any]:
    read = _comparable(name, seen.numbers[seen.found, NUMBERS.index(name)])
    low, high = _comparable(name, np.array([ATTRIBUTES[name].low, ATTRIBUTES[name].high]))
    return asked_versus_seen(asked[seen.found], read) | {"entropy_bits": entropy_bits(read, float(low), float(high))}


def _comparable(name: str, values: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """As they can be seen: low resolution in octaves, up to the side of the picture, where it has no effect."""
    values = values.astype(np.float64)
    return np.log2(np.clip(values, 1, SIZE_PX)) if name == LOGARITHMIC else values


def styles(rows: Sequence[Variation], generated: Seen, renders: Seen) -> dict[str, Any]:
    """Glasses and hats, asked and seen, where the plan names them."""
    told: dict[str, Any] = {}
    for name in CLASSES:
        if all(name in row.attributes for row in rows):
            asked = np.rint([row.attributes[name] for row in rows]).astype(np.int64)
            told[name] = {
                kind: styles_seen(asked[seen.found], getattr(seen, name)[seen.found])
                for kind, seen in (("generated", generated), ("renders", renders))
            }
    return told


# --- the judge -------------------------------------------------------------------------------------------------------


def judged(
    portraits: PictureSet, pictures: PictureSet, judge: Lazy, identities: Path, min_found: int, max_cosine: float
) -> dict[str, Any]:
    """What the judge keeps, as in a run: people enrolled by portraits, unlike each other, then their photographs.

    Args:
        portraits: Made by the same generator.
        judge: Builds the judge, whose rules read `identities`.
        identities: Where the table of references goes.
        min_found, max_cosine: Of enrolment, as in a run's config.
    """
    enrol = Enrol(min_found)
    found = [entry for faces in faces_of(portraits, portraits.seen(), crop) for entry in enrol(faces)]
    enrolled = {person: reference for person, reference in found if reference is not None}
    kept = _unlike(enrolled, max_cosine)
    told = {"people": len(found), "people_enrolled": len(enrolled), "people_unlike": len(kept)}
    if len(kept) < 2:
        return told | {"pictures": 0, "kept": 0, "share": 0.0, "reasons": {}}
    columns = {
        "id": pa.array(list(kept), pa.int64()),
        "reference": pa.array([reference.tolist() for reference in kept.values()], pa.list_(pa.float32())),
    }
    write_table(identities, pa.table(columns), {})
    reasons = _reasons(pictures, kept, judge())
    counts = Counter(reasons)
    return told | {
        "pictures": len(reasons),
        "kept": counts[""],
        "share": counts[""] / len(reasons),
        "reasons": {reason: count for reason, count in counts.most_common() if reason},
    }


def _unlike(enrolled: dict[int, Any], max_cosine: float) -> dict[int, Any]:
    if not enrolled:
        return {}
    ids = list(enrolled)
    rows = unlike_everyone_kept(np.stack(list(enrolled.values())), max_cosine, len(ids))
    return {ids[row]: enrolled[ids[row]] for row in rows}


def _reasons(pictures: PictureSet, kept: dict[int, Any], judge: Any) -> list[str]:
    """The judge's reason for each picture of the people kept."""
    reasons: list[str] = []
    for faces in faces_of(pictures, pictures.seen(), crop):
        rows = np.array([row.identity_id in kept for row in faces.chunk.variations])
        if not rows.any():
            continue
        people = tuple(Identity(one.id, one.vector, kept[one.id]) for one in faces.chunk.identities if one.id in kept)
        variations = tuple(row for row in faces.chunk.variations if row.identity_id in kept)
        arrays = [getattr(faces, name)[rows] for name in ("crops", "landmarks", "embeddings", "norms", "found")]
        reasons += judge(type(faces)(Chunk(faces.chunk.index, people, variations), *arrays)).reasons
    return reasons
