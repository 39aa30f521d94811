"""A training that is killed, at any moment, goes on to the weights of one that was not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recognition.train import CHECKPOINT
from recognition.train.logs import JSONL
from tests.recognition.train.job import run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, "norms")


@pytest.mark.parametrize("moment", ["2", "writing"])
def test_a_training_killed_in_the_middle_of_an_epoch_ends_with_the_same_weights(whole, tmp_path, moment):
    command = [sys.executable, "-m", "tests.recognition.train.job", str(tmp_path), f"killed={moment}", "norms"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    left = torch.load(tmp_path / "norms" / CHECKPOINT, weights_only=True)
    assert (len(left["losses"]), left["step"]) == ((1, 1) if moment == "2" else (0, 1))
    assert run(tmp_path, "norms") == whole[1]
    lines = [json.loads(line) for line in (tmp_path / "norms" / JSONL).read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 9


def test_two_trainings_with_one_seed_write_one_checkpoint(whole, tmp_path):
    run(tmp_path, "norms")
    files = [folder / "norms" / CHECKPOINT for folder in (whole[0], tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()
