"""The regressor made from nothing, in small, and put beside the other weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from generation.regressor import NUMBERS
from generation.train.regressor import RegressorRecipe, drawn_block
from generation.weights import bundled
from generation.world.scenes import training_attributes
from pipeline.weights.regressor import RegressorOrder, make_regressor, publish_regressor, whole_pictures

SMALL = RegressorOrder(
    people=50,
    pictures=1,
    held_out=50,
    other_people=25,
    training=RegressorRecipe(steps=2, batch_size=4, checkpoint_every=1, precision="fp32", threads=1),
)
STREAM = 7_001


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders of other people, joined as `make weights` joins them; the pictures are noise."""
    folder = tmp_path_factory.mktemp("renders")
    table = drawn_block(STREAM, 2026, 0, 2, training_attributes)[1]
    for name in ("pictures", "crops"):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).integers(0, 255, (50, 112, 112, 3), np.uint8))
    np.save(folder / "labels.npy", np.repeat(np.arange(25), 2))
    np.save(folder / "yaw_deg.npy", table[:, 0])
    return folder


def test_attributes_that_renders_did_not_keep_are_drawn_again(renders: Path) -> None:
    table = drawn_block(STREAM, 2026, 0, 2, training_attributes)[1]
    assert np.array_equal(whole_pictures(renders, STREAM, SMALL).attributes, table)
    with pytest.raises(ValueError, match="expected photographs as stream 7002 draws them"):
        whole_pictures(renders, 7_002, SMALL)


def test_it_is_trained_scored_and_published_once(renders: Path, tmp_path: Path) -> None:
    order = dataclasses.replace(SMALL, held_out=25)
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    (out / "weights.json").write_text('{"detector": {"file": "d", "sha256": "", "space": "", "dimensions": 0}}')
    (out / "CARD.md").write_text("# The bundled models\n\n## Recipe\n\nlong\n")
    scores = make_regressor(work, renders, STREAM, order, say=lambda _: None)
    assert set(scores["whole"]) >= set(NUMBERS)  # the last block is of whole pictures
    assert scores["whole"]["yaw_deg"]["pictures"] == 25
    before = (work / "regressor.onnx").stat().st_mtime_ns
    assert make_regressor(work, renders, STREAM, order, say=lambda _: None) == scores
    assert (work / "regressor.onnx").stat().st_mtime_ns == before

    told = json.loads((work / "scores.json").read_text())
    told["held_out"]["close_up"] = told["held_out"]["whole"]
    (work / "scores.json").write_text(json.dumps(told))
    publish_regressor(work, out)
    publish_regressor(work, out)
    assert bundled("regressor", out).verify() == out / "regressor.onnx"
    assert bundled("detector", out).path.name == "d"
    card = (out / "CARD.md").read_text()
    assert card.count("## The regressor") == 1
    assert card.startswith("# The bundled models\n\n## Recipe\n\nlong\n")
    assert f"| yaw_deg | {scores['whole']['yaw_deg']['median_error']:.3g} |" in card
