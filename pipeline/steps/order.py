"""An order: what a dataset is made from, as numbers and as builders that build where they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Lazy = Callable[[], Any]  # builds a part where it is called


@dataclass(frozen=True)
class Portraits:
    """How people are enrolled: by the embeddings of a few neutral portraits.

    Attributes:
        planner: Builds the planner of the portraits.
        min_found: Fewest portraits that must show a face.
        over_plan: Candidates drawn per person wanted, at least 1; nobody is drawn later (law 8).
        max_cosine: Largest cosine between the references of two people.
    """

    planner: Lazy
    min_found: int
    over_plan: float
    max_cosine: float


@dataclass(frozen=True)
class Order:
    """What a dataset is made from: numbers, and builders that build where they are called.

    Attributes:
        made_from: Fingerprint of everything else here.
        space: That people's vectors are in.
        reference_space: That their references are in.
        seed: Of the run, 32 bits.
        people: How many are wanted.
        chunk_people: People per chunk, and so per shard.
        jpeg_quality: Of the pictures in the shards.
        portraits: How people are enrolled. None: they are not, and a person's reference is its own vector.
    """

    made_from: str
    space: str
    reference_space: str
    seed: int
    people: int
    chunk_people: int
    jpeg_quality: int
    sampler: Lazy
    planner: Lazy
    generator: Lazy
    embedder: Lazy
    judge: Lazy
    portraits: Portraits | None
