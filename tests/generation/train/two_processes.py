"""Trains in two processes under torchrun: what `train(folder)` of each test module trains, one after the other, since
starting processes takes longer than their trainings.
"""

import importlib
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

from torch import distributed

ROOT = Path(__file__).parents[3]
MODULES = ("test_decoder", "test_distil", "test_generator", "test_tune")


def in_two_processes(folder):
    """Leaves what each module trains in the folder of its name."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__]
    done = subprocess.run([*command, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr


def said_by_both(folder):
    """What the two processes said while they trained into a folder."""
    told = sorted(folder.glob("said_*"))
    assert len(told) == 2
    return "".join(path.read_text() for path in told)


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    for name in MODULES:
        folder = Path(sys.argv[1]) / name
        folder.mkdir(exist_ok=True)
        with (folder / f"said_{distributed.get_rank()}").open("w") as told, redirect_stdout(told):
            importlib.import_module(f"tests.generation.train.{name}").train(folder)
    distributed.destroy_process_group()
