import numpy as np
import pytest

from stages.judge import Judge
from stages.judge.rules import FaceFound, NearDuplicate, NearestOther, OwnIdentity
from tests.stages.cast import chunk_of, faces_of, looking_like, person, photographs_of, unit, write_identities

ALICE, BOB = person(0), person(1)


def judged(rules, embeddings, people=(ALICE,), found=None):
    chunk = chunk_of(people, len(embeddings) // len(people))
    return Judge(rules)(faces_of(chunk, np.stack(embeddings), found))


def test_a_photo_of_bob_is_rejected_as_own_identity():
    assert judged({"own_identity": OwnIdentity(min_cosine=0.5)}, [BOB.reference]).reasons == ("own_identity",)


def test_own_identity_is_a_window_and_measures_the_cosine():
    looks = [looking_like(ALICE.reference, cosine) for cosine in (0.2, 0.6, 0.97)]
    verdicts = judged({"own_identity": OwnIdentity(0.5, 0.9)}, looks)
    assert verdicts.reasons == ("own_identity", "", "own_identity")
    assert verdicts.measured["own_identity"] == pytest.approx([0.2, 0.6, 0.97], abs=1e-6)


def test_a_perfect_copy_passes_a_window_that_ends_at_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        looks = unit(rng.standard_normal(16))
        alice = type(ALICE)(0, looks[:3], looks)
        assert judged({"own_identity": OwnIdentity(0.5, 1.0)}, [looks], [alice]).reasons == ("",)


def test_an_image_without_a_face_is_rejected_as_face_found_and_measured_by_nothing_else(tmp_path):
    write_identities(tmp_path / "identities.parquet", [ALICE, BOB])
    rules = {
        "face_found": FaceFound(),
        "own_identity": OwnIdentity(0.5),
        "nearest_other": NearestOther(0.5, tmp_path / "identities.parquet"),
        "near_duplicate": NearDuplicate(0.99),
    }
    verdicts = judged(rules, [ALICE.reference] * 2, found=[False, True])
    assert verdicts.reasons == ("face_found", "")
    assert verdicts.measured["face_found"].tolist() == [0, 1]
    assert all(np.isnan(verdicts.measured[name][0]) for name in rules if name != "face_found")
    assert not any(np.isnan(measured[1]) for measured in verdicts.measured.values())


def test_an_image_without_a_face_is_never_kept_even_where_nobody_asks_for_a_face():
    assert judged({"near_duplicate": NearDuplicate(0.9)}, [ALICE.reference], found=[False]).reasons == (
        "near_duplicate",
    )


def test_the_reason_is_the_first_rule_that_failed_and_every_rule_still_measures():
    rules = {"own_identity": OwnIdentity(0.5), "near_duplicate": NearDuplicate(0.9)}
    verdicts = judged(rules, [BOB.reference, BOB.reference])
    assert verdicts.reasons == ("own_identity", "own_identity")
    assert verdicts.measured["near_duplicate"].tolist() == [-1, 1]
    assert judged(dict(reversed(rules.items())), [BOB.reference, BOB.reference]).reasons == (
        "own_identity",
        "near_duplicate",
    )


def test_nearest_other_finds_the_lookalike_in_another_chunk_and_not_the_person_itself(tmp_path):
    carol = person(5)
    write_identities(tmp_path / "identities.parquet", [carol, BOB, ALICE])
    looks = [ALICE.reference, looking_like(carol.reference, 0.8)]
    verdicts = judged({"nearest_other": NearestOther(0.5, tmp_path / "identities.parquet")}, looks)
    assert verdicts.reasons == ("", "nearest_other")
    assert verdicts.measured["nearest_other"] == pytest.approx([0.0, 0.8], abs=1e-6)


def test_nearest_other_equals_brute_force(tmp_path):
    rng = np.random.default_rng(1)
    people = [type(ALICE)(i, v[:3], v) for i, v in enumerate(unit(rng.standard_normal((40, 16))))]
    write_identities(tmp_path / "identities.parquet", people)
    faces = photographs_of(people[10:14], photographs=5, cosine=0.6)
    measured, _ = NearestOther(0.5, tmp_path / "identities.parquet")(faces)
    for row, face, cosine in zip(faces.chunk.variations, faces.embeddings, measured, strict=True):
        assert cosine == pytest.approx(
            max(face @ one.reference for one in people if one.id != row.identity_id), abs=1e-6
        )


def test_of_two_copies_the_first_stays_and_people_are_not_compared_with_each_other():
    looks = [looking_like(ALICE.reference, 0.6, seed) for seed in (1, 1, 2)]
    verdicts = judged({"near_duplicate": NearDuplicate(0.95)}, [*looks, *looks], people=[ALICE, BOB])
    assert verdicts.reasons == ("", "near_duplicate", "") * 2


def test_a_rejected_copy_does_not_reject_what_only_resembles_it():
    """A chain: the second is close to the first, the third to the second alone."""
    first, aside = np.eye(16, dtype=np.float32)[:2]
    turned = [np.cos(angle) * first + np.sin(angle) * aside for angle in (0.0, 0.3, 0.6)]
    assert judged({"near_duplicate": NearDuplicate(np.cos(0.4).item())}, turned).reasons == ("", "near_duplicate", "")


def test_rows_in_are_rows_out_in_order_and_untouched():
    faces = photographs_of([ALICE, BOB], photographs=4)
    verdicts = Judge({"face_found": FaceFound(), "own_identity": OwnIdentity(0.95)})(faces)
    assert verdicts.faces is faces
    assert len(verdicts.reasons) == 8
    assert all(len(measured) == 8 for measured in verdicts.measured.values())


def test_a_face_is_judged_alike_in_whatever_chunk_its_person_is(tmp_path):
    people = [person(i) for i in range(6)]
    write_identities(tmp_path / "identities.parquet", people)
    judge = Judge(
        {
            "own_identity": OwnIdentity(0.5),
            "o": NearestOther(0.4, tmp_path / "identities.parquet"),
            "d": NearDuplicate(0.9),
        }
    )
    together = judge(photographs_of(people, 5, cosine=0.8))
    alone = [judge(photographs_of([one], 5, cosine=0.8)) for one in people]
    assert together.reasons == tuple(reason for verdicts in alone for reason in verdicts.reasons)


class NaNEverywhere:
    def __call__(self, faces):
        return np.full(len(faces.found), np.nan, dtype=np.float32), faces.found


def test_a_rule_that_measures_nothing_of_a_face_is_a_mistake():
    with pytest.raises(
        ValueError, match="rule broken: expected a number for every face that was found, got NaN for 000000_000"
    ):
        judged({"broken": NaNEverywhere()}, [ALICE.reference])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Judge({}), "rules: expected at least one rule"),
        (lambda: Judge({"": FaceFound()}), "rules: expected a name"),
        (lambda: OwnIdentity(0.9, 0.2), "expected -1 <= min_cosine <= max_cosine <= 1, got 0.9, 0.2"),
        (lambda: OwnIdentity(float("nan")), "min_cosine"),
        (lambda: NearestOther(1.5, "x"), "max_cosine: expected a number in [-1, 1], got 1.5"),
        (lambda: NearDuplicate(-2), "max_cosine"),
    ],
)
def test_mistakes_name_value_and_expectation(make, named):
    with pytest.raises(ValueError) as error:
        make()
    assert named in str(error.value)


def test_a_table_that_is_missing_too_small_or_of_other_people_is_named(tmp_path):
    faces = photographs_of([person(3)])
    with pytest.raises(ValueError, match=r"identities: expected the run's identities.parquet, got .*nowhere"):
        NearestOther(0.5, tmp_path / "nowhere")(faces)
    write_identities(tmp_path / "few", [ALICE])
    with pytest.raises(ValueError, match="at least 2 people"):
        NearestOther(0.5, tmp_path / "few")(faces)
    write_identities(tmp_path / "others", [ALICE, BOB])
    with pytest.raises(ValueError, match=r"found no \[3\]"):
        NearestOther(0.5, tmp_path / "others")(faces)
