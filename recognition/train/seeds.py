"""Where every random number of a training comes from: the recipe's seed and the place in the training, nothing else.

So there is no random state to keep: a training that goes on in the middle of an epoch draws what it would have drawn.
The place is (epoch, step, unit), where the units of a step are the micro-batches of all processes: two processes draw
what one with two micro-batches draws.
"""

from __future__ import annotations

import numpy as np
import torch

AUGMENT, DROPOUT, HEAD = 1, 2, 3  # streams of a unit; the head's is the same in all processes
CYCLE, PEOPLE, PARTS, BUFFER = 4, 5, 6, 7  # streams of an epoch


def epoch_seed(seed: int, epoch: int, *path: int) -> int:
    """63 bits for an epoch, from 0, and a place in it. numpy pads with zeros, so a path must not end in one."""
    return int(np.random.SeedSequence([seed, epoch, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def unit_seed(seed: int, epoch: int, step: int, unit: int, stream: int) -> int:
    return epoch_seed(seed, epoch, step, unit, stream)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
