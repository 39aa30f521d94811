"""Pairs for a verification set, drawn from labelled pictures: half of one person, half of two; folds share no people.

People are split into folds first and pairs drawn within each, so that no threshold is ever chosen on somebody whom it
is then tested on. Within a fold everybody has a turn before anybody has a second: people with many photographs do not
crowd out the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Pairs in the order of a `.bin`: fold after fold, in each the pairs of one person first.

    Attributes:
        first, second: Rows of the two pictures of each pair; no two pairs have the same two.
        same: Whether the pair is of one person.
        people: Identities of each fold, int64, ascending.
    """

    first: Int64[np.ndarray, " p"]
    second: Int64[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    people: tuple[np.ndarray, ...]


def draw_pairs(identity_ids: Int64[np.ndarray, " n"], pairs: int, folds: int, seed: int) -> Drawn:
    """Draws a verification set.

    Args:
        identity_ids: Whose each picture is.
        pairs: How many in all, a multiple of twice the folds.
        folds: At least 2.
        seed: Of everything that is drawn.
    Raises:
        ValueError: If `pairs` cannot be divided so, or the people of a fold do not have as many different pairs.
    """
    if folds < 2 or pairs < 1 or pairs % (2 * folds):
        raise ValueError(
            f"pairs, folds: expected at least 2 folds and a multiple of twice as many pairs, got {pairs}, {folds}"
        )
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    people, counts = np.unique(identity_ids, return_counts=True)
    rows_of = np.split(np.argsort(identity_ids, kind="stable").astype(np.int64), np.cumsum(counts)[:-1])
    mixed = rng.permutation(len(people))
    order = mixed[np.argsort(-counts[mixed], kind="stable")]  # dealt from those with most pictures: folds of one size
    each, first, second, members = pairs // (2 * folds), [], [], []
    for fold in range(folds):
        mine = np.sort(order[fold::folds])
        rows = [rows_of[person] for person in mine]
        _check_enough(fold, np.array([len(own) for own in rows], np.int64), each)
        for ones, others in (_genuine(rows, each, rng), _impostor(rows, each, rng)):
            first.append(ones)
            second.append(others)
        members.append(people[mine])
    same = np.tile(np.repeat([True, False], each), folds)
    return Drawn(np.concatenate(first), np.concatenate(second), same, tuple(members))


def _check_enough(fold: int, counts: Int64[np.ndarray, " m"], each: int) -> None:
    total = int(counts.sum())
    one = int((counts * (counts - 1)).sum()) // 2
    two = (total * total - int((counts * counts).sum())) // 2
    if min(one, two) < each:
        raise ValueError(
            f"pairs: expected at most {min(one, two)} of each kind in fold {fold}, got {each}: the {total} pictures of "
            f"its {len(counts)} people make {one} pairs of one person and {two} of two; ask for fewer pairs or folds"
        )


def _genuine(
    rows: list[np.ndarray], wanted: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " w"], Int64[np.ndarray, " w"]]:
    """Pairs of pictures of one person, everybody in turn."""
    sizes = np.array([len(own) for own in rows], np.int64)
    chosen = [
        (rows[who], *_unranked(rank, len(rows[who]))) for who, rank in _turns(sizes * (sizes - 1) // 2, wanted, rng)
    ]
    return np.array([own[a] for own, a, _ in chosen], np.int64), np.array([own[b] for own, _, b in chosen], np.int64)


def _impostor(
    rows: list[np.ndarray], wanted: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " w"], Int64[np.ndarray, " w"]]:
    """Pairs of pictures of two people, every two people in turn."""
    couples = len(rows) * (len(rows) - 1) // 2
    if wanted <= couples:  # all of them need not be listed: there may be millions
        pairs = [_unranked(couple, len(rows)) for couple in rng.choice(couples, wanted, replace=False).tolist()]
        turns = [(pair, int(rng.integers(len(rows[pair[0]]) * len(rows[pair[1]])))) for pair in pairs]
    else:
        pairs = [_unranked(couple, len(rows)) for couple in range(couples)]
        capacities = np.array([len(rows[a]) * len(rows[b]) for a, b in pairs], np.int64)
        turns = [(pairs[couple], rank) for couple, rank in _turns(capacities, wanted, rng)]
    first, second = [], []
    for (one, two), rank in turns:
        first.append(rows[one][rank // len(rows[two])])
        second.append(rows[two][rank % len(rows[two])])
    return np.array(first, np.int64), np.array(second, np.int64)


def _turns(capacities: Int64[np.ndarray, " g"], wanted: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Takes from groups in turn, in a new random order each round, until there are enough: (group, which of its own).

    Together the groups hold at least as many as are wanted.
    """
    taken, order = np.zeros_like(capacities), np.empty(0, np.int64)
    while len(order) < wanted:
        round_of = rng.permutation(np.flatnonzero(taken < capacities))[: wanted - len(order)]
        taken[round_of] += 1
        order = np.concatenate([order, round_of])
    ranks = {
        int(group): iter(rng.choice(capacities[group], taken[group], replace=False)) for group in np.flatnonzero(taken)
    }
    return [(int(group), int(next(ranks[int(group)]))) for group in order]


def _unranked(rank: int, size: int) -> tuple[int, int]:
    """The rank-th of the size * (size - 1) / 2 unordered pairs of different numbers below `size`.

    On a circle of `size` places, each pair is a place and a step to the other of at most half the circle.
    """
    step, a = divmod(rank, size)
    return a, (a + step + 1) % size
