"""Enrolment: a person's reference is how the embedder sees a few of its neutral portraits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from stages.records import Faces


class Enrol:
    """Faces of portraits -> per person of the chunk, in the chunk's order, (identity id, reference or None).

    The reference is the mean of the unit embeddings of the person's found portraits, made unit length again: the
    template of the field's set-based protocols. It is None where fewer than `min_found` portraits show a face: such a
    candidate is not enrolled.

    Args:
        min_found: Fewest portraits with a face, at least 1.
    Raises:
        ValueError: If `min_found` is below 1.
    """

    def __init__(self, min_found: int) -> None:
        if min_found < 1:
            raise ValueError(f"min_found: expected at least 1, got {min_found}")
        self.min_found = min_found

    def __call__(self, faces: Faces) -> list[tuple[int, Float32[np.ndarray, " d"] | None]]:
        owners = np.array([row.identity_id for row in faces.chunk.variations])
        return [
            (person.id, self._reference(faces.embeddings, (owners == person.id) & faces.found))
            for person in faces.chunk.identities
        ]

    def _reference(
        self, embeddings: Float32[np.ndarray, "b d"], usable: Bool[np.ndarray, " b"]
    ) -> Float32[np.ndarray, " d"] | None:
        if usable.sum() < self.min_found:
            return None
        mean = embeddings[usable].astype(np.float64).mean(axis=0)
        length = np.linalg.norm(mean)
        return None if length < 1e-6 else (mean / length).astype(np.float32)  # opposed portraits: nobody in particular
