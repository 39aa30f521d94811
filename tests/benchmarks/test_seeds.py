"""What several trainings say together: held against scipy's own intervals, and against what it claims to cover."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_rel

from benchmarks.seeds import mean_score, over_seeds_and_pairs, paired_verdict
from benchmarks.verdicts import Estimate, said


def entry(folds):
    folds = np.asarray(folds, float)
    return {
        "protocol": "insightface-v1",
        "pairs": 300,
        "accuracy": float(folds.mean()),
        "accuracy_std": float(folds.std()),
        "folds": folds.tolist(),
        "thresholds": [1.5] * len(folds),
        "interval95": [0.0, 1.0],
        "tar": float(folds.mean()) / 2,
        "far_target": 0.001,
        "auc": 0.9,
        "eer": 0.1,
    }


def seeds(shift=0.0, k=3, protocols=("wild", "cross_age"), folds=10, seed=0):
    rng = np.random.default_rng(seed)
    return [{name: entry(0.8 + shift + rng.normal(0, 0.02, folds)) for name in protocols} for _ in range(k)]


def gaps(ours, theirs, name):
    return np.array([np.subtract(a[name]["folds"], b[name]["folds"]) for a, b in zip(ours, theirs, strict=True)])


def half(interval):
    return (interval.high - interval.low) / 2


def test_where_pairs_agree_the_interval_is_the_paired_t_interval_over_the_seeds():
    ours, theirs = np.random.default_rng(0).uniform(0.7, 0.9, (2, 4))
    tables = [np.tile((ours - theirs)[:, None], (1, 10))] * 5
    found, expected = over_seeds_and_pairs(tables), ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.interval == pytest.approx([expected.low, expected.high])


def test_where_seeds_agree_the_interval_is_the_paired_t_interval_over_the_folds():
    folds = np.random.default_rng(1).normal(0, 0.02, 10)
    found, expected = over_seeds_and_pairs([np.tile(folds, (3, 1))]), ttest_1samp(folds, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx([expected.low, expected.high])


def test_half_widths_of_seeds_and_of_pairs_add_as_squares_and_protocols_share_the_seeds():
    rng = np.random.default_rng(2)
    tables = [rng.normal(0, 0.02, (3, folds)) for folds in (10, 5)]
    by_seed = (tables[0].mean(1) + tables[1].mean(1)) / 2
    seeds_half = t.ppf(0.975, 2) * np.std(by_seed, ddof=1) / np.sqrt(3)
    first = t.ppf(0.975, 9) * np.std(tables[0].mean(0), ddof=1) / np.sqrt(10)
    second = t.ppf(0.975, 4) * np.std(tables[1].mean(0), ddof=1) / np.sqrt(5)
    found = over_seeds_and_pairs(tables)
    assert found.mean == pytest.approx(by_seed.mean())
    assert half(found) == pytest.approx(np.sqrt(seeds_half**2 + first**2 / 4 + second**2 / 4))
    assert half(found) > seeds_half


@pytest.mark.parametrize(("of_seeds", "of_pairs", "of_both"), [(1, 0, 0), (1, 2, 2), (0.3, 2, 2), (0, 1, 3)])
def test_the_interval_covers_the_truth_at_least_19_times_in_20_whatever_varies(of_seeds, of_pairs, of_both):
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        shared = rng.normal(0, of_seeds, (3, 1))
        tables = [shared + rng.normal(0, of_pairs, 10) + rng.normal(0, of_both, (3, 10)) for _ in range(5)]
        covered += not over_seeds_and_pairs(tables).tells  # the true mean is 0
    assert covered / 400 > 0.95 - 2 * np.sqrt(0.95 * 0.05 / 400)


def test_the_paired_t_over_seeds_alone_does_not_cover_other_pairs():
    rng = np.random.default_rng(4)
    tables = [rng.normal(0, 1, 10) + rng.normal(0, 0.5, (3, 10)) for _ in range(300)]
    alone = [abs(x.mean()) < t.ppf(0.975, 2) * x.mean(1).std(ddof=1) / np.sqrt(3) for x in tables]
    assert np.mean(alone) < 0.85
    assert np.mean([not over_seeds_and_pairs([x]).tells for x in tables]) > 0.92


def test_a_verdict_is_the_mean_gap_seed_by_seed_in_points_and_words():
    ours, theirs = seeds(-0.03, seed=1), seeds(0.0, seed=2)
    verdict = paired_verdict(ours, theirs)
    tables = [gaps(ours, theirs, name) for name in ("wild", "cross_age")]
    assert verdict["seeds"] == 3
    assert verdict["gap"] == pytest.approx(np.mean(tables))
    assert verdict["by_seed"] == pytest.approx(np.mean(tables, axis=(0, 2)))
    for name, table in zip(("wild", "cross_age"), tables, strict=True):
        assert verdict["protocols"][name]["gap"] == pytest.approx(table.mean())
        assert verdict["protocols"][name]["interval95"] == pytest.approx(over_seeds_and_pairs([table]).interval)
    low, high = (100 * end for end in verdict["interval95"])
    assert high < 0  # three points are many for so even seeds
    assert verdict["said"] == (
        f"control better than dataset by {-100 * np.mean(tables):.2f} points [{-high:.2f}, {-low:.2f}]"
    )
    assert "not another draw of the dataset" in verdict["covers"]


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (Estimate(-0.012, -0.021, -0.003), "control better than dataset by 1.20 points [0.30, 2.10]"),
        (Estimate(0.012, 0.003, 0.021), "dataset better than control by 1.20 points [0.30, 2.10]"),
        (
            Estimate(-0.001, -0.01, 0.008),
            "dataset and control not distinguishable: gap of -0.10 points [-1.00, +0.80]",
        ),
        (Estimate(0.0, 0.0, 0.0), "dataset and control not distinguishable: gap of +0.00 points [+0.00, +0.00]"),
    ],
)
def test_a_gap_is_said_with_its_side_only_where_the_interval_leaves_out_zero(gap, words):
    assert said(gap, "dataset", "control") == words


def test_one_seed_is_its_own_mean_and_several_are_the_mean_of_each_rate_and_fold():
    ours = seeds()
    assert mean_score([ours[0]["wild"]]) == ours[0]["wild"]
    entries = [each["wild"] for each in ours]
    whole = mean_score(entries)
    assert whole["accuracy"] == pytest.approx(np.mean([each["accuracy"] for each in entries]))
    assert whole["folds"] == pytest.approx(np.mean([each["folds"] for each in entries], axis=0))
    assert whole["accuracy_std"] == pytest.approx(np.std(whole["folds"]))
    assert whole["interval95"][0] < whole["accuracy"] < whole["interval95"][1]
    assert whole["interval95_by"] == "Student's t over 3 seeds and 10 folds"
    assert "thresholds" not in whole  # each seed has its own


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (seeds(k=1), seeds(k=1), "at least 2, got 1 and 1"),
        (seeds(k=3), seeds(k=2), "at least 2, got 3 and 2"),
        (seeds(), seeds(protocols=("wild",)), "expected the same protocols"),
        (seeds(), seeds(folds=5), r"wild: expected the same folds of every seed, got \[10, 10, 10, 5, 5, 5\]"),
    ],
)
def test_what_cannot_be_paired_is_refused(ours, theirs, told):
    with pytest.raises(ValueError, match=told):
        paired_verdict(ours, theirs)


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match=r"same seeds, at least 2, and at least 2 folds, got shapes \[\(1, 10\)\]"):
        over_seeds_and_pairs([np.zeros((1, 10))])
