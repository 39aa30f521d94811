"""The witness's figures, against the same figures over all pairs written down one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.measures import witness


def crowd(people: int = 7, pictures: int = 5, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    ids = rng.permutation(np.repeat(np.arange(people) * 10, pictures))
    centres = dict(zip(range(0, 10 * people, 10), rng.normal(size=(people, 16)), strict=True))
    raw = np.stack([centres[i] for i in ids]) + spread * rng.normal(size=(len(ids), 16))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32), ids


def test_every_figure_is_that_of_all_pairs():
    unit, ids = crowd()
    cosine = np.array([float(unit[i].astype(float) @ unit[j]) for i, j in combinations(range(len(ids)), 2)])
    same = np.array([ids[i] == ids[j] for i, j in combinations(range(len(ids)), 2)])
    figures = witness(unit, ids, "bundled-b-2")
    assert (figures["images"], figures["identities"]) == (35, 7)
    assert (figures["genuine_pairs"], figures["impostor_pairs"]) == (same.sum(), (~same).sum())
    for kind, pairs in (("genuine", cosine[same]), ("impostor", cosine[~same])):
        assert figures[f"{kind}_mean"] == pytest.approx(pairs.mean(), abs=1e-6)
        assert figures[f"{kind}_std"] == pytest.approx(pairs.std(), abs=1e-6)
        assert sum(figures["histogram"][kind]) == len(pairs)
    assert figures["auc_own_vs_other"] == pytest.approx(roc_auc_score(same, cosine), abs=1e-4)


def test_drawn_impostors_are_counted_as_drawn_and_change_no_mean():
    unit, ids = crowd()
    every, drawn = witness(unit, ids, "b"), witness(unit, ids, "b", impostor_limit=400)
    assert (every["impostor_pairs_used"], drawn["impostor_pairs_used"]) == (525, 400)
    assert drawn["impostor_mean"] == every["impostor_mean"]
    assert drawn["auc_own_vs_other"] == pytest.approx(every["auc_own_vs_other"], abs=0.02)
    assert drawn == witness(unit, ids, "b", impostor_limit=400)


def test_people_without_a_second_picture_have_no_figures():
    unit, _ = crowd()
    with pytest.raises(ValueError, match="expected genuine and impostor pairs, got 0 and 595"):
        witness(unit, np.arange(35), "b")
    with pytest.raises(ValueError, match="got 595 and 0"):
        witness(unit, np.zeros(35, np.int64), "b")


def test_raw_embeddings_are_refused():
    unit, ids = crowd()
    with pytest.raises(ValueError, match="expected unit embeddings, got norms from"):
        witness(2 * unit, ids, "b")
