"""Plan: gives a person its photographs. A row is a pure function of (run_seed, identity_id, k): laws 2 and 3.

Every number is drawn by inverse transform sampling: a distribution is its quantile function, and the uniform number
that goes in comes from a seed sequence of its own, spawned by the attribute's name. So a longer plan repeats the
shorter one and goes on, and an attribute that is added, removed or changed leaves all others, and the picture's seed,
as they were.
"""

from __future__ import annotations

import bisect
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtr, ndtri

from stages.records import Variation

ROW_STREAM, PERSON_STREAM = 0, 1
SMALLEST = 0.5**53  # of the uniform numbers that are drawn


@runtime_checkable
class Distribution(Protocol):
    """What one attribute may be. `low` and `high` are the smallest and largest value that can come out."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    def draw(self, row: float, person: float) -> float:
        """The attribute of a photograph, from two uniform numbers in (0, 1): its own, and its person's."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Always `value`."""

    value: float

    def __post_init__(self) -> None:
        _finite(self, "value")

    @property
    def low(self) -> float:
        return self.value

    @property
    def high(self) -> float:
        return self.value

    def draw(self, row: float, person: float) -> float:
        return self.value


@dataclass(frozen=True)
class Uniform:
    """Anything from low to high, alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self)

    def draw(self, row: float, person: float) -> float:
        return self.low + (self.high - self.low) * row


@dataclass(frozen=True)
class Normal:
    """A normal distribution truncated to [low, high]. `mean` and `std` are those before it was truncated."""

    mean: float
    std: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _finite(self, "mean", "std")
        _ordered(self)
        if self.std <= 0:
            raise ValueError(f"std: expected a number above 0, got {self.std}")
        if not self.low <= self.mean <= self.high:  # in a far tail the inverse below would lose its digits
            raise ValueError(f"mean: expected a number within [low, high] = [{self.low}, {self.high}], got {self.mean}")

    def draw(self, row: float, person: float) -> float:
        below, above = ndtr((self.low - self.mean) / self.std), ndtr((self.high - self.mean) / self.std)
        drawn = self.mean + self.std * float(ndtri(below + row * (above - below)))
        return min(max(drawn, self.low), self.high)  # rounding at the very ends


@dataclass(frozen=True)
class Choice:
    """One of `values`, as often as its weight says; alike without weights. Weights need not sum to 1."""

    values: Sequence[float]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values)):
            raise ValueError(f"values: expected at least one finite number, got {list(self.values)}")
        _check_weights(self.weights, len(self.values))

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def draw(self, row: float, person: float) -> float:
        return float(self.values[_chosen(self.weights or [1.0] * len(self.values), row)[0]])


@dataclass(frozen=True)
class Integers:
    """A whole number from low to high, both included, alike."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self)
        if not isinstance(self.low, int) or not isinstance(self.high, int):
            raise ValueError(f"low, high: expected whole numbers, got {self.low}, {self.high}")

    def draw(self, row: float, person: float) -> float:
        return float(min(self.low + math.floor((self.high - self.low + 1) * row), self.high))


@dataclass(frozen=True)
class Mixture:
    """One of several distributions, as often as its weight says; alike without weights."""

    of: Sequence[Distribution]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("of: expected at least one distribution, got none")
        _check_weights(self.weights, len(self.of))

    @property
    def low(self) -> float:
        return min(part.low for part in self.of)

    @property
    def high(self) -> float:
        return max(part.high for part in self.of)

    def draw(self, row: float, person: float) -> float:
        """The part that `row` falls into, and in it the quantile at which it does: one uniform number serves both."""
        chosen, inside = _chosen(self.weights or [1.0] * len(self.of), row)
        return self.of[chosen].draw(inside, person)


@dataclass(frozen=True)
class PerPerson:
    """A base drawn once per person plus a spread per photograph, clipped to [low, high]: ages of one life, say."""

    base: Distribution
    spread: Distribution
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self)
        if not self.low <= self.base.low <= self.base.high <= self.high:
            raise ValueError(
                f"base: expected values within [low, high] = [{self.low}, {self.high}], "
                f"got [{self.base.low}, {self.base.high}]"
            )

    def draw(self, row: float, person: float) -> float:
        drawn = self.base.draw(person, person) + self.spread.draw(row, person)
        return min(max(drawn, self.low), self.high)


class Planner:
    """A person's photographs: `planner(identity_id, run_seed)` -> one `Variation` per photograph, in order of k.

    Args:
        images_per_identity: Photographs per person, 1 to 1000 (keys have three digits).
        attributes: How to draw each attribute that is asked of the generator, by the generator's own control names.
    Raises:
        ValueError: If `images_per_identity` or a distribution's bounds are out of range.
    """

    def __init__(self, images_per_identity: int, attributes: Mapping[str, Distribution]) -> None:
        if not 1 <= images_per_identity <= 1000:
            raise ValueError(f"images_per_identity: expected 1 to 1000, got {images_per_identity}")
        self.images_per_identity = images_per_identity
        self.attributes = dict(attributes)
        for name, distribution in self.attributes.items():
            if not isinstance(distribution, Distribution):
                raise ValueError(f"attributes.{name}: expected a distribution of stages.plan, got {distribution!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that are asked for. Preflight holds them against the generator's controls."""
        return tuple(self.attributes)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The smallest and largest value that each attribute can take."""
        return {name: (drawn.low, drawn.high) for name, drawn in self.attributes.items()}

    def __call__(self, identity_id: int, run_seed: int) -> list[Variation]:
        """The rows of one person.

        Args:
            identity_id: 0 to 999,999 (keys have six digits).
            run_seed: 0 to 2^32 - 1: one word of the seed sequence, so that no two rows of two runs share one.
        """
        if not 0 <= identity_id < 10**6:
            raise ValueError(f"identity_id: expected 0 to 999999, got {identity_id}")
        if not 0 <= run_seed < 2**32:
            raise ValueError(f"run_seed: expected 0 to 2^32 - 1, got {run_seed}")
        person = {name: _uniform([run_seed, identity_id], PERSON_STREAM, name) for name in self.attributes}
        return [self._row(identity_id, k, [run_seed, identity_id, k], person) for k in range(self.images_per_identity)]

    def _row(self, identity_id: int, k: int, entropy: list[int], person: Mapping[str, float]) -> Variation:
        attributes = {
            name: _as_stored(drawn.draw(_uniform(entropy, ROW_STREAM, name), person[name]))
            for name, drawn in self.attributes.items()
        }
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
        return Variation(f"{identity_id:06d}_{k:03d}", identity_id, seed, attributes)


def _uniform(entropy: list[int], stream: int, name: str) -> float:
    """A uniform number in (0, 1) of 52 bits, neither end included, that only these arguments decide.

    The stream is part of the spawn key because SeedSequence pads its entropy with zeros: [s, i] alone is [s, i, 0].
    """
    seeds = np.random.SeedSequence(entropy, spawn_key=(stream, zlib.crc32(name.encode())))
    return ((int(seeds.generate_state(1, np.uint64)[0]) >> 12) + 0.5) / 2**52


def _as_stored(value: float) -> float:
    """Rounded to float32, as plan.parquet keeps it: a row read back makes the same picture."""
    return float(np.float32(value))


def _chosen(weights: Sequence[float], uniform: float) -> tuple[int, float]:
    """Which choice a uniform number falls to, and where in (0, 1) of that choice's share it lies."""
    sums = list(itertools.accumulate(weights))
    upto = [part / sums[-1] for part in sums]
    chosen = bisect.bisect_right(upto[:-1], uniform)
    start = upto[chosen - 1] if chosen else 0.0
    inside = (uniform - start) / (upto[chosen] - start)
    return chosen, min(max(inside, SMALLEST), 1 - SMALLEST)


def _check_weights(weights: Sequence[float] | None, count: int) -> None:
    if weights is None:
        return
    if len(weights) != count:
        raise ValueError(f"weights: expected one per choice, so {count}, got {len(weights)}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) <= 0:
        raise ValueError(f"weights: expected numbers of at least 0, not all 0, got {list(weights)}")


def _finite(distribution: object, *names: str) -> None:
    for name in names:
        if not math.isfinite(getattr(distribution, name)):
            raise ValueError(f"{name}: expected a finite number, got {getattr(distribution, name)}")


def _ordered(distribution: Distribution) -> None:
    if not (
        math.isfinite(distribution.low) and math.isfinite(distribution.high) and distribution.low < distribution.high
    ):
        raise ValueError(f"low, high: expected finite numbers, low < high, got {distribution.low}, {distribution.high}")
