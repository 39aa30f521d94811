"""Measures of a generator, against the same figures written down pair by pair, or known in closed form."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from benchmarks import generators as g
from benchmarks.report.generator import bar_table, markdown, sheet, verdict, write_generator_page


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def crowd(people: int, pictures: int, spread: float, seed: int, dimensions: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings about a centre each, and whose they are, in no order."""
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.arange(people), pictures))
    centres = rng.normal(size=(people, dimensions))
    return unit(centres[owners] + spread * rng.normal(size=(len(owners), dimensions))), owners


crowds = st.tuples(st.integers(2, 8), st.integers(2, 6), st.floats(0.1, 3.0), st.integers(0, 10**6))


@settings(max_examples=25, deadline=None)
@given(crowds)
def test_own_versus_other_is_what_every_pair_says(drawn: tuple[int, int, float, int]) -> None:
    probes, owners = crowd(*drawn)
    references = unit(np.random.default_rng(9).normal(size=(drawn[0], 12)))
    said = g.own_versus_other(probes, owners, references)
    pairs = [(float(p @ r), o == i) for p, o in zip(probes, owners, strict=True) for i, r in enumerate(references)]
    cosine, same = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    assert said["auc"] == pytest.approx(roc_auc_score(same, cosine), abs=1e-9)
    assert said["own_mean"] == pytest.approx(cosine[same].mean())
    assert said["other_std"] == pytest.approx(cosine[~same].std())
    assert sum(said["histogram"]["other"]) == (~same).sum()
    hits = [np.argmax([p @ r for r in references]) == o for p, o in zip(probes, owners, strict=True)]
    assert said["rank1"] == pytest.approx(np.mean(hits))


def test_a_tie_for_the_nearest_person_is_no_hit() -> None:
    references = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert g.own_versus_other(np.array([[1.0, 0.0]]), np.array([0]), references)["rank1"] == 0.0


@settings(max_examples=25, deadline=None)
@given(crowds)
def test_enrolment_and_probes_share_no_picture_and_every_person_has_both(drawn: tuple[int, int, float, int]) -> None:
    _, owners = crowd(*drawn)
    owners = np.append(owners, 99)  # who has one picture
    enrolled, probing = g.enrolment_split(owners)
    assert not (enrolled & probing).any()
    assert not enrolled[-1]
    assert not probing[-1]
    for person in range(drawn[0]):
        mine = np.flatnonzero(owners == person)
        assert np.flatnonzero(enrolled & (owners == person)).tolist() == mine[: drawn[1] // 2].tolist()
        assert np.flatnonzero(probing & (owners == person)).tolist() == mine[drawn[1] // 2 :].tolist()


def test_among_themselves_people_are_known_by_the_first_half_of_their_pictures() -> None:
    rows, owners = crowd(5, 4, 0.8, 1)
    of = np.stack([np.flatnonzero(owners == person) for person in range(5)])
    first, rest = of[:, :2].ravel(), of[:, 2:].ravel()
    references = unit(rows[first].reshape(5, 2, 12).mean(1))
    expected = g.own_versus_other(rows[rest], owners[rest], references)
    said = g.among_themselves(rows, owners)
    assert (said["auc"], said["rank1"]) == pytest.approx((expected["auc"], expected["rank1"]))
    assert said["people"] == 5


@settings(max_examples=25, deadline=None)
@given(crowds)
def test_within_people_counts_every_pair_of_a_person_once(drawn: tuple[int, int, float, int]) -> None:
    rows, owners = crowd(*drawn)
    said = g.within_people(rows, owners)
    pairs = [float(rows[i] @ rows[j]) for i in range(len(rows)) for j in range(i) if owners[i] == owners[j]]
    assert said["pairs"] == len(pairs)
    assert said["mean_cosine"] == pytest.approx(np.mean(pairs))
    assert said["std_cosine"] == pytest.approx(np.std(pairs), abs=1e-9)
    assert said["mean_distance"] == pytest.approx(1 - np.mean(pairs))
    assert said["mean_distance_of_people"]["mean"] == pytest.approx(1 - np.mean(pairs))  # as many pairs each


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40), st.integers(2, 6), st.integers(0, 10**6))
def test_frechet_is_the_formula_with_a_general_matrix_root(n: int, m: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n + dimensions, dimensions)) @ rng.normal(size=(dimensions, dimensions))
    b = rng.normal(1, 2, size=(m + dimensions, dimensions))
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(ca @ cb).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root)
    assert g.frechet(a, b) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert g.frechet(b, a) == pytest.approx(g.frechet(a, b), rel=1e-6, abs=1e-9)
    assert g.frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_the_floor_is_of_as_many_pictures_and_other_people() -> None:
    renders, owners = crowd(40, 5, 0.5, 2)
    strange = unit(renders + np.array([3.0] + [0.0] * 11))
    said = g.frechet_beside_floor(strange[:150], owners[:150], renders, owners)
    assert said["pictures"] == (owners[:150] % 2 == 0).sum()
    even, odd = renders[owners % 2 == 0][: said["pictures"]], renders[owners % 2 == 1][: said["pictures"]]
    assert said["renders"] == pytest.approx(g.frechet(even, odd))
    assert said["generated"] > 3 * said["renders"]


def test_a_copy_is_found_among_the_pictures_learnt() -> None:
    training, _ = crowd(60, 10, 1.0, 3)
    held_out, _ = crowd(60, 10, 1.0, 4)
    honest, _ = crowd(60, 10, 1.0, 5)
    copies = np.concatenate([honest[:540], training[:60]])
    assert np.allclose(g.nearest(training[:7], training, block=3), 1, atol=1e-6)
    said = g.memorisation(copies, held_out, training)
    assert said["above"] == pytest.approx(0.1, abs=0.01)
    assert said["generated"]["max"] == pytest.approx(1, abs=1e-6)
    assert g.memorisation(honest, held_out, training)["above"] < 0.01
    assert said["limit"] == pytest.approx(np.quantile(g.nearest(held_out, training), 0.999))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40))
def test_rank_correlation_and_median_error_are_scipys(pairs: list[tuple[int, int]]) -> None:
    asked, seen = np.array(pairs, float).T
    said = g.asked_versus_seen(asked, seen)
    assert said["median_error"] == np.median(np.abs(asked - seen))
    if np.ptp(asked) and np.ptp(seen):
        assert said["spearman"] == pytest.approx(scipy.stats.spearmanr(asked, seen).statistic)
    else:
        assert said["spearman"] is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_styles_count_alike_however_rare(pairs: list[tuple[int, int]]) -> None:
    asked, seen = np.array(pairs).T
    said = g.styles_seen(asked, seen)
    assert said["accuracy"] == pytest.approx((asked == seen).mean())
    assert said["balanced_accuracy"] == pytest.approx(
        np.mean([(seen[asked == style] == style).mean() for style in set(asked.tolist())])
    )
    if set(seen.tolist()) <= set(asked.tolist()):
        assert said["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(asked, seen))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=60))
def test_entropy_is_that_of_the_bins(values: list[float]) -> None:
    counts = np.histogram(np.clip(values, -2, 2), 16, (-2, 2))[0]
    assert g.entropy_bits(np.array(values), -2, 2) == pytest.approx(scipy.stats.entropy(counts, base=2), abs=1e-9)


def test_evenly_spread_values_have_all_the_bits_there_are() -> None:
    assert g.entropy_bits(np.linspace(-1, 1, 1600), -1, 1) == pytest.approx(4.0, abs=1e-3)
    assert g.entropy_bits(np.full(9, 0.3), -1, 1) == 0.0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: g.own_versus_other(np.eye(3), np.arange(3), np.eye(3)[:1]), "at least two people, got 3 and 1"),
        (lambda: g.own_versus_other(np.eye(3), np.arange(1, 4), np.eye(3)), "expected owners from 0 to 2, got 1 to 3"),
        (lambda: g.own_versus_other(2 * np.eye(3), np.arange(3), np.eye(3)), "expected unit embeddings"),
        (lambda: g.templates(np.eye(3), np.zeros(3, int), 2), "for each of 2 people, got none for 1"),
        (lambda: g.within_people(np.eye(3), np.arange(3)), "expected somebody with two pictures, got nobody"),
        (lambda: g.among_themselves(np.eye(3), np.array([0, 0, 1])), "two people with two pictures each, got 1"),
        (lambda: g.frechet(np.eye(3)[:1], np.eye(3)), "first: expected at least 2 rows"),
        (lambda: g.frechet(np.eye(3), np.full((2, 3), np.nan)), "second: expected at least 2 rows of finite numbers"),
        (lambda: g.asked_versus_seen(np.zeros(1), np.array([np.inf])), "as many finite numbers asked as seen"),
        (lambda: g.styles_seen(np.zeros(0, int), np.zeros(0, int)), "as many styles asked as seen, got 0 and 0"),
        (lambda: g.entropy_bits(np.zeros(3), 1, 1), "expected low < high"),
        (lambda: sheet(np.zeros((1, 2, 4, 4, 3), np.uint8), ["one"]), "titles: expected one for each of 2 columns"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()  # type: ignore[operator]


def evaluation() -> dict[str, object]:
    rows, owners = crowd(6, 8, 0.5, 1)
    view = g.own_versus_other(rows, owners, g.templates(rows, owners, 6))
    both = {"generated": view, "renders": dict(view)}
    within = g.within_people(rows, owners)
    attribute = {"pictures": 48, "median_error": 3.0, "spearman": 0.9, "entropy_bits": 2.0}
    kept = {
        "people": 6, "people_enrolled": 6, "people_unlike": 6, "pictures": 48, "kept": 45, "share": 45 / 48,
        "reasons": {"own_identity": 3},
    }  # fmt: skip
    names = ("yaw_deg", "smile", "age_years", "light_azimuth_deg")
    steps = [
        {"steps": s, "people": 6, "pictures": 48, "workers": 2, "images_per_s": 200 / s, "auc": 1 - 0.1 / s,
         "rank1": 0.9, "within": 0.5, "yaw_median_error": 4.0, "smile_spearman": 0.8,
         "age_spearman": None, "light_spearman": 0.7}
        for s in (1, 2, 4)
    ]  # fmt: skip
    about = {
        "name": "<toy>", "date": "2026-01-01", "command": "facemint evaluate", "hardware": "2 cores", "people": 6,
        "source": "unseen people", "pictures_per_person": 8, "seed": 0, "witness_space": "b", "judge_space": "a",
        "config": "a: 1", "no_steps": "",
    }  # fmt: skip
    return {
        "about": about,
        "identity": {
            "asked": both, "among": both, "within": {"generated": within, "renders": dict(within)},
            "frechet": {"pictures": 24, "generated": 0.1, "renders": 0.05},
            "memorisation": g.memorisation(rows, rows, rows),
        },
        "attributes": {name: {"generated": attribute, "renders": attribute} for name in names},
        "styles": {"hat": {kind: {"pictures": 48, "accuracy": 0.9, "balanced_accuracy": 0.8} for kind in both}},
        "yield": dict.fromkeys(both, kept),
        "speed": {"pictures": 48, "workers": 2, "images_per_s": 31.0},
        "steps": steps,
    }  # fmt: skip


def test_every_bar_stands_for_its_own_figure() -> None:
    """Each is moved to just below and just above what is asked, and no other bar changes."""
    said = evaluation()
    path_of = [
        (("identity", "asked", "generated", "auc"), 0.995, "least"),
        (("identity", "asked", "generated", "rank1"), 0.8, "least"),
        (("yield", "generated", "share"), 0.8, "least"),
        (("attributes", "yaw_deg", "generated", "median_error"), 8.0, "most"),
        (("attributes", "smile", "generated", "spearman"), 0.8, "least"),
        (("attributes", "age_years", "generated", "spearman"), 0.8, "least"),
        (("attributes", "light_azimuth_deg", "generated", "spearman"), 0.8, "least"),
    ]
    assert len(g.bars(said)) == len(path_of) + 1
    for place, (path, limit, side) in enumerate(path_of):
        for shift in (-1e-6, 1e-6):
            changed = copy.deepcopy(said)
            part = changed
            for key in path[:-1]:
                part = part[key]  # type: ignore[assignment,index]
            part[path[-1]] = limit + shift  # type: ignore[index]
            assert g.bars(changed)[place].passed is ((shift > 0) == (side == "least")), path
    for mean, passed in ((0.0, True), (0.069, True), (-0.069, True), (0.071, False), (-0.071, False)):
        changed = copy.deepcopy(said)
        within = changed["identity"]["within"]  # type: ignore[index]
        within["generated"]["mean_cosine"] = within["renders"]["mean_cosine"] + mean
        assert g.bars(changed)[-1].passed is passed


def test_without_the_truth_identity_is_told_among_generated_pictures() -> None:
    said = evaluation()
    said["identity"]["asked"] = None  # type: ignore[index]
    assert "among generated pictures" in g.bars(said)[0].name


def test_an_attribute_that_was_not_asked_for_is_not_measured_and_does_not_pass() -> None:
    said = evaluation()
    del said["attributes"]["smile"]  # type: ignore[attr-defined]
    smile = g.bars(said)[4]
    assert (smile.value, smile.passed) == (None, None)
    assert "not measured: smile: rank correlation" in verdict(g.bars(said))


def test_page_table_and_markdown_tell_the_bars_and_escape_what_they_are_given(tmp_path) -> None:
    said = evaluation()
    png = sheet(np.zeros((2, 3, 8, 8, 3), np.uint8), ["a", "b", "c"])
    write_generator_page(tmp_path / "page.html", said, {"attributes": png, "beside": png})
    page, text = (tmp_path / "page.html").read_text(), markdown(said)
    assert "<toy>" not in page
    assert "&lt;toy&gt;" in page
    assert page.count("<polyline") == 4
    for bar in g.bars(said):
        assert bar.name in text
    assert "| yield of the judge | 0.938 | ≥ 0.8 | pass | 0.938 |" in text
    assert bar_table(said).row_count == len(g.bars(said))
    assert "\n\n\n" not in text
