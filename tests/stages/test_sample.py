import hashlib
import json

import numpy as np
import pytest

from stages.sample.enrol import Enrol
from stages.sample.population import Population, fit
from stages.sample.select import unlike_everyone_kept
from stages.sample.sphere import Sphere
from tests.stages.cast import chunk_of, faces_of, looking_like, person, photographs_of, unit


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def statistics(tmp_path):
    mixing = rng(1).standard_normal((6, 6)) * np.array([3, 2, 1, 0.5, 0.1, 0.01])
    embeddings = (rng(2).standard_normal((5000, 6)) @ mixing.T + 4).astype(np.float32)
    mean, covariance = fit(embeddings)
    np.savez(tmp_path / "population.npz", mean=mean, covariance=covariance)
    return tmp_path / "population.npz", embeddings


def test_the_sphere_is_even_and_its_vectors_are_unit():
    people = Sphere(8, "a")(20000, rng())
    assert np.linalg.norm(people, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(people.mean(axis=0)).max() < 0.02
    assert np.abs(people.T @ people / len(people) - np.eye(8) / 8).max() < 0.01


def test_fit_is_the_mean_and_the_unbiased_covariance(statistics):
    _, embeddings = statistics
    mean, covariance = fit(embeddings)
    assert mean == pytest.approx(np.mean(embeddings, axis=0, dtype=np.float64))
    assert covariance == pytest.approx(np.cov(embeddings.astype(np.float64), rowvar=False))


def test_a_population_drawn_again_has_the_statistics_that_it_was_drawn_from(statistics):
    path, embeddings = statistics
    people = Population(path, components=6, space="a", unit=False)(20000, rng())
    mean, covariance = fit(people)
    truth_mean, truth = fit(embeddings)
    assert np.abs(mean - truth_mean).max() < 0.1
    assert np.abs(covariance - truth).max() < 0.05 * np.abs(truth).max()


def test_components_that_are_cut_stay_at_the_mean(statistics):
    path, embeddings = statistics
    people = Population(path, components=2, space="a", unit=False)(500, rng())
    mean, covariance = fit(embeddings)
    _, axes = np.linalg.eigh(covariance)
    assert np.abs((people - mean) @ axes[:, :-2]).max() < 1e-4
    assert np.std((people - mean) @ axes[:, -1]) > 1
    assert np.linalg.matrix_rank(people - mean, tol=1e-3) == 2


@pytest.mark.parametrize("unit_vectors", [True, False])
def test_the_first_people_of_a_longer_draw_are_the_people_of_a_shorter_one(statistics, unit_vectors):
    for sampler in (Sphere(7, "a"), Population(statistics[0], 3, "a", unit_vectors)):
        assert np.array_equal(sampler(100, rng(5))[:9], sampler(9, rng(5)))


def test_a_population_of_unit_vectors_is_unit(statistics):
    assert np.linalg.norm(Population(statistics[0], 3, "a", True)(50, rng()), axis=1) == pytest.approx(1, abs=1e-6)


def listed(folder, statistics, sha256):
    entry = {"file": statistics.name, "sha256": sha256, "space": "", "dimensions": 0}
    (folder / "weights.json").write_text(json.dumps({"population": entry}))
    return folder


def test_the_bundled_population_is_the_file_that_is_listed_by_its_hash(statistics):
    path = statistics[0]
    folder = listed(path.parent, path, hashlib.sha256(path.read_bytes()).hexdigest())
    people = Population("bundled", 3, "a", True, weights=folder)(4, rng())
    assert np.array_equal(people, Population(path, 3, "a", True)(4, rng()))
    with pytest.raises(ValueError, match=r"expected population\.npz with sha256 0000"):
        Population("bundled", 3, "a", True, weights=listed(path.parent, path, "0" * 64))


def test_a_population_that_names_its_space_is_of_no_other(tmp_path, statistics):
    mean, covariance = fit(statistics[1])
    np.savez(tmp_path / "named.npz", mean=mean, covariance=covariance, space="a")
    assert Population(tmp_path / "named.npz", 3, "a", True).space == "a"
    with pytest.raises(ValueError, match=r"space: expected 'a', which .*named\.npz is of, got 'b'"):
        Population(tmp_path / "named.npz", 3, "b", True)


def test_selection_keeps_the_first_of_two_lookalikes_and_stops_at_enough():
    axes = np.eye(8, dtype=np.float32)
    candidates = np.stack([axes[0], looking_like(axes[0], 0.8), axes[1], axes[2], axes[3]])
    assert unlike_everyone_kept(candidates, 0.5, wanted=3).tolist() == [0, 2, 3]
    assert unlike_everyone_kept(candidates, 0.5, wanted=100).tolist() == [0, 2, 3, 4]


def test_enrolment_is_the_unit_mean_of_the_found_portraits():
    alice, bob = person(0), person(1)
    faces = photographs_of([alice, bob], photographs=3, cosine=0.7)
    faces = faces_of(faces.chunk, faces.embeddings, found=[True, False, True, True, True, True])
    (alice_id, reference), (bob_id, other) = Enrol(min_found=2)(faces)
    assert (alice_id, bob_id) == (0, 1)
    assert reference == pytest.approx(unit(faces.embeddings[[0, 2]].mean(axis=0)), abs=1e-6)
    assert other == pytest.approx(unit(faces.embeddings[3:].mean(axis=0)), abs=1e-6)


def test_a_person_with_too_few_portraits_is_not_enrolled_and_still_answered_for():
    chunk = chunk_of([person(4), person(2)], 2)
    faces = faces_of(chunk, np.stack([person(4).reference] * 2 + [person(2).reference] * 2), [True, False, True, True])
    enrolled = Enrol(min_found=2)(faces)
    assert [number for number, _ in enrolled] == [4, 2]
    assert enrolled[0][1] is None
    assert enrolled[1][1] == pytest.approx(person(2).reference)


def test_opposed_portraits_are_nobody():
    faces = faces_of(chunk_of([person(0)], 2), np.stack([person(0).reference, -person(0).reference]))
    assert Enrol(min_found=1)(faces) == [(0, None)]


def test_mistakes_name_value_and_expectation(tmp_path, statistics):
    path = statistics[0]
    np.savez(tmp_path / "other.npz", mean=np.zeros(3), covariance=np.zeros((2, 2)))
    np.savez(tmp_path / "nameless.npz", a=np.zeros(3))
    for make, named in [
        (lambda: Sphere(1, "a"), "dimensions: expected at least 2, got 1"),
        (lambda: Sphere(3, ""), "space"),
        (lambda: Population(path, 7, "a", True), "components: expected 1 to 6, got 7"),
        (lambda: Population(path, 1, "", True), "space"),
        (lambda: Population(tmp_path / "nowhere.npz", 1, "a", True), "statistics: expected an .npz file"),
        (
            lambda: Population(tmp_path / "other.npz", 1, "a", True),
            "expected shapes (c,) and (c, c), got (3,) and (2, 2)",
        ),
        (lambda: Population(tmp_path / "nameless.npz", 1, "a", True), "expected arrays mean and covariance"),
        (lambda: fit(np.zeros((1, 3), dtype=np.float32)), "at least 2 rows"),
        (
            lambda: unlike_everyone_kept(np.eye(3, dtype=np.float32), 2.0, 1),
            "max_cosine: expected a value in [-1, 1], got 2.0",
        ),
        (lambda: unlike_everyone_kept(np.eye(3, dtype=np.float32), 0.5, 0), "wanted: expected at least 1, got 0"),
        (lambda: Enrol(0), "min_found: expected at least 1, got 0"),
    ]:
        with pytest.raises(ValueError) as error:
            make()
        assert named in str(error.value)
