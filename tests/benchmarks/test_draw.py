"""Pairs drawn for a verification set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.draw import draw_pairs


def couples(first: np.ndarray, second: np.ndarray) -> set[tuple[int, int]]:
    """Who meets whom, whichever comes first; nobody meets himself."""
    assert (first != second).all()
    return {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}


@given(
    counts=st.lists(st.integers(2, 6), min_size=12, max_size=40),
    folds=st.integers(2, 4),
    each=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_folds_share_no_people_and_no_two_pictures_meet_twice(counts, folds, each, seed):
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    drawn = draw_pairs(ids, 2 * folds * each, folds, seed)
    np.testing.assert_array_equal(drawn.same, ids[drawn.first] == ids[drawn.second])
    assert len(couples(drawn.first, drawn.second)) == len(drawn.same)
    assert drawn.same.tolist() == ([True] * each + [False] * each) * folds
    blocks = np.array_split(np.arange(len(drawn.same)), folds)  # as the protocol cuts the folds
    for people, block in zip(drawn.people, blocks, strict=True):
        assert {*ids[drawn.first[block]], *ids[drawn.second[block]]} <= set(people.tolist())
    everybody = np.concatenate(drawn.people)
    assert sorted(everybody.tolist()) == sorted(set(ids.tolist()))
    assert max(map(len, drawn.people)) - min(map(len, drawn.people)) <= 1


@pytest.mark.parametrize(("people", "pictures"), [(4, 3), (5, 3), (6, 2)])
def test_as_many_pairs_as_there_are_can_be_had(people, pictures):
    ids = np.repeat(np.arange(2 * people), pictures)
    most = people * pictures * (pictures - 1) // 2
    drawn = draw_pairs(ids, 4 * most, 2, seed=1)
    assert len(couples(drawn.first[drawn.same], drawn.second[drawn.same])) == 2 * most  # all there are
    with pytest.raises(ValueError, match=f"at most {most} of each kind in fold 0, got {most + 1}"):
        draw_pairs(ids, 4 * (most + 1), 2, seed=1)


def test_two_people_meet_again_only_when_all_have_met():
    ids = np.repeat(np.arange(8), 4)
    drawn = draw_pairs(ids, 2 * 2 * 12, 2, seed=0)  # 4 people a fold: 6 couples, 12 pairs
    for block in np.array_split(np.flatnonzero(~drawn.same), 2):
        first, second = ids[drawn.first[block]], ids[drawn.second[block]]
        assert len(couples(first[:6], second[:6])) == len(couples(first[6:], second[6:])) == 6


def test_everybody_has_a_turn_before_anybody_has_a_second():
    ids = np.repeat(np.arange(20), [40] * 10 + [2] * 10)
    drawn = draw_pairs(ids, 40, 2, seed=5)
    assert sorted(ids[drawn.first[drawn.same]].tolist()) == list(range(20))


def test_the_seed_decides():
    ids = np.repeat(np.arange(30), 4)
    rows = [draw_pairs(ids, 60, 3, seed).first.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(("pairs", "folds"), [(0, 2), (-4, 2), (50, 20), (10, 1), (7, 2)])
def test_pairs_that_cannot_be_shared_out_are_refused(pairs, folds):
    with pytest.raises(ValueError, match=f"a multiple of twice as many pairs, got {pairs}, {folds}"):
        draw_pairs(np.repeat(np.arange(30), 4), pairs, folds, 0)


def test_one_person_a_fold_is_too_few():
    with pytest.raises(ValueError, match="the 4 pictures of its 1 people make 6 pairs of one person and 0 of two"):
        draw_pairs(np.repeat(np.arange(2), 4), 4, 2, 0)
