"""Identification: held against sorting all cosines."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.identification import NOBODY, closed_set, open_set


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def faces():
    """200 probes of 50 people in a gallery of two pictures each among 300 distractors, and 400 probes of others."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 16))
    people = np.repeat(np.arange(50), 2)
    gallery = unit(np.concatenate([centres[people] + rng.normal(0, 0.9, (100, 16)), rng.normal(size=(300, 16))]))
    of_probes = np.repeat(np.arange(50), 4)
    probes = unit(centres[of_probes] + rng.normal(0, 0.9, (200, 16)))
    return gallery, np.append(people, [NOBODY] * 300), probes, of_probes, unit(rng.normal(size=(400, 16)))


def test_rank_k_is_whether_the_person_is_among_the_k_nearest(faces):
    gallery, people, probes, of_probes, _ = faces
    order = np.argsort(-(probes.astype(np.float32) @ gallery.astype(np.float32).T), axis=1)
    told = closed_set(gallery, people, probes, of_probes)
    for k in (1, 5, 20):
        assert told[f"rank_{k}"] == (people[order[:, :k]] == of_probes[:, None]).any(axis=1).mean()
        low, high = told[f"rank_{k}_interval95"]
        assert low < told[f"rank_{k}"] < high
    assert (told["gallery"], told["probes"]) == (400, 200)


def test_a_probe_of_somebody_who_is_not_enrolled_has_no_rank(faces):
    gallery, people, probes, of_probes, _ = faces
    with pytest.raises(ValueError, match="got 200 of which 4 are not"):
        closed_set(gallery[2:], people[2:], probes, of_probes)
    with pytest.raises(ValueError, match="got 1 of which 1 are not"):
        closed_set(gallery, people, probes[:1], np.array([NOBODY]))


def test_a_hit_is_the_right_person_above_what_others_reach(faces):
    gallery, people, probes, of_probes, others = faces
    everybody, names = np.concatenate([probes, others]), np.append(of_probes, np.full(400, 999))
    first, second, third = open_set(gallery, people, everybody, names)
    cosine = everybody.astype(np.float32) @ gallery.astype(np.float32).T
    top, who = cosine.max(axis=1), people[cosine.argmax(axis=1)]
    threshold = np.sort(top[200:])[::-1][40]  # 40 of 400 may pass
    assert first["false_identifications"] == 40
    assert first["fpir"] == 0.1
    assert first["tpir"] == pytest.approx(((who == names) & (top > threshold))[:200].mean())
    assert second["tpir"] is None
    assert second["reason"].startswith("insufficient data: 400 probes of others have 4 false identifications")
    assert third["tpir"] is None


def test_nobody_enrolled_is_refused(faces):
    gallery, people, probes, *_ = faces
    with pytest.raises(ValueError, match="expected probes of people who are in the gallery, got none"):
        open_set(gallery, people, probes, np.full(200, 999))
