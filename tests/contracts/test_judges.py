import numpy as np
import pytest

from tests.contracts.conftest import build, names
from tests.stages.cast import faces_of, person, photographs_of, write_identities


@pytest.fixture(params=names("judge"))
def judge(request, tmp_path):
    write_identities(tmp_path / "identities.parquet", [person(i) for i in range(4)])
    return build("judge", request.param, tmp_path)


@pytest.fixture
def faces():
    """Good photographs, copies, strangers, and pictures without a face."""
    good = photographs_of([person(0), person(1)], photographs=8, cosine=0.8)
    embeddings = good.embeddings.copy()
    embeddings[1], embeddings[3] = embeddings[0], person(3).reference
    return faces_of(good.chunk, embeddings, found=np.arange(16) % 5 != 4)


def test_it_never_drops_reorders_or_changes_a_face(judge, faces):
    before = {name: getattr(faces, name).copy() for name in ("crops", "landmarks", "embeddings", "norms", "found")}
    verdicts = judge(faces)
    assert verdicts.faces is faces
    assert len(verdicts.reasons) == 16
    assert all(np.array_equal(getattr(faces, name), value) for name, value in before.items())


def test_reasons_are_names_of_rules_and_every_rule_measures_every_face(judge, faces):
    verdicts = judge(faces)
    assert list(verdicts.measured) == list(judge.rules)
    assert set(verdicts.reasons) <= {"", *judge.rules}
    assert all(np.isfinite(measured[faces.found]).all() for measured in verdicts.measured.values())


def test_nothing_without_a_face_is_kept(judge, faces):
    assert "" not in {reason for reason, found in zip(judge(faces).reasons, faces.found, strict=True) if not found}


def test_the_same_faces_get_the_same_verdicts(judge, faces):
    first, second = judge(faces), judge(faces)
    assert first.reasons == second.reasons
    assert all(np.array_equal(first.measured[name], second.measured[name], equal_nan=True) for name in first.measured)
