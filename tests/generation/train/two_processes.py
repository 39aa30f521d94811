"""What `test_two_processes_learn_what_one_does` starts under torchrun: the small training, in the folder given."""

import sys
from pathlib import Path

from torch import distributed

from generation.train.generator import train_generator
from tests.generation.small import NARROW
from tests.generation.train.test_generator import DATA, RECIPE

if __name__ == "__main__":
    distributed.init_process_group("gloo")
    train_generator(DATA, NARROW, RECIPE, Path(sys.argv[1]))
    distributed.destroy_process_group()
