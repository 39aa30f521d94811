"""Trains in two processes under torchrun: what `train(folder)` of a test module trains."""

import importlib
import subprocess
import sys
from pathlib import Path

from torch import distributed

ROOT = Path(__file__).parents[3]


def in_two_processes(module, folder):
    """What the two of them said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__]
    done = subprocess.run(
        [*command, module, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    importlib.import_module(sys.argv[1]).train(Path(sys.argv[2]))
    distributed.destroy_process_group()
