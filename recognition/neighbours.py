"""Exact cosine search among unit vectors, and greedy selection of vectors that are unlike each other. The only file
that imports faiss.

FAISS compares in float32, where the last bits of a dot product depend on how BLAS cuts its blocks: on the size of the
batch, on threads, on the machine. So FAISS only proposes. A float32 dot product of d terms is off by at most
`_slack(d)`; whatever lies closer than this to a decision is decided on numbers that do not depend on blocks (see
`exact_cosine`). Two runs therefore agree whatever the batch and the number of threads.

Letters in shapes: i rows of the table, b queries, n candidates, d dimensions, k neighbours asked for.
"""

from __future__ import annotations

import math

import faiss
import numpy as np
from jaxtyping import Float32, Float64, Int64

UNIT_TOLERANCE = 1e-3
_SPARE = 8  # proposals beyond k: enough that near ties at the k-th place seldom need a search of the whole table
_QUERY_BLOCK = 1024


class Neighbours:
    """Exact cosine search over a fixed table.

    Args:
        table: Unit vectors, at least one.

    Raises:
        ValueError: If a row's norm is further than 1e-3 from 1, naming row and norm.
    """

    def __init__(self, table: Float32[np.ndarray, "i d"]) -> None:
        check_unit_rows("table", table)
        if len(table) == 0:
            raise ValueError("table: expected at least 1 row, got 0")
        self._table = np.ascontiguousarray(table)
        self._index = faiss.IndexFlatIP(table.shape[1])
        self._index.add(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def nearest(
        self, queries: Float32[np.ndarray, "b d"], k: int
    ) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
        """The k rows of the largest cosine to each query, best first; equal cosines in the order of the table.

        Args:
            queries: Unit vectors.
            k: Between 1 and the number of rows.

        Returns:
            Cosines in [-1, 1] up to rounding, and row numbers.

        Raises:
            ValueError: If k or the length of the vectors does not fit the table, or a query's norm is not 1.
        """
        check_unit_rows("queries", queries)
        if queries.shape[1] != self._table.shape[1]:
            raise ValueError(f"queries: expected {self._table.shape[1]} dimensions, got {queries.shape[1]}")
        if not 1 <= k <= len(self):
            raise ValueError(f"k: expected a value in [1, {len(self)}], the rows of the table, got {k}")
        cosine_BK = np.empty((len(queries), k), np.float32)
        index_BK = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            cosine_BK[block], index_BK[block] = self._nearest(np.ascontiguousarray(queries[block]), k)
        return cosine_BK, index_BK

    def nearest_other(
        self, queries: Float32[np.ndarray, "b d"], own: Int64[np.ndarray, " b"]
    ) -> tuple[Float32[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """The row of the largest cosine to each query, its own row left out.

        Args:
            queries: Unit vectors.
            own: Row number of each query's own vector, in [0, rows of the table).

        Returns:
            Cosines and row numbers.

        Raises:
            ValueError: If the table has a single row, or an own row number is not in it.
        """
        if len(self) < 2:
            raise ValueError("table: expected at least 2 rows to find another than one's own, got 1")
        if own.shape != (len(queries),):
            raise ValueError(f"own: expected one row number for each of {len(queries)} queries, got shape {own.shape}")
        if len(own) and not (own.min() >= 0 and own.max() < len(self)):
            raise ValueError(f"own: expected row numbers in [0, {len(self)}), got {own.min()} to {own.max()}")
        cosine_B2, index_B2 = self.nearest(queries, 2)
        other_B = (index_B2[:, 0] == own).astype(np.int64)
        rows = np.arange(len(queries))
        return cosine_B2[rows, other_B], index_B2[rows, other_B]

    def _nearest(
        self, queries: Float32[np.ndarray, "b d"], k: int
    ) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
        rough_BP, index_BP = self._index.search(queries, min(k + _SPARE, len(self)))
        exact_BP = _cosines(queries[:, None], self._table[index_BP])
        order_BK = np.lexsort((index_BP, -exact_BP))[:, :k]
        cosine_BK, index_BK = np.take_along_axis(exact_BP, order_BK, 1), np.take_along_axis(index_BP, order_BK, 1)
        # A row that was not proposed is, roughly, no nearer than the last proposal. Could it still be among the k?
        unsure_B = rough_BP[:, -1] + 2 * _slack(queries.shape[1]) >= cosine_BK[:, -1]
        for b in np.flatnonzero(unsure_B if index_BP.shape[1] < len(self) else np.zeros_like(unsure_B)):
            cosine_I = _cosines(queries[b], self._table)
            index_BK[b] = np.lexsort((np.arange(len(self)), -cosine_I))[:k]
            cosine_BK[b] = cosine_I[index_BK[b]]
        return cosine_BK, index_BK


def select_unlike(
    candidates: Float32[np.ndarray, "n d"], max_cosine: float, limit: int, block_size: int = 1024
) -> Int64[np.ndarray, " m"]:
    """Goes through the candidates in order and keeps those whose cosine to everyone kept before is at most
    `max_cosine`.

    The same as the double loop over `exact_cosine`, whatever the block size: FAISS and BLAS settle the clear cases, and
    `exact_cosine` those within rounding of `max_cosine`.

    Args:
        candidates: Unit vectors.
        max_cosine: Largest cosine between two that are kept, in [-1, 1].
        limit: Stops when so many are kept.
        block_size: Candidates compared at a time; changes memory and speed, never the result.

    Returns:
        Numbers of the candidates that are kept, ascending, at most `limit`.

    Raises:
        ValueError: If an argument is out of range or a row's norm is not 1.
    """
    check_unit_rows("candidates", candidates)
    if not -1 <= max_cosine <= 1:
        raise ValueError(f"max_cosine: expected a value in [-1, 1], got {max_cosine}")
    if limit < 0 or block_size < 1:
        raise ValueError(f"limit, block_size: expected at least 0 and at least 1, got {limit} and {block_size}")
    kept: list[int] = []
    index = faiss.IndexFlatIP(candidates.shape[1])
    for start in range(0, len(candidates), block_size):
        if len(kept) >= limit:
            break
        block = np.ascontiguousarray(candidates[start : start + block_size])
        alone = _unlike_kept(block, candidates[:start], kept, index, max_cosine)
        new = _unlike_each_other(block, alone, max_cosine)[: limit - len(kept)]
        index.add(np.ascontiguousarray(block[new]))
        kept.extend(start + row for row in new)
    return np.array(kept, dtype=np.int64)


def exact_cosine(a: Float32[np.ndarray, " d"], b: Float32[np.ndarray, " d"]) -> float:
    """The dot product, correctly rounded: float64 holds a product of two float32 numbers exactly, and fsum adds without
    error."""
    return math.fsum((a.astype(np.float64) * b.astype(np.float64)).tolist())


def check_unit_rows(name: str, rows: Float32[np.ndarray, "n d"]) -> None:
    """Raises ValueError, naming row and norm, unless the rows form a float32 matrix and all norms lie within 1e-3 of
    1."""
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ValueError(f"{name}: expected float32 rows, got {rows.dtype} of shape {rows.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # written so that NaN is wrong
    if len(wrong):
        raise ValueError(f"{name}: expected unit rows, got norm {norms[wrong[0]]:.6g} in row {wrong[0]}")


def _unlike_kept(
    block: Float32[np.ndarray, "n d"],
    before: Float32[np.ndarray, "m d"],
    kept: list[int],
    index: faiss.IndexFlatIP,
    max_cosine: float,
) -> list[int]:
    """Rows of the block that are unlike the kept ones of the candidates `before` it; `index` holds these, in order."""
    if not kept:
        return list(range(len(block)))
    slack = _slack(block.shape[1])
    highest = index.search(block, 1)[0][:, 0]
    unlike = highest <= max_cosine - slack
    for row in np.flatnonzero(~unlike & (highest <= max_cosine + slack)):
        _, _, close = index.range_search(block[row : row + 1], max_cosine - 2 * slack)
        unlike[row] = all(exact_cosine(block[row], before[kept[place]]) <= max_cosine for place in close)
    return np.flatnonzero(unlike).tolist()


def _unlike_each_other(block: Float32[np.ndarray, "n d"], rows: list[int], max_cosine: float) -> list[int]:
    """Greedy choice among the given rows of one block."""
    slack = _slack(block.shape[1])
    rough = block[rows] @ block[rows].T
    chosen: list[int] = []  # places in `rows`
    for place, row in enumerate(rows):
        cosines = rough[place, chosen]
        if (cosines > max_cosine + slack).any():
            continue
        unclear = [rows[chosen[c]] for c in np.flatnonzero(cosines > max_cosine - slack)]
        if all(exact_cosine(block[row], block[other]) <= max_cosine for other in unclear):
            chosen.append(place)
    return [rows[place] for place in chosen]


def _cosines(a: Float32[np.ndarray, "... d"], b: Float32[np.ndarray, "... d"]) -> Float32[np.ndarray, "..."]:
    """Dot products summed in float64 along the last axis, rounded to float32: the sum's own rounding is gone with
    them."""
    products: Float64[np.ndarray, "... d"] = a.astype(np.float64) * b
    return products.sum(-1).astype(np.float32)


def _slack(dimensions: int) -> float:
    """More than the largest error of a float32 dot product of two unit vectors of this length, in any order of
    summation.

    n u / (1 - n u) with u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2002, equation 3.5), doubled
    for norms up to 1 + 1e-3 and for the rounding of the comparison itself.
    """
    return (dimensions + 2) * 2.0**-23
