"""Partial FC: class centres spread over processes, and the softmax over all of them or over a sample.

An et al. (2022), https://arxiv.org/abs/2203.15565. Each process holds a contiguous part of the centres. The embeddings
of all processes are gathered, each process computes the logits of its own classes, and of the softmax only three
numbers a face travel: the largest logit, the sum of the exponentials, and the logit of the true class.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from recognition.margins import IGNORED, Margin

_INITIAL_STD = 0.01  # of the centres, as in insightface: only their directions matter


class PartialFC(nn.Module):
    """Class centres and a margin: raw embeddings and labels -> the loss.

    The loss is the mean cross-entropy of all processes' faces, the same number on each of them. With `sample_rate=1`
    it is that of the full softmax, whatever the number of processes. Below 1, each process takes a random part of its
    centres for each step: always those of the batch's own classes, and as many others as make up
    round(sample_rate * count). The others have a gradient of zero; momentum and weight decay move them all the same.

    Cosines, logits and loss are float32 whatever the embeddings are, under autocast, too (float64 if the module is).

    insightface's PartialFC clamps each face's probability at 1e-30 before the logarithm, so that no face's loss exceeds
    69.08, while the gradient is that of the loss without the clamp. Here nothing is clamped: with the largest logit
    taken off first, the loss is finite for all finite logits, it is the function whose gradient is followed, and a
    training that diverges shows how far. Values above 69 therefore differ from insightface's log; weights do not.

    Gradients are those of that global mean. Centres are no process's copy of another's: they are not to be averaged.
    Each process gets the gradient of its own embeddings; a backbone that all processes have a copy of needs the sum of
    their gradients. `DistributedDataParallel` gives the mean: multiply the embeddings' gradient by the number of
    processes there (`embeddings.register_hook`).

    All processes call `forward`, `whole`, `whole_weight` together. They are those of the default group when this is
    made, each with a batch of one size; seeded alike they draw alike, and the first centres do not depend on their
    number.

    Args:
        classes: Number of identities c, at least one for each process.
        dimensions: Length d of the embedding.
        margin: Cosines to logits.
        sample_rate: Share of the centres in a step, in (0, 1].

    Attributes:
        weight: (count, d) this process's centres.
        margin: The margin's module. Its buffers are the same on all processes.
        first: The class of the first of them.
        count: How many they are.
        sampled: How many take part in a step, where the batch's own classes are not more.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, classes: int, dimensions: int, margin: Margin, sample_rate: float = 1.0) -> None:
        super().__init__()
        self.rank, self.processes = _place()
        if classes < self.processes:
            raise ValueError(f"PartialFC.classes: expected at least one for each of {self.processes}, got {classes}")
        if dimensions < 1:
            raise ValueError(f"PartialFC.dimensions: expected at least 1, got {dimensions}")
        if not 0 < sample_rate <= 1:
            raise ValueError(f"PartialFC.sample_rate: expected a value in (0, 1], got {sample_rate}")
        self.classes, self.sample_rate = classes, sample_rate
        self.first, self.count = part_of(classes, self.rank, self.processes)
        self.sampled = max(1, round(sample_rate * self.count))
        self.weight = nn.Parameter(_initial(classes, dimensions, self.first, self.count))
        self.margin = margin.module()

    def forward(self, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]) -> Float[Tensor, ""]:
        """The mean loss over the faces of all processes.

        Raises:
            ValueError: If a label is not a class, or there are other processes than when this was made, or their
                batches differ in size. All processes raise.
        """
        if _place() != (self.rank, self.processes):
            raise ValueError(f"PartialFC: expected rank and processes {(self.rank, self.processes)}, got {_place()}")
        if embeddings.shape[1] != self.weight.shape[1]:
            raise ValueError(f"embeddings: expected length {self.weight.shape[1]}, got {embeddings.shape[1]}")
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._loss(embeddings.to(torch.promote_types(self.weight.dtype, torch.float32)), labels)

    def whole_weight(self) -> Float[Tensor, "c d"]:
        """All centres, on the CPU of each process: what a checkpoint keeps."""
        return self.whole(self.weight.detach())

    @torch.no_grad()
    def load_whole(self, weight: Float[Tensor, "c d"]) -> None:
        """Takes this process's part of all centres.

        Raises:
            ValueError: If there are more or fewer, or they are of another length.
        """
        if weight.shape != (self.classes, self.weight.shape[1]):
            raise ValueError(
                f"weight: expected {self.classes} centres of length {self.weight.shape[1]}, got {tuple(weight.shape)}"
            )
        self.weight.copy_(self.part(weight))

    def whole(self, part: Tensor) -> Tensor:
        """All processes' parts of something with a row for each centre (an optimizer's momentum, say), on the CPU."""
        if self.processes == 1:
            return part.detach().cpu().clone()
        rows = []
        for owner in range(self.processes):  # one after the other: a device holds two parts at most, never the whole
            count = part_of(self.classes, owner, self.processes)[1]
            row = part.detach().contiguous() if owner == self.rank else part.new_empty(count, *part.shape[1:])
            distributed.broadcast(row, owner)
            rows.append(row.cpu())
        return torch.cat(rows)

    def part(self, whole: Tensor) -> Tensor:
        """This process's rows of something with a row for each class."""
        return whole[self.first : self.first + self.count]

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.processes > 1:
            _check_sizes(len(labels), labels.device)
            embeddings, labels = _Gathered.apply(embeddings), _gathered(labels)
        _check_labels(labels, self.classes)
        here = (labels >= self.first) & (labels < self.first + self.count)
        labels = torch.where(here, labels - self.first, IGNORED)
        weight, labels = self._sample(labels)
        norms = embeddings.detach().norm(dim=1)
        logits = self.margin(F.normalize(embeddings) @ F.normalize(weight).T, labels, norms)
        if self.processes == 1:
            return F.cross_entropy(logits, labels)
        return _CrossEntropy.apply(logits, labels)

    def _sample(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The centres of this step, and the labels as their rows."""
        if self.sample_rate == 1:
            return self.weight, labels
        # One number of the global generator whatever the count, so that processes of unlike counts stay in step.
        seed = int(torch.randint(2**62, ()))
        lot = torch.rand(self.count, generator=torch.Generator().manual_seed(seed + self.rank))
        own = labels[labels != IGNORED].unique().cpu()
        lot[own] = 2.0
        chosen = lot.topk(max(self.sampled, len(own))).indices.sort().values.to(labels.device)
        return self.weight[chosen], torch.where(labels == IGNORED, IGNORED, torch.searchsorted(chosen, labels))


class _Gathered(torch.autograd.Function):
    """The rows of all processes. Each has only its classes' share of their gradient: the shares are added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of a softmax whose columns are spread over processes (An et al., 2022, section 3)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        rows = (labels != IGNORED).nonzero().squeeze(1)
        top = logits.amax(1)
        distributed.all_reduce(top, distributed.ReduceOp.MAX)
        shifted = logits - top[:, None]
        total, own = sums = torch.stack([shifted.exp().sum(1), torch.zeros_like(top)])
        own[rows] = shifted[rows, labels[rows]]
        distributed.all_reduce(sums)
        ctx.save_for_backward(logits, top + total.log(), rows, labels)
        return (total.log() - own).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, log_sum, rows, labels = ctx.saved_tensors
        slope = (logits - log_sum[:, None]).exp()  # softmax minus one-hot
        slope[rows, labels[rows]] -= 1
        return slope * (gradient / len(slope)), None


def part_of(classes: int, rank: int, processes: int) -> tuple[int, int]:
    """First class and number of classes of a process: even parts, the first ones larger by one if need be."""
    size, over = divmod(classes, processes)
    return size * rank + min(rank, over), size + (rank < over)


def _place() -> tuple[int, int]:
    """Rank and number of processes."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _gathered(rows: Tensor) -> Tensor:
    out = rows.new_empty(len(rows) * distributed.get_world_size(), *rows.shape[1:])
    distributed.all_gather_into_tensor(out, rows.contiguous())
    return out


def _check_sizes(size: int, device: torch.device) -> None:
    """Batches of unlike sizes would be gathered as something else, or for ever."""
    sizes = _gathered(torch.tensor([size], device=device)).tolist()
    if min(sizes) != max(sizes):
        raise ValueError(f"PartialFC: expected batches of one size on all processes, got {sizes}")


def _check_labels(labels: Tensor, classes: int) -> None:
    if not len(labels):
        raise ValueError("labels: expected at least one, got an empty batch")
    least, most = torch.stack([labels.min(), labels.max()]).tolist()
    if least < 0 or most >= classes:
        raise ValueError(f"labels: expected values in [0, {classes}), got some from {least} to {most}")


def _initial(classes: int, dimensions: int, first: int, count: int, block: int = 4096) -> Tensor:
    """Rows of the matrix that `torch.empty(classes, dimensions).normal_()` draws, without ever holding all of it.

    A block has a multiple of 16 numbers, by which torch draws normal ones; the last block takes what is left over, so
    that it is no shorter: the numbers are those of one draw.
    """
    starts = range(0, max(1, classes // block) * block, block)
    mine = torch.empty(count, dimensions, device="cpu")
    for start, end in zip(starts, [*starts[1:], classes], strict=True):
        rows = torch.empty(end - start, dimensions, device="cpu").normal_(0.0, _INITIAL_STD)
        low, high = max(start, first), min(end, first + count)
        if low < high:
            mine[low - first : high - first] = rows[low - start : high - start]
    return mine
