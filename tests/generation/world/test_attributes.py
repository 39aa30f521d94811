import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.world import ATTRIBUTES, CONTROLS, IDENTITY_DIM, TRAITS, attribute_table, sample_people


def test_a_person_has_at_least_forty_traits_each_with_a_meaning():
    assert IDENTITY_DIM == len(TRAITS) >= 40
    assert all(TRAITS.values())


def test_people_are_standard_normal_and_fixed_by_their_generator():
    people = sample_people(4000, np.random.default_rng(0))
    assert people.dtype == np.float32
    assert np.abs(people.mean(0)).max() < 0.1
    assert np.abs(people.std(0) - 1).max() < 0.1
    assert np.array_equal(people[:5], sample_people(5, np.random.default_rng(0)))


def test_missing_attributes_are_neutral():
    table = attribute_table([{}, {"smile": 0.5}])
    assert np.allclose(table[0], [a.neutral for a in ATTRIBUTES.values()])
    assert table[1, CONTROLS.index("smile")] == np.float32(0.5)


def test_neutral_values_are_in_range():
    assert all(a.low <= a.neutral <= a.high for a in ATTRIBUTES.values())


@given(st.sampled_from(CONTROLS), st.floats(0, 1))
def test_any_value_of_the_range_is_taken_and_one_beyond_is_refused(name, share):
    a = ATTRIBUTES[name]
    value = a.low + share * (a.high - a.low)
    assert attribute_table([{name: value}])[0, CONTROLS.index(name)] == np.float32(value)
    with pytest.raises(ValueError, match=f"<= {name} <="):
        attribute_table([{name: a.high + 1}])


def test_errors_name_the_attribute_the_range_and_the_value():
    with pytest.raises(ValueError, match=r"expected -75 <= yaw_deg <= 75, got 80"):
        attribute_table([{"yaw_deg": 80}])
    with pytest.raises(ValueError, match=r"expected 0 <= mouth_open <= 1, got nan"):
        attribute_table([{"mouth_open": float("nan")}])
    with pytest.raises(ValueError, match="unknown attribute 'yaw', expected one of yaw_deg, pitch_deg"):
        attribute_table([{"yaw": 3}])


def test_no_rows_make_an_empty_table():
    assert attribute_table([]).shape == (0, len(CONTROLS))
