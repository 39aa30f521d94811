import numpy as np
import pytest

from tests.contracts.conftest import build, names


@pytest.fixture(params=names("sampler"))
def sampler(request, tmp_path, statistics):
    needs = {"statistics": str(statistics)} if request.param == "population" else {}
    return build("sampler", request.param, tmp_path, **needs)


def rng():
    return np.random.default_rng(7)


def test_it_draws_finite_vectors_one_per_person_and_names_their_space(sampler):
    people = sampler(20, rng())
    assert people.dtype == np.float32
    assert people.ndim == 2
    assert len(people) == 20
    assert np.isfinite(people).all()
    assert len(np.unique(people, axis=0)) == 20
    assert sampler.space


def test_the_same_seed_is_the_same_people_and_another_is_not(sampler):
    assert np.array_equal(sampler(20, rng()), sampler(20, rng()))
    assert not np.array_equal(sampler(20, rng()), sampler(20, np.random.default_rng(8)))


def test_the_first_people_of_a_longer_draw_are_the_people_of_a_shorter_one(sampler):
    assert np.array_equal(sampler(50, rng())[:20], sampler(20, rng()))
