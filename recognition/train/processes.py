"""What the processes of one training have to say to each other, if there are several.

The backbone is the same in all of them, the class centres are dealt out, and each sees its part of every batch. As in
arcface_torch, the running statistics of BatchNorm are each process's own, of its part of the batches; the first
process's are what is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(device: str | None = None) -> Iterator[str]:
    """This process's device; where torchrun has started several, it is joined with the others until the end.

    Args:
        device: cpu or cuda; None: the GPU where there is one, one per process.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() if device is None else device.startswith("cuda")
    mine = f"cuda:{local}" if cuda and device in (None, "cuda") else device or "cpu"
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield mine
        return
    if cuda:
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield mine
    finally:
        dist.destroy_process_group()


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, in each of them."""
    if ranks() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def take_buffers_of_the_first(model: nn.Module) -> None:
    """The first process's running statistics, for all."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wait() -> None:
    """Until all processes are here."""
    if ranks() > 1:
        dist.barrier()


@torch.no_grad()
def clip(shared: list[nn.Parameter], sharded: list[nn.Parameter], most: float) -> Tensor:
    """Scales the gradients of parameters that are the same in all processes, and of those dealt out, to a common norm
    of at most `most` (0: whatever it is). Returns the norm before."""
    own = nn.utils.get_total_norm([p.grad for p in sharded if p.grad is not None])
    common = nn.utils.get_total_norm([p.grad for p in shared if p.grad is not None])
    norm = torch.sqrt(common**2 + summed(own**2).to(common.device))
    if most > 0:
        nn.utils.clip_grads_with_norm_([*shared, *sharded], most, norm)
    return norm
