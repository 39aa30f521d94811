import numpy as np
import pytest

from generation.world import TRAITS, attribute_table
from generation.world.scenes import PROTOCOLS, protocol_pairs, wild_attributes

FOLDS, PAIRS = 5, 200


@pytest.fixture(scope="module", params=PROTOCOLS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def plan(name):
    return protocol_pairs(name, PAIRS, FOLDS, np.random.default_rng(1))


def column(plan, key):
    return np.array([a[key] for a in plan.attributes]).reshape(-1, 2)


def test_there_are_the_five_protocols():
    assert list(PROTOCOLS) == ["wild", "frontal_profile", "cross_age", "cross_pose", "low_quality"]


def test_no_person_is_in_two_folds(plan):
    pairs = plan.person.reshape(-1, 2)
    groups = [set(pairs[plan.folds == f].ravel().tolist()) for f in range(FOLDS)]
    assert sum(len(g) for g in groups) == len(set.union(*groups))


def test_folds_are_contiguous_and_half_genuine(plan):
    assert (np.diff(plan.folds) >= 0).all()
    assert [plan.same[plan.folds == f].mean() for f in range(FOLDS)] == [0.5] * FOLDS


def test_same_says_whether_a_pair_shows_one_person(plan):
    first, second = plan.person.reshape(-1, 2).T
    assert np.array_equal(first == second, plan.same)


def test_attributes_are_valid_and_seeds_differ(plan):
    assert attribute_table(plan.attributes).shape[0] == 2 * PAIRS == len(plan.person) == len(plan.seeds)
    assert len(set(plan.seeds.tolist())) == 2 * PAIRS


def test_impostors_are_nearer_in_skin_tone_than_strangers(plan):
    melanin = plan.people[:, list(TRAITS).index("melanin")]
    first, second = plan.person.reshape(-1, 2)[~plan.same].T
    near = np.abs(melanin[first] - melanin[second]).mean()
    assert near < 0.6 * np.abs(melanin[:, None] - melanin[None]).mean()


def test_a_generator_fixes_the_plan(name, plan):
    again = protocol_pairs(name, PAIRS, FOLDS, np.random.default_rng(1))
    assert np.array_equal(again.people, plan.people)
    assert again.attributes == plan.attributes
    assert np.array_equal(again.seeds, plan.seeds)


def test_pairs_are_photographed_as_the_protocol_says(name, plan):
    yaw, age = column(plan, "yaw_deg"), column(plan, "age_years")
    if name == "frontal_profile":
        assert (np.abs(yaw[:, 0]) <= 10).all()
        assert ((np.abs(yaw[:, 1]) >= 60) & (np.abs(yaw[:, 1]) <= 75)).all()
    elif name == "cross_pose":
        assert (np.abs(yaw[:, 0] - yaw[:, 1]) >= 40 - 1e-9).all()
    elif name == "cross_age":
        assert (np.abs(age[:, 0] - age[:, 1]) >= 30 - 1e-9).all()
    elif name == "low_quality":
        low = column(plan, "low_resolution_px")
        assert ((low >= 26) & (low <= 52)).all()
        assert (column(plan, "jpeg_quality") < 100).all()
    else:
        assert (np.abs(age[:, 0] - age[:, 1]) <= 16.001).all()


def test_photographs_in_the_wild_stay_near_the_base_age():
    base = np.linspace(5, 85, 400, dtype=np.float32)
    photographs = wild_attributes(400, np.random.default_rng(0), base)
    assert np.abs(np.array([p["age_years"] for p in photographs]) - base).max() <= 8.001
    assert 0.12 < np.mean([p["glasses"] > 0 for p in photographs]) < 0.28
    assert 0.05 < np.mean([p["hat"] > 0 for p in photographs]) < 0.16
    assert 20 < np.std([p["yaw_deg"] for p in photographs]) < 30


def test_a_base_age_too_few_or_too_many_is_refused():
    with pytest.raises(ValueError, match="3 base ages, got shape"):
        wild_attributes(3, np.random.default_rng(0), np.zeros(2, np.float32))


@pytest.mark.parametrize(("pairs", "folds"), [(30, 10), (0, 10), (-20, 10), (10, 0)])
def test_pairs_that_do_not_halve_in_every_fold_are_refused(pairs, folds):
    with pytest.raises(ValueError, match=f"got pairs={pairs}, folds={folds}"):
        protocol_pairs("wild", pairs, folds, np.random.default_rng(0))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="unknown protocol 'lfw', expected one of wild"):
        protocol_pairs("lfw", 20, 10, np.random.default_rng(0))
