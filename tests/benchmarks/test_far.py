"""True accepts at a false accept rate: held against counting, and silent where there is too little to count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.far import lacking, tar_at_far, wilson_interval95


def scores(genuine, impostor):
    return np.concatenate([genuine, impostor]), np.arange(len(genuine) + len(impostor)) < len(genuine)


def test_on_3000_impostor_pairs_one_in_ten_thousand_is_insufficient_data():
    rng = np.random.default_rng(0)
    points = tar_at_far(*scores(rng.normal(0.6, 0.1, 3000), rng.normal(0, 0.1, 3000)))
    assert [point.tar is None for point in points] == [False, False, True, True, True, True]
    told = points[3].told()
    assert told["tar"] is None
    assert told["reason"] == (
        "insufficient data: 3000 impostor pairs have 0.3 false accepts at FAR 0.0001, and 10 are needed"
    )


def test_ten_false_accepts_are_enough_and_nine_are_not():
    assert lacking(1e-3, 10_000) == ""
    assert lacking(1e-3, 9_999) != ""
    assert lacking(1e-6, 15_638_932) == ""  # IJB-C carries it
    assert lacking(1e-6, 8_000_000) != ""  # IJB-B does not


@settings(max_examples=100, deadline=None)
@given(
    genuine=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    impostor=st.lists(st.integers(0, 30), min_size=100, max_size=150),
)
def test_no_lower_threshold_keeps_to_the_target(genuine, impostor):
    genuine, impostor = np.array(genuine, float), np.array(impostor, float)
    point = tar_at_far(*scores(genuine, impostor), [0.1])[0]
    accepted = impostor > point.min_cosine
    assert point.false_accepts == accepted.sum() <= 0.1 * len(impostor)
    assert point.far == accepted.mean()
    assert point.tar == (genuine > point.min_cosine).mean()
    lower = np.unique(np.concatenate([genuine, impostor]))
    for threshold in lower[lower < point.min_cosine]:
        assert (impostor > threshold).mean() > 0.1


def test_a_target_of_a_whole_number_of_pairs_takes_all_of_them():
    point = tar_at_far(*scores([9.0], np.arange(1000.0)), [0.1])[0]
    assert point.false_accepts == 100


def test_one_kind_of_pair_is_refused():
    with pytest.raises(ValueError, match="got 0 and 2"):
        tar_at_far(np.zeros(2), np.array([False, False]))


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (997, 1000)])
def test_wilson_is_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval95(successes, trials) == pytest.approx((expected.low, expected.high))


def test_nothing_tried_is_nothing_known():
    assert wilson_interval95(0, 0) == (0.0, 1.0)
