"""A small cast: people, their photographs, and faces as like them as a test asks for. No model is involved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.records import Chunk, Faces, Identity, Variation, Verdicts

DIMENSIONS = 16


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def person(number: int) -> Identity:
    """Person `number` stands on axis `number`: everyone is a right angle from everyone else."""
    reference = np.eye(DIMENSIONS, dtype=np.float32)[number]
    return Identity(number, reference[:3].copy(), reference)


def looking_like(reference: np.ndarray, cosine: float, seed: int = 0) -> np.ndarray:
    """A unit vector at exactly this cosine from the reference."""
    noise = np.random.default_rng(seed).standard_normal(len(reference))
    aside = unit(noise - noise @ reference * reference)
    return unit(cosine * reference + np.sqrt(1 - cosine**2) * aside)


def chunk_of(people: Sequence[Identity], photographs: int, index: int = 0) -> Chunk:
    rows = [
        Variation(f"{one.id:06d}_{k:03d}", one.id, 1000 * one.id + k, {"yaw_deg": float(k)})
        for one in people
        for k in range(photographs)
    ]
    return Chunk(index, tuple(people), tuple(rows))


def faces_of(chunk: Chunk, embeddings: np.ndarray, found: Sequence[bool] | None = None) -> Faces:
    rows = len(chunk.variations)
    rng = np.random.default_rng(chunk.index)
    return Faces(
        chunk=chunk,
        crops=rng.integers(0, 256, (rows, 112, 112, 3), dtype=np.uint8),
        landmarks=rng.uniform(0, 112, (rows, 5, 2)).astype(np.float32),
        embeddings=embeddings.astype(np.float32),
        norms=rng.uniform(10, 20, rows).astype(np.float32),
        found=np.ones(rows, dtype=bool) if found is None else np.array(found),
    )


def photographs_of(people: Sequence[Identity], photographs: int = 2, index: int = 0, cosine: float = 0.9) -> Faces:
    """Faces that all look like their person, each in its own way."""
    chunk = chunk_of(people, photographs, index)
    reference_of = {one.id: one.reference for one in people}
    looks = [looking_like(reference_of[row.identity_id], cosine, row.seed) for row in chunk.variations]
    return faces_of(chunk, np.stack(looks))


def verdicts_of(faces: Faces, reasons: Sequence[str]) -> Verdicts:
    return Verdicts(faces, tuple(reasons), {"own_identity": np.linspace(0, 1, len(reasons), dtype=np.float32)})


def write_identities(path, people: Sequence[Identity]) -> None:
    table = pa.table(
        {
            "id": pa.array([one.id for one in people], pa.int64()),
            "reference": pa.array([one.reference.tolist() for one in people], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, path)
