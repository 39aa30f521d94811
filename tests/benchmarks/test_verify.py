"""Scores of verification: equal to what insightface's own code printed, and to formulas written down again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.verify import (
    ACCURACY_THRESHOLDS,
    auc,
    eer,
    fold_of_pairs,
    fuse_flips,
    paired_fold_gap,
    squared_distances,
    verify,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "lfw_protocol"


def pairs(seed: int, count: int, genuine_mean: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and labels of `count` pairs, genuine and impostor in turn."""
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    cosine = np.where(same, rng.normal(genuine_mean, 0.2, count), rng.normal(0, 0.1, count)).clip(-1, 1)
    return 2 - 2 * cosine, same


@pytest.mark.parametrize("case", ["strong", "medium", "weak", "uneven", "fivefold", "lfwsize"])
def test_every_figure_is_the_recorded_one(case):
    z = np.load(GOLDEN / f"case_{case}.npz")
    ours = verify(squared_distances(z["embeddings"]), z["issame"], int(z["nrof_folds"]))
    np.testing.assert_allclose(ours.accuracy, z["accuracy"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours.threshold_index, z["best_threshold_index"])
    np.testing.assert_allclose(ours.tpr, z["tpr"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.fpr, z["fpr"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        [ours.tar, ours.tar_std, ours.far], [z["val"], z["val_std"], z["far"]], rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(ours.far_threshold, z["far_threshold"], rtol=0, atol=1e-9)


def test_flips_are_summed_raw_and_then_normalised_as_recorded():
    z = np.load(GOLDEN / "flip_fusion.npz")
    fused = fuse_flips(z["raw_original"], z["raw_flipped"])
    np.testing.assert_allclose(fused, z["fused"], rtol=0, atol=1e-12)
    ours = verify(squared_distances(fused), z["issame"], int(z["nrof_folds"]))
    np.testing.assert_allclose(ours.accuracy, z["accuracy"], rtol=0, atol=1e-12)


def test_embeddings_that_cancel_their_flip_are_refused():
    raw = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"finite and not zero, got norm 0\.0 in row 0"):
        fuse_flips(raw, -raw)


def test_the_first_folds_take_the_pairs_that_are_left_over():
    assert np.bincount(fold_of_pairs(437, 10)).tolist() == [44] * 7 + [43] * 3


def test_a_threshold_is_strict_and_the_smallest_of_the_best():
    squared = np.array([0.5, 1.5] * 4)  # genuine at 0.5, impostors at 1.5: all thresholds in (0.5, 1.5] are perfect
    result = verify(squared, np.array([True, False] * 4), folds=2)
    assert ACCURACY_THRESHOLDS[result.threshold_index].tolist() == pytest.approx([0.51, 0.51])


@pytest.mark.parametrize("kind", ["genuine", "impostor"])
def test_a_fold_without_one_kind_of_pair_is_named(kind):
    same = np.arange(20) % 2 == 0
    same[5:10] = kind == "impostor"
    with pytest.raises(ValueError, match=f"no {kind} pair in fold 1 of 4"):
        verify(np.ones(20), same, folds=4)


@pytest.mark.parametrize("folds", [0, 1, 21])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(ValueError, match=f"expected 2 to 20 folds for 20 pairs, got {folds}"):
        verify(*pairs(0, 20), folds=folds)


def test_distances_that_are_not_finite_are_refused():
    squared, same = pairs(0, 40)
    squared[7] = np.nan
    with pytest.raises(ValueError, match="finite distances, got nan"):
        verify(squared, same, folds=2)


def test_one_impostor_pair_of_the_other_folds_is_the_smallest_step_of_the_rate():
    assert verify(*pairs(0, 200)).far_step == 1 / 90  # 100 impostor pairs, a tenth of them held out


def test_pairs_stay_in_the_folds_that_are_given():
    squared, same = pairs(3, 400)
    fold = fold_of_pairs(400, 10)
    kept = np.random.default_rng(0).random(400) < 0.8
    ours = verify(squared[kept], same[kept], fold=fold[kept])
    for f, (accuracy, index) in enumerate(zip(ours.accuracy, ours.threshold_index, strict=True)):
        there = kept & (fold == f)
        assert accuracy == ((squared[there] < ACCURACY_THRESHOLDS[index]) == same[there]).mean()


@given(
    genuine=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    impostor=st.lists(st.integers(0, 12), min_size=1, max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_area_and_equal_error_rate_are_those_of_the_roc_curve(genuine, impostor):
    score = np.array(genuine + impostor, float)
    same = np.arange(len(score)) < len(genuine)
    assert auc(score, same) == pytest.approx(roc_auc_score(same, score), abs=1e-12)
    fpr, tpr, _ = roc_curve(same, score, drop_intermediate=False)
    gap = fpr + tpr - 1  # false match minus false non-match rate: from -1 to 1 along the curve
    at = np.interp(0, gap, np.arange(len(gap)))  # never flat: every score adds a pair
    assert eer(score, same) == pytest.approx(np.interp(at, np.arange(len(gap)), fpr), abs=1e-12)


def test_perfect_and_inverted_scores_have_the_equal_error_rates_zero_and_one():
    same = np.array([True, True, False])
    assert eer(np.array([3.0, 2.0, 1.0]), same) == 0
    assert eer(np.array([1.0, 2.0, 3.0]), same) == 1


def test_one_kind_of_pair_has_no_curve():
    with pytest.raises(ValueError, match="got 2 and 0"):
        auc(np.array([1.0, 2.0]), np.array([True, True]))


def test_the_gap_between_two_models_is_the_paired_t_interval_of_their_folds():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(0.8, 0.9, (2, 10))
    gap, low, high = paired_fold_gap(ours, theirs)
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert gap == pytest.approx((ours - theirs).mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))
