"""Intervals of verification scores, by a bootstrap over people where they are known, over pairs where not.

Pairs that share a person are not independent: a face that a model knows badly is wrong in all of its pairs. Fogliato,
Patil and Perona show that resampling pairs is then too narrow, and recommend the "double-or-nothing" bootstrap over
identities: each person weighs 0 or 2, by the toss of a coin; a genuine pair weighs w of its person, an impostor pair
the product w w' of its two. Every score is computed again with the weights of each draw, thresholds included. Where
people hardly recur, products vary more than pairs do (variance 3 instead of 1), and the interval is too wide rather
than too narrow: by half for 6,000 pairs of 4,000 people none of whom is easier than another.

Where nobody knows who is in the pairs, every pair tosses a coin of its own, and the interval says so.

Letters: r draws, p pairs, g genuine and m impostor pairs, f folds, t thresholds.

References:
    Fogliato, Patil, Perona, Confidence Intervals for Error Rates in 1:1 Matching Tasks (2023), arXiv 2306.01198; code:
    awslabs/cis-matching-tasks.
    Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from benchmarks.far import TARGETS, allowed, lacking
from benchmarks.verify import ACCURACY_THRESHOLDS, checked_folds, first_accepting

DRAWS = 1000
BY_PEOPLE = "bootstrap over people (double or nothing)"
BY_PAIRS = "bootstrap over pairs, as if independent: who is in them is not known"
_AT_ONCE = 600_000  # weights in memory at a time

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Weights of the pairs in each draw; the same for every model that is asked about the same pairs.

    Attributes:
        same: Whether a pair is of one person.
        people: Of each pair; None where they are not known.
        draws: How many.
        seed: Of the coins.
    """

    same: Bool[np.ndarray, " p"]
    people: Int64[np.ndarray, "p 2"] | None = None
    draws: int = DRAWS
    seed: int = 0

    @property
    def by(self) -> str:
        """What is drawn, in words."""
        how = BY_PAIRS if self.people is None else BY_PEOPLE
        return f"{how}, {self.draws} draws, seed {self.seed}"

    def __iter__(self) -> Iterator[Float32[np.ndarray, "r p"]]:
        """Blocks of weights. Draws in which a kind of pair has no weight at all are left out."""
        rng = np.random.default_rng(self.seed)
        pairs = len(self.same)
        of_pairs = np.stack([np.arange(pairs)] * 2, axis=1) if self.people is None else self.people
        coins, of_pairs = _numbered(of_pairs)
        block = max(1, _AT_ONCE // pairs)
        for start in range(0, self.draws, block):
            toss = rng.integers(0, 2, (min(block, self.draws - start), coins), dtype=np.uint8).astype(np.float32)
            weights = 2 * toss[:, of_pairs[:, 0]]
            two = of_pairs[:, 0] != of_pairs[:, 1]
            weights[:, two] *= 2 * toss[:, of_pairs[two, 1]]
            usable = weights[:, self.same].any(axis=1) & weights[:, ~self.same].any(axis=1)
            yield weights[usable]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """95 % intervals of the scores of one model on one set.

    Attributes:
        by: What was drawn.
        tar: By false accept rate, for those that the impostor pairs can carry.
    """

    by: str
    accuracy: Interval
    auc: Interval
    eer: Interval
    tar: dict[float, Interval]


def intervals95(
    squared_distance: Float64[np.ndarray, " p"],
    fold: Int64[np.ndarray, " p"],
    draws: Draws,
    targets: Sequence[float] = TARGETS,
) -> Intervals:
    """The 2.5 and 97.5 percentiles of each score over the draws.

    Args:
        squared_distance: Of each pair of unit embeddings.
        fold: Of each pair, from 0.
        draws: Of the same pairs.
        targets: False accept rates of the TARs.
    Raises:
        ValueError: If a fold lacks a kind of pair, or every draw did.
    """
    accuracy, curve = Accuracy(squared_distance, draws.same, fold), _Curve(-squared_distance, draws.same)
    carried = [target for target in targets if not lacking(target, int((~draws.same).sum()))]
    rows = [
        np.column_stack([accuracy(weights), *curve(weights), *(curve.tar(weights, target) for target in carried)])
        for weights in draws
    ]
    low, high = _percentiles(np.concatenate(rows))
    ends = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return Intervals(draws.by, ends[0], ends[1], ends[2], dict(zip(carried, ends[3:], strict=True)))


def accuracy_draws(
    squared_distance: Float64[np.ndarray, " p"], fold: Int64[np.ndarray, " p"], draws: Draws
) -> Float64[np.ndarray, " r"]:
    """Accuracy in each draw."""
    accuracy = Accuracy(squared_distance, draws.same, fold)
    return np.concatenate([accuracy(weights) for weights in draws])


class Accuracy:
    """Accuracy of weighted pairs: thresholds chosen on the other folds, genuine and impostor pairs in their shares.

    A set is made with so many pairs of either kind, so each kind's weights are scaled to its number; the folds are
    pooled. With equal weights, and folds of equal size, it is the mean of `benchmarks.verify.verify`.

    Args:
        squared_distance: Of each pair of unit embeddings.
        fold: Of each pair, from 0.
    """

    def __init__(
        self,
        squared_distance: Float64[np.ndarray, " p"],
        same: Bool[np.ndarray, " p"],
        fold: Int64[np.ndarray, " p"],
    ) -> None:
        self.folds = int(fold.max()) + 1
        checked_folds(squared_distance, same, self.folds, fold)
        self.genuine, self.impostor = int(same.sum()), int((~same).sum())
        width = len(ACCURACY_THRESHOLDS) + 1
        key = fold * width + first_accepting(squared_distance, ACCURACY_THRESHOLDS)
        self.kinds = [_Histogram(np.flatnonzero(kind), key[kind], self.folds, width) for kind in (same, ~same)]

    def __call__(self, weights: Float32[np.ndarray, "r p"]) -> Float64[np.ndarray, " r"]:
        shares = [kind(weights) for kind in self.kinds]
        margin = self.genuine * shares[0] - self.impostor * shares[1]  # correct pairs less the impostor pairs
        others = margin.sum(axis=1, keepdims=True) - margin
        best = others.round(9).argmax(axis=2)  # sums that are equal but for rounding tie: the smallest threshold
        reached = np.take_along_axis(margin, best[..., None], axis=-1)[..., 0].sum(axis=-1)
        return (reached + self.impostor) / (self.genuine + self.impostor)


class _Histogram:
    """Weights of some pairs below each threshold, by fold, as shares of their sum; (r, f, t)."""

    def __init__(self, rows: np.ndarray, key: np.ndarray, folds: int, width: int) -> None:
        order = np.argsort(key, kind="stable")
        self.rows, self.folds, self.width = rows[order], folds, width
        self.keys, self.starts = np.unique(key[order], return_index=True)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat(weights[:, self.rows], self.starts, axis=1)
        table = np.zeros((len(weights), self.folds * self.width))
        table[:, self.keys] = sums / sums.sum(axis=1, keepdims=True, dtype=np.float64)
        return table.reshape(len(weights), self.folds, self.width).cumsum(axis=2)[..., :-1]


class _Curve:
    """The ROC of weighted pairs: AUC, EER, and TAR at a FAR; after `benchmarks.verify.auc` and `eer`."""

    def __init__(self, score: np.ndarray, same: np.ndarray) -> None:
        genuine, impostor = np.flatnonzero(same), np.flatnonzero(~same)
        self.genuine = genuine[np.argsort(score[genuine], kind="stable")]
        self.impostor = impostor[np.argsort(score[impostor], kind="stable")]
        self.genuine_scores, self.impostor_scores = score[self.genuine], score[self.impostor]
        thresholds = np.append(np.unique(score), np.inf)
        self.below = [np.searchsorted(scores, thresholds) for scores in (self.impostor_scores, self.genuine_scores)]
        sides = (np.searchsorted(self.impostor_scores, self.genuine_scores, side) for side in ("left", "right"))
        self.ties = list(sides)

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        genuine, impostor = (_cumulated(weights[:, rows]) for rows in (self.genuine, self.impostor))
        each = np.diff(genuine, axis=1)
        auc = (each * (impostor[:, self.ties[0]] + impostor[:, self.ties[1]])).sum(axis=1, dtype=np.float64) / 2
        return auc, _crossing(1 - impostor[:, self.below[0]], genuine[:, self.below[1]])

    def tar(self, weights: np.ndarray, target: float) -> np.ndarray:
        """At the lowest threshold with no more weight of false accepts than the target allows."""
        genuine, impostor = weights[:, self.genuine], weights[:, self.impostor]
        falling = impostor[:, ::-1].cumsum(axis=1, dtype=np.float64)
        accepted = (falling <= allowed(target, 1.0) * falling[:, -1:]).sum(axis=1)
        scores = np.append(self.impostor_scores[::-1], -np.inf)
        above = np.searchsorted(self.genuine_scores, scores[accepted], "right")
        shares = _cumulated(genuine)
        return 1 - np.take_along_axis(shares, above[:, None], axis=1)[:, 0]


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Shares of the whole weight before each place, and 1 at the end; (r, n) -> (r, n + 1)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums / sums[:, -1:]


def _crossing(fmr: np.ndarray, fnmr: np.ndarray) -> np.ndarray:
    """Where falling false match and rising false non-match rates meet, joined by straight lines; (r, n) -> (r,)."""
    after = np.maximum(np.argmax(fnmr >= fmr, axis=1), 1)[:, None]
    (fmr0, fmr1), (fnmr0, fnmr1) = (
        [np.take_along_axis(rate, after - 1 + step, axis=1)[:, 0] for step in (0, 1)] for rate in (fmr, fnmr)
    )
    before, behind = fmr0 - fnmr0, fnmr1 - fmr1
    weight = np.divide(before, before + behind, out=np.zeros_like(before), where=before + behind > 0)
    return fmr0 + weight * (fmr1 - fmr0)


def _percentiles(draws: Float64[np.ndarray, "r n"]) -> tuple[np.ndarray, np.ndarray]:
    if not len(draws):
        raise ValueError("expected people for an interval, got so few that no draw has genuine and impostor pairs")
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return low, high


def _numbered(of_pairs: np.ndarray) -> tuple[int, np.ndarray]:
    """How many coins there are, and the coins of each pair, from 0."""
    names, places = np.unique(of_pairs, return_inverse=True)
    return len(names), places.reshape(of_pairs.shape)
