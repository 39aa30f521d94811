"""Rules: which faces may enter the dataset.

A rule measures one number per image and says which images pass. Rules never drop, reorder or change images. An image
without a face measures NaN and passes nothing but what asks for no face; `FaceFound` names the reason when it stands
first.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64

from recognition.neighbours import Neighbours
from stages.records import Faces

Measurement = tuple[Float32[np.ndarray, " b"], Bool[np.ndarray, " b"]]


class FaceFound:
    """Keeps an image in which the detector saw a face. Measures 1.0 or 0.0."""

    def __call__(self, faces: Faces) -> Measurement:
        return faces.found.astype(np.float32), faces.found.copy()


class OwnIdentity:
    """Keeps a face that is still the person it was asked for, and is not a mere copy.

    Measures the cosine between the face and its identity's reference, both unit vectors of one embedding space.

    Args:
        min_cosine: Smallest cosine kept, in [-1, 1].
        max_cosine: Largest cosine kept, in [-1, 1].
    Raises:
        ValueError: If a bound is outside [-1, 1] or they are out of order.
    References:
        ArcFace (Deng et al., 2019), https://arxiv.org/abs/1801.07698
    """

    def __init__(self, min_cosine: float, max_cosine: float = 1.0) -> None:
        if not -1 <= min_cosine <= max_cosine <= 1:
            raise ValueError(f"expected -1 <= min_cosine <= max_cosine <= 1, got {min_cosine}, {max_cosine}")
        self.min_cosine, self.max_cosine = min_cosine, max_cosine

    def __call__(self, faces: Faces) -> Measurement:
        reference_of = {person.id: person.reference for person in faces.chunk.identities}
        references = np.stack([reference_of[row.identity_id] for row in faces.chunk.variations])
        cosine = _cosine(np.einsum("bd,bd->b", faces.embeddings, references))
        return _where_found(faces, cosine, (cosine >= self.min_cosine) & (cosine <= self.max_cosine))


class NearestOther:
    """Keeps a face that looks like nobody else of the run.

    Measures the cosine between the face and the nearest reference of all people of the run but its own; exact.

    Args:
        max_cosine: Largest cosine kept, in [-1, 1].
        identities: The run's identities.parquet: columns `id` and `reference`. Read at the first call, since the file
            is not there yet while a config is being checked.
    Raises:
        ValueError: If the bound is out of range; at the first call, if the file is missing, or does not hold a
            chunk's people.
    """

    def __init__(self, max_cosine: float, identities: str | Path) -> None:
        if not -1 <= max_cosine <= 1:
            raise ValueError(f"max_cosine: expected a number in [-1, 1], got {max_cosine}")
        self.max_cosine, self.identities = max_cosine, Path(identities)

    def __call__(self, faces: Faces) -> Measurement:
        nearest, _ = self._people.nearest_other(faces.embeddings, self._rows_of(faces))
        cosine = _cosine(nearest)
        return _where_found(faces, cosine, cosine <= self.max_cosine)

    @cached_property
    def _table(self) -> tuple[dict[int, int], Float32[np.ndarray, "i d"]]:
        """Row of each person, and the references."""
        if not self.identities.is_file():
            raise ValueError(f"identities: expected the run's identities.parquet, got {self.identities}")
        table = pq.read_table(self.identities, columns=["id", "reference"])
        if table.num_rows < 2:
            raise ValueError(f"identities: expected at least 2 people in {self.identities}, got {table.num_rows}")
        references = np.stack(table["reference"].to_numpy()).astype(np.float32)
        return {person: row for row, person in enumerate(table["id"].to_pylist())}, references

    @cached_property
    def _people(self) -> Neighbours:
        return Neighbours(self._table[1])

    def _rows_of(self, faces: Faces) -> Int64[np.ndarray, " b"]:
        row_of = self._table[0]
        strangers = sorted({row.identity_id for row in faces.chunk.variations} - row_of.keys())
        if strangers:
            raise ValueError(f"identities: expected everyone of the run in {self.identities}, found no {strangers}")
        return np.array([row_of[row.identity_id] for row in faces.chunk.variations], dtype=np.int64)


class NearDuplicate:
    """Keeps a face that shows something new of its person: copies teach nothing.

    Measures the cosine to the most similar earlier face of the same person that passed this rule, so the first of a
    pair stays; -1 where there is none. It looks at no other rule's opinion: a rule reads faces only.

    Args:
        max_cosine: Largest cosine kept, in [-1, 1].
    Raises:
        ValueError: If the bound is out of range.
    """

    def __init__(self, max_cosine: float) -> None:
        if not -1 <= max_cosine <= 1:
            raise ValueError(f"max_cosine: expected a number in [-1, 1], got {max_cosine}")
        self.max_cosine = max_cosine

    def __call__(self, faces: Faces) -> Measurement:
        cosine = np.full(len(faces.found), -1.0, dtype=np.float32)
        passed_of: dict[int, list[int]] = {person.id: [] for person in faces.chunk.identities}
        for index in np.flatnonzero(faces.found).tolist():
            earlier = passed_of[faces.chunk.variations[index].identity_id]
            if earlier:
                cosine[index] = _cosine(np.einsum("kd,d->k", faces.embeddings[earlier], faces.embeddings[index])).max()
            if cosine[index] <= self.max_cosine:
                earlier.append(index)
        return _where_found(faces, cosine, cosine <= self.max_cosine)


def _cosine(products: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Products of float32 unit vectors reach 1 + 1e-7, which no bound in [-1, 1] would let pass."""
    return np.clip(products, -1.0, 1.0)


def _where_found(faces: Faces, measured: Float32[np.ndarray, " b"], passed: Bool[np.ndarray, " b"]) -> Measurement:
    """No face: nothing was measured, and nothing passed."""
    return np.where(faces.found, measured, np.float32(np.nan)), passed & faces.found
