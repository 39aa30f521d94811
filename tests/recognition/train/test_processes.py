"""Two processes and one: the same losses, the same checkpoint, each picture once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recognition.train import CHECKPOINT, Pictures, networks, train
from tests.recognition.train import job
from tests.recognition.train.conftest import faces
from tests.recognition.train.job import JOBS, WithoutNorms, run

ROOT = Path(__file__).resolve().parents[3]
TOGETHER = ("norms", "adaface_adamw", "pk")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes came to that were started as torchrun starts them."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    one = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "tests.recognition.train.job", str(folder), *TOGETHER]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | one | {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
        )
        for rank in ("0", "1")
    ]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()
    return folder


def told(folder, name, rank=0):
    return json.loads((folder / f"{name}.{rank}.json").read_text())


def test_all_processes_end_with_the_same_weights(two):
    for name in TOGETHER:
        first, second = told(two, name), told(two, name, 1)
        assert first["ranks"] == 2
        assert first == second


@pytest.mark.parametrize("name", ["adaface_adamw", "pk"])
def test_two_processes_lose_what_one_loses_with_the_same_batch(two, tmp_path, name):
    np.testing.assert_allclose(told(two, name)["losses"], run(tmp_path, name)["losses"], rtol=1e-5)


def test_with_norms_two_processes_are_one_with_two_micro_batches(two, tmp_path):
    """Each part of a batch is normalised by its own statistics, as in arcface_torch: one batch of 16 is another
    training than two of 8, whoever computes them."""
    ours = told(two, "norms")["losses"]
    np.testing.assert_allclose(ours, run(tmp_path, "norms_in_two")["losses"], atol=1e-4)
    assert ours[-1] < ours[0] / 2


def test_micro_batches_are_one_batch_without_norms(tmp_path):
    one, two = (run(tmp_path, name) for name in ("plain", "plain_in_two"))
    np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-6)
    weights = [torch.load(tmp_path / name / CHECKPOINT)["model"]["fc.weight"] for name in ("plain", "plain_in_two")]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


def test_the_checkpoint_of_two_processes_goes_on_in_one(two, tmp_path, monkeypatch):
    """The first two epochs by two processes, the last by one: as all three by either."""
    monkeypatch.setattr(networks, "BACKBONES", {"iresnet_tiny": WithoutNorms})
    saved = torch.load(two / "adaface_adamw" / CHECKPOINT, weights_only=True)
    alone = tmp_path / "alone"
    run(tmp_path, "adaface_adamw")
    other = torch.load(tmp_path / "adaface_adamw" / CHECKPOINT, weights_only=True)
    assert saved.keys() == other.keys()
    for part in ("model", "head"):
        assert saved[part].keys() == other[part].keys()
        for name, value in saved[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=1e-3, atol=1e-5)
    for name, memory in other["optimizer"].items():
        assert {key: value.shape for key, value in memory.items()} == {
            key: value.shape for key, value in saved["optimizer"][name].items()
        }
    # One process takes up what two have written, one epoch before the end.
    recipe = JOBS["adaface_adamw"][1]
    alone.mkdir()
    begun = saved | {"losses": saved["losses"][:-1]}
    torch.save(begun, alone / CHECKPOINT)
    longer = train(Pictures(*faces(5, 10)), recipe, alone, say=lambda line: None)
    assert len(longer.losses) == 3
    assert longer.losses[:2] == tuple(saved["losses"][:2])
    assert longer.losses[2] < saved["losses"][2]  # the last epoch once more, from weights that had it already


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recognition.train.processes.ranks", lambda: 3)
    with pytest.raises(ValueError, match="expected a multiple of 3 processes x 1 micro-batches, got 16"):
        train(Pictures(*faces(5, 10)), job.PLAIN, tmp_path)
    assert not list(tmp_path.iterdir())
