"""`make weights` in small: every part of it, on models that have learnt nothing."""

import dataclasses
import json

import pytest

from generation.train import DetectorRecipe
from generation.weights import bundled
from pipeline.weights import WeightsRecipe, make_weights

FULL = WeightsRecipe()
SMALL = dataclasses.replace(
    FULL,
    people=25,
    pictures=2,
    detector_people=25,
    held_out=25,
    protocol_pairs=20,
    detector=DetectorRecipe(steps=2, batch_size=10, checkpoint_every=1, precision="fp32", threads=1),
    embedder_a=dataclasses.replace(FULL.embedder_a, epochs=2, batch_size=25),
    embedder_b=dataclasses.replace(FULL.embedder_b, epochs=2, batch_size=25),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out")
    make_weights(out, work, SMALL, device="cpu", say=lambda _: None)
    return work, out


def test_the_files_are_listed_with_the_hashes_that_they_have(made):
    _, out = made
    for name, space in (("detector", ""), ("embedder_a", "bundled-a-1"), ("embedder_b", "bundled-b-1")):
        weights = bundled(name, out)
        assert weights.verify().stat().st_size > 100_000
        assert weights.space == space


def test_the_card_tells_recipe_hashes_and_every_score(made):
    work, out = made
    card = (out / "CARD.md").read_text()
    scores = json.loads((work / "scores.json").read_text())
    for entry in json.loads((out / "weights.json").read_text()).values():
        assert entry["sha256"] in card
    for name in ("embedder_a", "embedder_b"):
        assert len(scores[name]["protocols"]) == 5
        for protocol, score in scores[name]["protocols"].items():
            assert protocol in card
            assert f"{100 * score['accuracy']:.2f}" in card
    assert f"{scores['detector']['wild']['mean_error_px']:.2f}" in card
    assert "25 people x 2 photographs" in card


def test_what_is_there_is_not_made_again(made):
    work, out = made
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.np*")} | {
        path: path.stat().st_mtime_ns for path in work.glob("*.onnx")
    }
    assert before
    make_weights(out, work, SMALL, device="cpu", say=lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_work_of_another_recipe_is_refused(made):
    work, out = made
    with pytest.raises(ValueError, match='"people": 26'):
        make_weights(out, work, dataclasses.replace(SMALL, people=26), device="cpu", say=lambda _: None)
