"""What one of several processes does for test_partial_fc.py: a module of its own, so that it can be spawned."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from recognition.margins import CosFace, Margin
from recognition.partial_fc import PartialFC

CLASSES, DIMENSIONS, BATCH = 7, 5, 8  # 7 classes are 4 and 3 on two processes
STEPS = 2  # the second one sees the first one's statistics


ALL = (0, 6, 3, 4, 2, 2, 5, 1)  # labels of both parts
FEW = (0, 0, 6, 6, 0, 6, 6, 6)


def batch(step: int, labels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Raw embeddings of all processes, of very unlike lengths, and their labels."""
    generator = torch.Generator().manual_seed(step)
    lengths = torch.linspace(0.5, 60, BATCH)[:, None]
    embeddings = torch.randn(BATCH, DIMENSIONS, generator=generator) * lengths
    return embeddings, torch.tensor(labels).roll(step)


def steps(
    margin: Margin,
    rank: int = 0,
    processes: int = 1,
    sample_rate: float = 1.0,
    labels: tuple[int, ...] = ALL,
) -> dict[str, Any]:
    """Two steps' losses and gradients as this process has them, and what a checkpoint would keep."""
    torch.manual_seed(0)
    head = PartialFC(CLASSES, DIMENSIONS, margin, sample_rate)
    told: dict[str, Any] = {"initial": head.whole_weight(), "loss": [], "embeddings": [], "centres": []}
    for step in range(STEPS):
        embeddings, own = (rows.chunk(processes)[rank] for rows in batch(step, labels))
        embeddings = embeddings.clone().requires_grad_()
        head.weight.grad = None
        loss = head(embeddings, own)
        loss.backward()
        told["loss"].append(loss.item())
        told["embeddings"].append(embeddings.grad)
        told["centres"].append(head.whole(head.weight.grad))
    return told | {"margin": dict(head.margin.named_buffers()), "first": head.first, "count": head.count}


def fault(call: Any) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def refused(rank: int) -> dict[str, str]:
    """What a process says to batches that do not belong together."""
    made_here = PartialFC(CLASSES, DIMENSIONS, CosFace())
    embeddings, labels = torch.ones(4, DIMENSIONS), torch.tensor([0, 1, 2, 3])
    return {
        "sizes": fault(lambda: made_here(embeddings[rank:], labels[rank:])),
        "labels": fault(lambda: made_here(embeddings, labels + 4 * rank)),
        "classes": fault(lambda: PartialFC(1, DIMENSIONS, CosFace())),
    }


def one_of(rank: int, processes: int, folder: Path, margins: list[Margin]) -> None:
    """Runs everything as process `rank`, and leaves what it found in the folder."""
    torch.set_num_threads(1)
    alone = PartialFC(CLASSES, DIMENSIONS, margins[0])
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=processes, timeout=timedelta(seconds=60)
    )
    told: dict[str, Any] = {str(margin): steps(margin, rank, processes) for margin in margins}
    told["sampled"] = steps(margins[0], rank, processes, sample_rate=0.5, labels=FEW)
    told["refused"] = refused(rank)
    told["refused"]["made before"] = fault(lambda: alone(torch.ones(2, DIMENSIONS), torch.tensor([0, 1])))
    torch.manual_seed(rank)
    head = PartialFC(CLASSES, DIMENSIONS, margins[0])
    whole = torch.arange(CLASSES * DIMENSIONS).float().reshape(CLASSES, DIMENSIONS)
    head.load_whole(whole)
    told["mine"], told["loaded"] = head.weight.detach(), head.whole_weight()
    told["momentum"] = head.whole(nn.init.constant_(torch.empty(head.count, 2), rank))
    torch.save(told, folder / f"{rank}.pt")
    distributed.destroy_process_group()
