import numpy as np
import pytest

from tests.contracts.conftest import build, names


@pytest.fixture(params=names("sampler"))
def sampler(request, tmp_path, statistics):
    strangers = {"_target_": "tests.stages.strangers.Strangers", "space": "bundled-a-2"}  # no default makes any
    needs = {"population": {"statistics": str(statistics)}, "two_stage": {"generator": strangers}}
    return build("sampler", request.param, tmp_path, **needs.get(request.param, {}))


def rng():
    return np.random.default_rng(7)


def test_it_draws_finite_vectors_one_per_person_and_names_their_space(sampler):
    people = sampler(8, rng())
    assert people.dtype == np.float32
    assert people.ndim == 2
    assert len(people) == 8
    assert np.isfinite(people).all()
    assert len(np.unique(people, axis=0)) == 8
    assert sampler.space


def test_it_says_in_its_own_word_what_its_people_are(sampler, request):
    word, _, sentence = sampler.source.partition(": ")
    assert word == request.node.callspec.params["sampler"].replace("_", "-")
    assert len(sentence) > 10


def test_the_same_seed_is_the_same_people_and_another_is_not(sampler):
    assert np.array_equal(sampler(8, rng()), sampler(8, rng()))
    assert not np.array_equal(sampler(8, rng()), sampler(8, np.random.default_rng(8)))


def test_the_first_people_of_a_longer_draw_are_the_people_of_a_shorter_one(sampler):
    assert np.array_equal(sampler(12, rng())[:8], sampler(8, rng()))
