"""Intervals: equal to a loop that weighs pairs one by one, and as wide as people make them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.intervals import Accuracy, Draws, accuracy_draws, intervals95
from benchmarks.verify import ACCURACY_THRESHOLDS, auc, eer, fold_of_pairs, verify


def pairs(seed, count, shift=0.5):
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    cosine = np.where(same, rng.normal(shift, 0.2, count), rng.normal(0, 0.1, count)).clip(-1, 1)
    return 2 - 2 * cosine, same


def crowd(seed, count, people):
    """Who is in `count` pairs, genuine and impostor in turn."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, people, count)
    other = (first + rng.integers(1, people, count)) % people
    return np.stack([first, np.where(np.arange(count) % 2 == 0, first, other)], axis=1)


def test_equal_weights_give_the_accuracy_of_the_protocol():
    squared, same = pairs(0, 600)
    fold = fold_of_pairs(600, 10)
    found = Accuracy(squared, same, fold)(np.full((2, 600), 2, np.float32))
    assert found == pytest.approx([verify(squared, same).accuracy.mean()] * 2)


def test_weighted_accuracy_is_that_of_a_loop():
    squared, same = pairs(1, 120)
    fold, weights = fold_of_pairs(120, 4), np.random.default_rng(1).integers(0, 3, (5, 120)).astype(np.float32)
    found = Accuracy(squared, same, fold)(weights)
    for w, accuracy in zip(weights.astype(np.float64), found, strict=True):
        w = np.where(same, w / w[same].sum() * same.sum(), w / w[~same].sum() * (~same).sum())
        right = (squared[:, None] < ACCURACY_THRESHOLDS) == same[:, None]
        expected = 0.0
        for f in range(4):
            best = np.argmax(np.round((w[:, None] * right)[fold != f].sum(0), 9))
            expected += (w * right[:, best])[fold == f].sum()
        assert accuracy == pytest.approx(expected / 120)


def test_a_person_weighs_0_or_2_in_all_pairs_at_once():
    people = crowd(0, 40, 6)
    weights = np.concatenate(list(Draws(np.arange(40) % 2 == 0, people, draws=200)))
    genuine = people[:, 0] == people[:, 1]
    assert set(np.unique(weights[:, genuine])) == {0, 2}
    assert set(np.unique(weights[:, ~genuine])) == {0, 4}
    for person in range(6):
        of_them = weights[:, genuine & (people[:, 0] == person)]
        assert (of_them == of_them[:, :1]).all()
    one, two = people[1]
    at = {person: int(np.flatnonzero(genuine & (people[:, 0] == person))[0]) for person in (one, two)}
    np.testing.assert_array_equal(weights[:, 1], weights[:, at[one]] * weights[:, at[two]])


def test_unknown_people_toss_a_coin_for_every_pair():
    weights = np.concatenate(list(Draws(np.arange(40) % 2 == 0, draws=500)))
    assert set(np.unique(weights)) == {0, 2}
    assert np.abs(np.corrcoef(weights.T) - np.eye(40)).max() < 0.25


def test_the_same_seed_draws_the_same_and_blocks_make_no_difference(monkeypatch):
    people, same = crowd(0, 60, 20), np.arange(60) % 2 == 0
    once = np.concatenate(list(Draws(same, people, draws=50)))
    np.testing.assert_array_equal(once, np.concatenate(list(Draws(same, people, draws=50))))
    monkeypatch.setattr("benchmarks.intervals._AT_ONCE", 60 * 7)
    np.testing.assert_array_equal(once, np.concatenate(list(Draws(same, people, draws=50))))


def test_area_and_equal_error_rate_of_a_draw_are_those_of_repeated_pairs():
    squared, same = pairs(2, 80, shift=0.15)
    weights = np.random.default_rng(3).integers(0, 3, (6, 80)).astype(np.float32)
    from benchmarks.intervals import _Curve

    areas, errors = _Curve(-squared, same)(weights)
    for w, area, error in zip(weights.astype(int), areas, errors, strict=True):
        repeated, kinds = np.repeat(-squared, w), np.repeat(same, w)
        assert area == pytest.approx(auc(repeated, kinds))
        assert error == pytest.approx(eer(repeated, kinds), abs=1e-9)


def test_a_tar_of_a_draw_is_that_of_repeated_pairs():
    from benchmarks.far import tar_at_far
    from benchmarks.intervals import _Curve

    squared, same = pairs(2, 400, shift=0.2)
    weights = np.random.default_rng(3).integers(0, 3, (6, 400)).astype(np.float32)
    found = _Curve(-squared, same).tar(weights, 0.1)
    for w, tar in zip(weights.astype(int), found, strict=True):
        assert tar == pytest.approx(tar_at_far(np.repeat(-squared, w), np.repeat(same, w), [0.1])[0].tar)


def test_every_interval_holds_its_score_and_narrows_as_the_root_of_the_pairs():
    widths = []
    for count in (400, 6400):
        squared, same = pairs(1, count, shift=0.3)
        found = intervals95(squared, fold_of_pairs(count, 10), Draws(same, draws=400))
        scores = (verify(squared, same).accuracy.mean(), auc(-squared, same), eer(-squared, same))
        for (low, high), score in zip((found.accuracy, found.auc, found.eer), scores, strict=True):
            assert low <= score <= high
        widths.append(found.accuracy[1] - found.accuracy[0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)
    assert set(found.tar) == {0.1, 0.01}  # 3,200 impostor pairs carry no more


def test_a_bootstrap_over_independent_pairs_is_as_wide_as_fresh_sets_of_pairs():
    accuracies = [verify(*pairs(seed, 1000)).accuracy.mean() for seed in range(200)]
    truth = np.subtract(*np.percentile(accuracies, [97.5, 2.5]))
    widths = []
    for seed in range(10):
        squared, same = pairs(seed, 1000)
        drawn = accuracy_draws(squared, fold_of_pairs(1000, 10), Draws(same, draws=300))
        widths.append(np.subtract(*np.percentile(drawn, [97.5, 2.5])))
    assert np.mean(widths) == pytest.approx(truth, rel=0.25)


def recurring(seed, count=240, people=8):
    """Pairs of few people, some of whom a model knows badly: their pairs are wrong together."""
    rng = np.random.default_rng(seed)
    of_pairs, same = crowd(seed + 1000, count, people), np.arange(count) % 2 == 0
    badly = rng.normal(0, 0.25, people)
    cosine = np.where(same, 0.4, 0.0) + badly[of_pairs].mean(axis=1) * np.where(same, 1, 0.3)
    return 2 - 2 * (cosine + rng.normal(0, 0.1, count)).clip(-1, 1), same, of_pairs


def test_where_people_recur_only_the_bootstrap_over_people_covers_the_truth():
    drawn = [recurring(seed) for seed in range(60)]
    fold = fold_of_pairs(240, 10)
    truth = np.mean([verify(squared, same).accuracy.mean() for squared, same, _ in drawn])
    covered = {"people": 0, "pairs": 0}
    for squared, same, people in drawn:
        for name, draws in (("people", Draws(same, people, 100)), ("pairs", Draws(same, None, 100))):
            low, high = np.percentile(accuracy_draws(squared, fold, draws), [2.5, 97.5])
            covered[name] += bool(low <= truth <= high)
    assert covered["people"] / 60 > 0.88
    assert covered["pairs"] / 60 < 0.75


def test_a_crowd_of_one_person_has_no_interval():
    same = np.array([True, False] * 4)
    people = np.array([[0, 0], [0, 1]] * 4)  # no draw has weight on impostors unless both weigh
    squared = np.where(same, 0.5, 1.5)
    low, high = np.percentile(accuracy_draws(squared, fold_of_pairs(8, 2), Draws(same, people, draws=50)), [0, 100])
    assert low == high == 1.0  # draws without a kind of pair are left out, and never divide by nothing
