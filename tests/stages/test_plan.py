import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, truncnorm

from stages.plan import Choice, Fixed, Integers, Mixture, Normal, PerPerson, Planner, Uniform

WILD = {
    "yaw_deg": Normal(0, 25, -75, 75),
    "age_years": PerPerson(Uniform(10, 70), Normal(0, 4, -8, 8), 5, 85),
    "hat": Choice([0, 1], [4, 1]),
    "blur_px": Uniform(0, 2),
}


def test_a_row_depends_on_the_seed_the_person_and_its_number_alone():
    short, long = Planner(3, WILD), Planner(40, WILD)
    long(7, 1)  # whoever was planned before
    for row, same in zip(short(123, 9), long(123, 9), strict=False):
        assert (row.key, row.identity_id, row.seed, row.attributes) == (
            same.key,
            same.identity_id,
            same.seed,
            same.attributes,
        )


def test_another_seed_person_or_number_is_another_picture():
    rows = [row for seed in (0, 1) for person in (0, 1) for row in Planner(50, WILD)(person, seed)]
    assert len({row.seed for row in rows}) == len({row.attributes["yaw_deg"] for row in rows}) == len(rows)


def test_adding_an_attribute_leaves_the_others_and_the_seed_as_they_were():
    more = {"smile": Uniform(0, 1), **WILD}
    for row, same in zip(Planner(5, WILD)(3, 4), Planner(5, more)(3, 4), strict=True):
        assert row.seed == same.seed
        assert dict(row.attributes) == {name: same.attributes[name] for name in WILD}


def test_the_persons_own_draw_is_not_the_draw_of_its_first_photograph():
    """numpy's SeedSequence([s, i]) equals SeedSequence([s, i, 0]): the person needs a stream of its own."""
    assert np.array_equal(
        np.random.SeedSequence([5, 7]).generate_state(4), np.random.SeedSequence([5, 7, 0]).generate_state(4)
    )
    drawn = {"a": PerPerson(Uniform(0, 1), Fixed(0), 0, 1)}
    for person in range(20):
        first = Planner(1, {"a": Uniform(0, 1)})(person, 0)[0]
        assert first.attributes["a"] != Planner(1, drawn)(person, 0)[0].attributes["a"]


def test_a_person_has_one_base_and_a_spread_around_it():
    ages = [[row.attributes["age_years"] for row in Planner(30, WILD)(person, 0)] for person in range(30)]
    assert max(max(life) - min(life) for life in ages) <= 16
    assert np.std([np.mean(life) for life in ages]) > 10


def test_keys_seeds_and_numbers_are_as_the_ledger_keeps_them():
    rows = Planner(1000, {"yaw_deg": Uniform(-0.1, 0.1)})(42, 0)
    assert rows[7].key == "000042_007"
    assert rows[999].key == "000042_999"
    assert all(0 <= row.seed < 2**63 for row in rows)
    assert all(row.attributes["yaw_deg"] == float(np.float32(row.attributes["yaw_deg"])) for row in rows)


def test_the_planner_names_what_it_asks_for_and_its_ranges():
    planner = Planner(1, {**WILD, "glasses": Fixed(1), "n": Integers(2, 5)})
    assert planner.names == ("yaw_deg", "age_years", "hat", "blur_px", "glasses", "n")
    assert planner.ranges["age_years"] == (5, 85)
    assert planner.ranges["hat"] == (0, 1)
    assert planner.ranges["glasses"] == (1, 1)


def drawn(distribution, n=4000):
    return np.array([row.attributes["x"] for i in range(n // 1000) for row in Planner(1000, {"x": distribution})(i, 3)])


def test_draws_follow_their_distributions():
    assert kstest(drawn(Uniform(-3, 5)), "uniform", (-3, 8)).pvalue > 1e-3
    truncated = truncnorm((-1 - 0.5) / 2, (4 - 0.5) / 2, loc=0.5, scale=2)
    assert kstest(drawn(Normal(0.5, 2, -1, 4)), truncated.cdf).pvalue > 1e-3
    assert np.mean(drawn(Choice([0, 7], [1, 3])) == 7) == pytest.approx(0.75, abs=0.03)
    rarely = drawn(Mixture([Uniform(0, 1), Uniform(10, 12), Fixed(-1)], [1, 2, 1]))
    assert np.mean(rarely > 1) == pytest.approx(0.5, abs=0.03)
    assert np.mean(rarely == -1) == pytest.approx(0.25, abs=0.03)
    assert kstest(rarely[rarely > 1], "uniform", (10, 2)).pvalue > 1e-3
    assert set(drawn(Integers(2, 5))) == {2.0, 3.0, 4.0, 5.0}
    assert set(drawn(Choice([1, 2, 3], [1, 0, 1]))) == {1.0, 3.0}


@settings(max_examples=50)
@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(-50, 50), st.floats(0.01, 90), st.floats(0, 60))
def test_no_draw_leaves_its_range(u, mean, std, reach):
    for distribution in (
        Normal(mean, std, mean - reach, mean + 1),
        PerPerson(Fixed(mean), Normal(0, std, -90, 90), -50, 50),
    ):
        assert distribution.low <= distribution.draw(u, u) <= distribution.high


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Planner(0, {}), "images_per_identity: expected 1 to 1000, got 0"),
        (lambda: Planner(1001, {}), "images_per_identity"),
        (lambda: Uniform(2, 1), "low < high, got 2, 1"),
        (lambda: Uniform(0, math.inf), "finite"),
        (lambda: Normal(0, 0, -1, 1), "std: expected a number above 0, got 0"),
        (lambda: Normal(9, 1, -1, 1), "mean: expected a number within"),
        (lambda: Fixed(math.nan), "value: expected a finite number, got nan"),
        (lambda: Choice([]), "values"),
        (lambda: Choice([1, 2], [1]), "weights: expected one per choice, so 2, got 1"),
        (lambda: Mixture([]), "of: expected at least one distribution"),
        (lambda: Mixture([Fixed(1)], [-1]), "weights: expected numbers of at least 0"),
        (lambda: Choice([1, 2], [0, 0]), "weights: expected numbers of at least 0, not all 0"),
        (lambda: Integers(3, 3), "low < high"),
        (lambda: PerPerson(Uniform(0, 99), Fixed(0), 5, 85), "base: expected values within"),
        (lambda: Planner(1, {})(10**6, 0), "identity_id: expected 0 to 999999, got 1000000"),
        (lambda: Planner(1, {})(0, 2**32), "run_seed"),
    ],
)
def test_mistakes_name_value_and_expectation(make, named):
    with pytest.raises(ValueError) as error:
        make()
    assert named in str(error.value)
