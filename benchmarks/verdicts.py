"""Which of two is better, and by how much, or that nobody can tell: two models on the same pairs.

Both models meet the same pairs, so in each draw of a bootstrap they get the same weights, and what makes a pair hard
for both cancels: the interval of the difference is far narrower than two intervals of accuracies suggest.
`benchmarks.seeds` says the same of several trainings on two datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy.stats import binomtest

from benchmarks.intervals import accuracy_draws
from benchmarks.protocols import Measured

COVERS = "other people (or pairs, where people are not known) for the same two models; not other trainings of them"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]


def said(gap: Estimate, ours: str, theirs: str) -> str:
    """A gap in accuracy (ours less theirs, as a share of 1) in words and points."""
    points, low, high = (100 * value for value in (gap.mean, gap.low, gap.high))
    if not gap.tells:
        return f"{ours} and {theirs} not distinguishable: gap of {points:+.2f} points [{low:+.2f}, {high:+.2f}]"
    if points > 0:
        return f"{ours} better than {theirs} by {points:.2f} points [{low:.2f}, {high:.2f}]"
    return f"{theirs} better than {ours} by {-points:.2f} points [{-high:.2f}, {-low:.2f}]"


def model_verdict(
    ours: Mapping[str, Measured], theirs: Mapping[str, Measured], names: tuple[str, str]
) -> dict[str, Any]:
    """What two models' distances on the same protocols say of the gap between their accuracies.

    Args:
        ours: By protocol. theirs: Of the same protocols.
        names: What the two are called in words.
    Returns:
        `gap` (ours less theirs, mean over the protocols, as a share of 1), `interval95`, `said`, and the same for each
        protocol, with McNemar's test of the pairs that one of the two gets right alone.
    Raises:
        ValueError: If the protocols, or their pairs, differ.
    """
    if ours.keys() != theirs.keys() or not ours:
        raise ValueError(f"expected the same protocols of both models, got {sorted(ours)} and {sorted(theirs)}")
    draws, protocols = [], dict[str, dict[str, Any]]()
    for place, (name, mine) in enumerate(ours.items()):
        gap, drawn = _gap(mine, theirs[name], place)
        draws.append(drawn)
        protocols[name] = {**_told(gap, names), "by": mine.draws(place).by, **mcnemar(mine.right, theirs[name].right)}
    shortest = min(map(len, draws))
    mean = np.mean([each["gap"] for each in protocols.values()])
    whole = _estimate(float(mean), np.mean([drawn[:shortest] for drawn in draws], axis=0))
    return {**_told(whole, names), "protocols": protocols, "covers": COVERS}


def mcnemar(ours: Bool[np.ndarray, " p"], theirs: Bool[np.ndarray, " p"]) -> dict[str, Any]:
    """McNemar's exact test: are the pairs that one model alone gets right as many as those of the other?

    It takes pairs as independent, so it is a check beside the interval, not the verdict.

    Args:
        ours: Whether each pair is judged rightly by one model. theirs: By the other.
    Returns:
        How many each gets right alone, and the two-sided p value; 1 where there are none.
    References:
        McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947).
    """
    alone, other = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
    return {"ours_alone": alone, "theirs_alone": other, "mcnemar_p": p}


def _gap(ours: Measured, theirs: Measured, seed: int) -> tuple[Estimate, np.ndarray]:
    """The gap on one protocol, and the gaps in the draws. Protocols have coins of their own."""
    if not (np.array_equal(ours.protocol.pairs, theirs.protocol.pairs) and ours.protocol.name == theirs.protocol.name):
        raise ValueError(f"{ours.protocol.name}: expected the same pairs of both models")
    draws = ours.draws(seed)
    drawn = np.subtract(*(accuracy_draws(each.distance, each.fold, draws) for each in (ours, theirs)))
    return _estimate(ours.accuracy - theirs.accuracy, drawn), drawn


def _estimate(mean: float, draws: np.ndarray) -> Estimate:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(mean, float(low), float(high))


def _told(gap: Estimate, names: tuple[str, str]) -> dict[str, Any]:
    return {"gap": gap.mean, "interval95": gap.interval, "said": said(gap, *names)}
