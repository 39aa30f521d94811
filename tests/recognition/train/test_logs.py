"""What is written of a training, and what is said when a package for it is missing."""

import importlib.util
import json

import pytest

from recognition.train import train
from recognition.train.logs import JSONL, check_log, opened
from tests.recognition.train.conftest import RECIPE


def lines(folder):
    return [json.loads(line) for line in (folder / JSONL).read_text().splitlines()]


def test_a_training_tells_step_loss_rate_norm_and_speed(people, tmp_path):
    trained = train(people, RECIPE, tmp_path)
    told = lines(tmp_path)
    assert [(line["step"], line["epoch"]) for line in told] == [(3, 1), (6, 2)]
    assert set(told[0]) == {"step", "epoch", "loss", "lr", "norm", "gradient", "images_per_s"}
    assert [line["loss"] for line in told] == pytest.approx(trained.losses, rel=1e-5)
    assert told[0]["norm"] == pytest.approx(128**0.5, rel=0.1)  # of the last BatchNorm


def test_what_was_told_of_steps_that_are_taken_again_is_taken_back(tmp_path):
    with opened("none", tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.write(step, 1, loss=1.0)
    with (tmp_path / JSONL).open("a") as file:
        file.write('{"step": 40, "epo')  # killed in the middle of a line
    with opened("none", tmp_path, 20) as log:
        log.write(30, 1, loss=2.0)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(10, 1.0), (20, 1.0), (30, 2.0)]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_and_nothing_is_trained(kind, people, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"log: expected {kind} to be installed \(pip install {kind}\)"):
        train(people, RECIPE, tmp_path, log=kind)
    assert not (tmp_path / JSONL).exists()


def test_an_unknown_log_is_refused():
    with pytest.raises(ValueError, match="log: expected one of none, tensorboard, wandb, got 'paper'"):
        check_log("paper")


def test_tensorboard_reads_what_was_written(people, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(people, RECIPE, tmp_path, log="tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6]
