"""The six records that move between the stations: frozen, their arrays checked by jaxtyping under pytest.

Letters in shapes: b images, c condition dimensions, d embedding dimensions, h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

Attributes = Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A person who does not exist.

    Attributes:
        id: Number of the person in its run; the class label in training.
        vector: What the generator is conditioned on, in the generator's space.
        reference: What its photographs are judged against: unit norm, in the embedder's space.
    """

    id: int
    vector: Float32[np.ndarray, " c"]
    reference: Float32[np.ndarray, " d"]


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """One photograph to be made: a row of the plan.

    Attributes:
        key: `<identity id, 6 digits>_<photograph, 3 digits>`, unique in its run; the name of the picture in its shard.
        identity_id: Whose photograph it is.
        seed: 63 bits that fix everything random in the picture (law 2).
        attributes: What the planner asks of the generator, by the generator's own control names.
    """

    key: str
    identity_id: int
    seed: int
    attributes: Attributes


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """One trip down the belt, which becomes one shard. It holds whole identities (law 3).

    Attributes:
        index: Number of the chunk in its run, and of its shard.
        identities: The people in it, in the order of the plan.
        variations: Their photographs, length b, a person's rows adjacent.
    """

    index: int
    identities: tuple[Identity, ...]
    variations: tuple[Variation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What the generator made. `pixels` is RGB."""

    chunk: Chunk
    pixels: UInt8[np.ndarray, "b h w 3"]


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """What the embedder saw.

    Attributes:
        chunk: The rows that the faces belong to.
        crops: RGB, aligned to the 112x112 ArcFace template.
        landmarks: Pixels (x, y) in the generator's picture: left eye, right eye, nose, left and right mouth corner;
            left is the left side of the picture.
        embeddings: Unit norm, in the embedder's space.
        norms: Lengths of the embeddings before they were made unit vectors.
        found: Whether the detector saw a face. Where it did not, the other fields hold numbers that mean nothing.
    """

    chunk: Chunk
    crops: UInt8[np.ndarray, "b 112 112 3"]
    landmarks: Float32[np.ndarray, "b 5 2"]
    embeddings: Float32[np.ndarray, "b d"]
    norms: Float32[np.ndarray, " b"]
    found: Bool[np.ndarray, " b"]


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What the judge decided.

    Attributes:
        faces: What was judged, untouched.
        reasons: Per image the name of the first rule that it failed, or "" where it is kept.
        measured: What every rule measured, by the rule's name, of every image.
    """

    faces: Faces
    reasons: tuple[str, ...]
    measured: Mapping[str, Float32[np.ndarray, " b"]]
