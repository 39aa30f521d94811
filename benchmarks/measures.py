"""What a dataset is like before anyone trains on it: the identity figures, by a witness.

A witness is an embedder that neither made nor judged the pictures. Genuine pairs are two pictures under one label,
impostor pairs two pictures under two labels. None of these figures ranks datasets: classes that are too easy to tell
apart train poor recognisers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64

from benchmarks.verify import auc, eer

BIN_WIDTH = 0.02  # of the histograms, in cosine


def witness(
    embeddings: Float[np.ndarray, "n d"],
    identity_ids: Int64[np.ndarray, " n"],
    space: str,
    impostor_limit: int = 5_000_000,
    seed: int = 0,
) -> dict[str, object]:
    """How alike pictures of one person and of two people are, in the eyes of a second embedder.

    Means and standard deviations are exact over all pairs. Everything else takes every genuine pair, and every impostor
    pair up to `impostor_limit`; beyond it that many are drawn, and `impostor_pairs_used` says so.

    Args:
        embeddings: Unit norm, in the witness's space.
        identity_ids: Label of each picture.
        space: Name of the witness's space.
        impostor_limit: Most impostor pairs looked at one by one.
        seed: Of the draw.
    Returns:
        The entry `witness` of a run's `scores.json`. `auc_own_vs_other` is the chance that a genuine pair is more alike
        than an impostor pair; `histogram` counts cosines in bins of 0.02 from -1 to 1.
    Raises:
        ValueError: If the embeddings are not unit vectors, or if there is no genuine or no impostor pair.
    """
    n = len(embeddings)
    if len(identity_ids) != n:
        raise ValueError(f"expected a label for each of {n} embeddings, got {len(identity_ids)}")
    unit = embeddings.astype(np.float64)
    norms = np.linalg.norm(unit, axis=1)
    if not np.allclose(norms, 1, atol=1e-3):
        raise ValueError(f"expected unit embeddings, got norms from {norms.min()} to {norms.max()}")
    unit /= norms[:, None]
    groups = _groups(identity_ids)
    genuine_total = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    impostor_total = n * (n - 1) // 2 - genuine_total
    if not genuine_total or not impostor_total:
        raise ValueError(
            f"expected genuine and impostor pairs, got {genuine_total} and {impostor_total} from {n} pictures"
        )

    genuine = np.concatenate([_pairwise(unit[group]) for group in groups])
    impostor = _impostors(unit, identity_ids, impostor_total, impostor_limit, seed)
    every_sum, every_square = _moments(unit)
    impostor_mean = (every_sum - genuine.sum()) / impostor_total
    impostor_square = (every_square - np.square(genuine).sum()) / impostor_total
    cosine = np.concatenate([genuine, impostor])
    same = np.arange(len(cosine)) < len(genuine)
    edges = np.linspace(-1, 1, round(2 / BIN_WIDTH) + 1)
    return {
        "space": space,
        "images": n,
        "identities": len(groups),
        "genuine_pairs": genuine_total,
        "genuine_mean": float(genuine.mean()),
        "genuine_std": float(genuine.std()),
        "impostor_pairs": impostor_total,
        "impostor_pairs_used": len(impostor),
        "impostor_mean": float(impostor_mean),
        "impostor_std": float(np.sqrt(max(impostor_square - impostor_mean**2, 0))),
        "auc_own_vs_other": auc(cosine, same),
        "eer": eer(cosine, same),
        "seed": seed,
        "histogram": {
            "low": -1.0,
            "high": 1.0,
            "genuine": np.histogram(genuine.clip(-1, 1), edges)[0].tolist(),
            "impostor": np.histogram(impostor.clip(-1, 1), edges)[0].tolist(),
        },
    }


def _groups(identity_ids: Int64[np.ndarray, " n"]) -> list[np.ndarray]:
    """Rows of each label, labels ascending."""
    order = np.argsort(identity_ids, kind="stable")
    starts = np.unique(identity_ids[order], return_index=True)[1]
    return np.split(order, starts[1:])


def _pairwise(unit: Float64[np.ndarray, "k d"]) -> Float64[np.ndarray, " pairs"]:
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def _moments(unit: Float64[np.ndarray, "n d"]) -> tuple[float, float]:
    """Sum of the cosines of all pairs, and of their squares, without forming the pairs.

    They are |sum x|^2 and |X'X|_F^2, less the diagonal, halved because every pair is in them twice.
    """
    n = len(unit)
    total = unit.sum(0)
    gram = unit.T @ unit
    return float((total @ total - n) / 2), float((np.square(gram).sum() - n) / 2)


def _impostors(
    unit: Float64[np.ndarray, "n d"], ids: Int64[np.ndarray, " n"], total: int, limit: int, seed: int
) -> Float64[np.ndarray, " pairs"]:
    """Cosines of all impostor pairs, or of `limit` drawn with replacement."""
    if total <= limit:
        rows, columns = np.triu_indices(len(unit), 1)
        other = ids[rows] != ids[columns]
        rows, columns = rows[other], columns[other]
    else:
        rng = np.random.default_rng(seed)
        found = np.empty((2, 0), np.int64)
        while found.shape[1] < limit:
            drawn = rng.integers(len(unit), size=(2, limit))
            found = np.concatenate([found, drawn[:, ids[drawn[0]] != ids[drawn[1]]]], axis=1)
        rows, columns = found[:, :limit]
    block = 100_000  # pairs at once: two tables of 100,000 x d
    parts = [
        np.einsum("pd,pd->p", unit[rows[start : start + block]], unit[columns[start : start + block]])
        for start in range(0, len(rows), block)
    ]
    return np.concatenate(parts)
