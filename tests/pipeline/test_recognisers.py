"""Several recognisers of a run, a seed each: trained once, gone on with where they stopped, and scored together."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import steps
from pipeline.protocols import WorldProtocols
from pipeline.rundir import RunDir
from pipeline.runners.local import Local
from pipeline.steps.train import seed_of
from recognition.train import Recipe
from stages.embed.bundled import Bundled

RECIPE = partial(Recipe, epochs=2, warmup_epochs=0, batch_size=8, precision="fp32", seed=5, threads=1)


@pytest.fixture(scope="module")
def trained(reference: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The small order with itself as its control, each learnt from with two seeds. Not to be written to."""
    run = RunDir(shutil.copytree(reference.root, tmp_path_factory.mktemp("trained") / "run"))
    shutil.copytree(reference.root, run.control.root)
    steps.train(run, RECIPE, "a test", recognisers=2, anew=False)
    return run


def told(run: RunDir, number: int) -> dict:
    return json.loads((run.model(number) / "model.json").read_text())


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*")}


def test_every_seed_is_a_recogniser_of_its_own_and_the_controls_have_the_same(trained: RunDir) -> None:
    assert [told(trained, number)["seed"] for number in (0, 1)] == [5, seed_of(5, 1)]
    assert seed_of(5, 1) not in {5, seed_of(5, 2), seed_of(6, 1)}
    assert told(trained, 0)["weights_sha256"] != told(trained, 1)["weights_sha256"]
    for number in (0, 1):  # the control is the same pictures here, so the same seed is the same recogniser
        assert told(trained, number)["weights_sha256"] == told(trained.control, number)["weights_sha256"]
        assert (trained.control.model(number) / "recogniser.onnx").exists()


def test_the_device_is_said(trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"  # a run takes the GPU where there is one
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    shutil.rmtree(run.control.root)
    steps.train(run, partial(RECIPE, epochs=1), "another test", recognisers=1, anew=False)
    images = told(run, 0)["images"]
    assert f"train on {device}: {images} of {images} pictures" in capsys.readouterr().out
    assert told(run, 0)["device"] == told(trained, 0)["device"] == device


def test_a_finished_seed_is_not_trained_again_and_another_is_added(trained: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    shutil.rmtree(run.control.root)
    shutil.rmtree(run.model(1))
    before = stamps(run.model())
    steps.train(run, RECIPE, "a test", recognisers=2, anew=False)
    assert stamps(run.model()) == before
    assert told(run, 1) == told(trained, 1)


def test_a_seed_that_was_cut_short_goes_on_to_the_same_weights(trained: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    shutil.rmtree(run.control.root)
    (run.model(1) / "model.json").unlink()  # stopped after its last epoch, before it was said to be whole
    before = stamps(run.model(1))[run.model(1) / "checkpoint.pt"]
    steps.train(run, RECIPE, "a test", recognisers=2, anew=False)
    assert stamps(run.model(1))[run.model(1) / "checkpoint.pt"] == before  # not an epoch of it was trained again
    assert told(run, 1) == told(trained, 1)


def test_another_recipe_trains_every_seed_again(trained: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    shutil.rmtree(run.control.root)
    steps.train(run, partial(RECIPE, epochs=1), "another test", recognisers=2, anew=False)
    assert [len(told(run, number)["losses"]) for number in (0, 1)] == [1, 1]


def test_seeds_are_scored_together_and_one_by_one_with_a_verdict(
    trained: RunDir, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    protocols = partial(WorldProtocols, ["wild"], pairs=20)
    witness = partial(Bundled, "bundled-b-2", weights=str(weights))
    steps.verify(run, protocols, witness, "a witness", 100, 2, Local(), anew=False)
    scores = json.loads(run.scores.read_text())
    ours = scores["recogniser"]
    assert [one["seed"] for one in ours["seeds"]] == [5, seed_of(5, 1)]
    one_by_one = [one["protocols"]["wild"]["accuracy"] for one in ours["seeds"]]
    assert ours["protocols"]["wild"]["accuracy"] == pytest.approx(np.mean(one_by_one))
    assert steps.mean_accuracy(run) == pytest.approx(np.mean(one_by_one))
    assert scores["verdict"]["by_seed"] == [0.0, 0.0]  # the control is the dataset itself
    assert "dataset and control not distinguishable: gap of +0.00 points [+0.00, +0.00], 2 seeds" in (
        capsys.readouterr().out
    )
    steps.verify(run, protocols, witness, "a witness", 100, 1, Local(), anew=False)
    alone = json.loads(run.scores.read_text())
    assert alone["verdict"] is None
    assert alone["recogniser"]["protocols"] == ours["seeds"][0]["protocols"]


def test_a_seed_that_was_never_trained_is_named(trained: RunDir, weights: Path) -> None:
    witness = partial(Bundled, "bundled-b-2", weights=str(weights))
    with pytest.raises(ValueError, match=r"expected .*/model_2/model\.json, which the step train writes"):
        steps.verify(trained, partial(WorldProtocols, ["wild"]), witness, "", 100, 3, Local(), anew=False)
