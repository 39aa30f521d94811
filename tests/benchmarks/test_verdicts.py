"""Verdicts between two models: paired by their pairs, and silent where nobody can tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.intervals import accuracy_draws
from benchmarks.pictures import Pictures
from benchmarks.protocols import Measured, Protocol
from benchmarks.verdicts import mcnemar, model_verdict
from benchmarks.verify import fold_of_pairs, verify

PAIRS = 600
SAME = np.arange(PAIRS) % 2 == 0
PEOPLE = np.stack([np.arange(PAIRS) // 3, np.where(SAME, np.arange(PAIRS) // 3, 9000 + np.arange(PAIRS))], axis=1)


def protocol(name="wild"):
    return Protocol(
        name, Pictures([b"x"], name), np.zeros((PAIRS, 2), np.int64), SAME, PEOPLE, fold_of_pairs(PAIRS, 10)
    )


def measured(noise_seed, genuine, name="wild", shared=0.0, seed=0):
    rng, own = np.random.default_rng(seed), np.random.default_rng(noise_seed)
    noise = np.sqrt(shared) * rng.normal(0, 0.2, PAIRS) + np.sqrt(1 - shared) * own.normal(0, 0.2, PAIRS)
    distance = 2 - 2 * (np.where(SAME, genuine, 0) + noise).clip(-1, 1)
    fold = fold_of_pairs(PAIRS, 10)
    return Measured(protocol(name), distance, fold, 10, 1e-3, 20.0, verify(distance, SAME))


def test_a_better_model_is_named_with_points_and_interval():
    ours, theirs = measured(1, 0.6, shared=0.9), measured(2, 0.3, shared=0.9)
    verdict = model_verdict({"wild": ours}, {"wild": theirs}, ("A", "B"))
    low, high = (100 * end for end in verdict["interval95"])
    assert verdict["gap"] == pytest.approx(ours.accuracy - theirs.accuracy)
    assert verdict["said"] == f"A better than B by {100 * verdict['gap']:.2f} points [{low:.2f}, {high:.2f}]"
    assert low > 0
    assert verdict["protocols"]["wild"]["by"].startswith("bootstrap over people")
    other = model_verdict({"wild": theirs}, {"wild": ours}, ("A", "B"))
    assert other["gap"] == -verdict["gap"]
    assert other["said"].startswith("B better than A by")


def test_a_model_is_not_distinguishable_from_itself():
    ours = measured(1, 0.4)
    verdict = model_verdict({"wild": ours}, {"wild": ours}, ("A", "B"))
    assert verdict["said"] == "A and B not distinguishable: gap of +0.00 points [+0.00, +0.00]"
    assert verdict["protocols"]["wild"]["mcnemar_p"] == 1


def test_pairing_makes_the_interval_narrower_than_that_of_strangers():
    ours, theirs = measured(1, 0.4, shared=0.98), measured(2, 0.4, shared=0.98)
    low, high = model_verdict({"wild": ours}, {"wild": theirs}, ("A", "B"))["interval95"]
    strangers = np.subtract(
        *(accuracy_draws(each.distance, each.fold, each.draws(seed)) for seed, each in enumerate((ours, theirs)))
    )
    assert high - low < 0.7 * np.subtract(*np.percentile(strangers, [97.5, 2.5]))


def test_models_that_are_equal_in_truth_are_told_apart_at_most_one_time_in_twenty():
    told = 0
    for k in range(20):
        ours, theirs = (measured(1000 + 2 * k + side, 0.4, shared=0.5, seed=k) for side in (0, 1))
        told += "better" in model_verdict({"wild": ours}, {"wild": theirs}, ("A", "B"))["said"]
    assert told <= 3  # 1 expected; more than 3 in 20 has probability 0.016


def test_a_mean_over_protocols_is_the_mean_of_their_gaps():
    ours = {name: measured(1, 0.45, name) for name in ("a", "b")}
    theirs = {"a": measured(2, 0.4, "a"), "b": measured(3, 0.3, "b")}
    verdict = model_verdict(ours, theirs, ("A", "B"))
    gaps = [each["gap"] for each in verdict["protocols"].values()]
    assert verdict["gap"] == pytest.approx(np.mean(gaps))
    widths = [np.diff(each["interval95"])[0] for each in verdict["protocols"].values()]
    assert np.diff(verdict["interval95"])[0] == pytest.approx(np.hypot(*widths) / 2, rel=0.15)


def test_other_protocols_are_refused():
    with pytest.raises(ValueError, match=r"expected the same protocols of both models, got \['a'\] and \['b'\]"):
        model_verdict({"a": measured(1, 0.4, "a")}, {"b": measured(1, 0.4, "b")}, ("A", "B"))


def test_mcnemar_counts_what_one_model_alone_gets_right():
    ours, theirs = np.array([1, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0, 0], bool)
    found = mcnemar(ours, theirs)
    assert (found["ours_alone"], found["theirs_alone"]) == (3, 1)
    assert found["mcnemar_p"] == binomtest(3, 4).pvalue
