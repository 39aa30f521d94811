"""Who is photographed for an evaluation, and how: people from a stream of random numbers that no model has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from benchmarks.generators import templates
from generation.world import ATTRIBUTES, SPACE, sample_people
from pipeline.evaluate.pictures import Seen
from pipeline.steps import stream
from stages.records import Variation

UNSEEN_STREAM = 7_010  # of SeedSequence: no model, run, control or protocol draws its people from it
Vectors = Mapping[int, Float32[np.ndarray, " c"]]


@dataclass(frozen=True, eq=False)
class Asked:
    """Unseen people of the world, and what the generator is given of each.

    Attributes:
        ids: Who is asked for. `left_out`: how many others are not, since too few portraits show a face.
        vectors: What the generator is conditioned on, by id.
        references: The witness's template of each person, in the order of `ids`, from other portraits than those that
            the vectors are of.
    """

    ids: list[int]
    left_out: int
    vectors: Vectors
    references: Float64[np.ndarray, "i w"]


def unseen(people: int, seed: int) -> Vectors:
    """People of the world by id, 0 to people - 1; the first n of more are the n of fewer."""
    vectors = sample_people(people, np.random.default_rng([UNSEEN_STREAM, seed]))
    return dict(enumerate(vectors))


def drawn(sampler: Callable[..., Float32[np.ndarray, "n c"]], ids: Sequence[int], seed: int) -> Vectors:
    """As many vectors as ids, from a sampler."""
    vectors = sampler(len(ids), np.random.default_rng(stream(seed, "evaluated people")))
    return dict(zip(ids, vectors, strict=True))


def rows_of(planner: Any, ids: Sequence[int], seed: int) -> list[Variation]:
    """Everybody's photographs as a planner plans them."""
    return [row for person in ids for row in planner(person, seed)]


def as_rendered(rows: Sequence[Variation], seed: int) -> list[Variation]:
    """The same photographs for the renderer: same attributes, other chance; a background where none is asked for."""
    low, high = ATTRIBUTES["background"].low, ATTRIBUTES["background"].high
    told = []
    for row in rows:
        chance = np.random.SeedSequence([seed, row.identity_id, row.seed & 0xFFFFFFFF, row.seed >> 32])
        own_seed, scenery = (int(word) >> 1 for word in chance.generate_state(2, np.uint64))
        attributes = {"background": float(low + scenery % int(high - low + 1)), **row.attributes}
        told.append(Variation(row.key, row.identity_id, own_seed, attributes))
    return told


def portrayed(world: Vectors, seen: Seen, portraits: int, space: str, unit: bool) -> Asked:
    """Asks for everybody by portraits that show a face: the first ones give the vector, the others the reference.

    Args:
        world: Everybody, by id.
        seen: Of everybody's portraits.
        portraits: How many portraits' mean is the vector, by the embedder that judges.
        space: That the generator is conditioned on: the world's own, whose vectors need no portrait, or the embedder's.
        unit: Whether the vectors are wanted unit, or as long as the embedder's are.
    Raises:
        ValueError: If fewer than two people have enough portraits with a face.
    """
    turn = _turn(seen.owners, seen.found)
    first, rest = (turn >= 0) & (turn < portraits), turn >= portraits
    ids = [person for person in world if _count(seen.owners, first, person) == portraits]
    ids = [person for person in ids if _count(seen.owners, rest, person)]
    if len(ids) < 2:
        raise ValueError(
            f"expected at least 2 people with a face in {portraits + 1} portraits, got {len(ids)} of {len(world)}"
        )
    place = {person: row for row, person in enumerate(ids)}
    wanted = rest & np.isin(seen.owners, ids)
    rows = np.array([place[person] for person in seen.owners[wanted]], np.int64)
    references = templates(seen.witness[wanted], rows, len(ids))
    vectors = {person: world[person] for person in ids}
    if space != SPACE:
        raw = seen.embeddings if unit else seen.embeddings * seen.norms[:, None]
        vectors = {person: _mean(raw[first & (seen.owners == person)], unit) for person in ids}
    return Asked(ids, len(world) - len(ids), vectors, references)


def _turn(owners: Int64[np.ndarray, " n"], found: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Of each picture with a face, how many of the same person with a face come before it; -1 without a face."""
    turn = np.full(len(owners), -1, np.int64)
    for person in np.unique(owners):
        mine = np.flatnonzero((owners == person) & found)
        turn[mine] = np.arange(len(mine))
    return turn


def _count(owners: Int64[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"], person: int) -> int:
    return int(((owners == person) & chosen).sum())


def _mean(embeddings: Float32[np.ndarray, "k d"], unit: bool) -> Float32[np.ndarray, " d"]:
    mean = embeddings.astype(np.float64).mean(0)
    return (mean / np.linalg.norm(mean) if unit else mean).astype(np.float32)
