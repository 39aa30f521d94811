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


def test_a_training_killed_in_the_middle_of_an_epoch_ends_with_the_same_weights(whole, tmp_path):
    command = [sys.executable, "-m", "tests.recognition.train.job", str(tmp_path), "killed", "norms"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=250)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    left = torch.load(tmp_path / "norms" / CHECKPOINT, weights_only=True)
    assert (len(left["losses"]), left["step"]) == (1, 1)
    assert run(tmp_path, "norms") == whole[1]
    lines = [json.loads(line) for line in (tmp_path / "norms" / JSONL).read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 9


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("write", [0, 4])
def test_a_power_cut_while_a_checkpoint_is_written_leaves_the_one_before(whole, tmp_path, monkeypatch, write):
    save, written = torch.save, []

    def half(saved, file):
        if len(written) == write:
            file.write(b"half of it")
            raise PowerCutError
        written.append(saved["step"])
        save(saved, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(PowerCutError):
            run(tmp_path, "norms", checkpoint_steps=1)
    assert (tmp_path / "norms" / CHECKPOINT).exists() == (write > 0)
    assert run(tmp_path, "norms") == whole[1]


def test_two_trainings_with_one_seed_write_one_checkpoint(whole, tmp_path):
    run(tmp_path, "norms")
    files = [folder / "norms" / CHECKPOINT for folder in (whole[0], tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()
