"""Which pictures make up each batch of an epoch: a matrix of rows, the same in every process.

"shuffled" is a permutation, cut into batches. "pk" is P people x K pictures (Hermans et al., 2017, section 2,
https://arxiv.org/abs/1703.07737), exact: P different people in every batch, K pictures of each side by side, and no
picture of a person twice before all of that person were there once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from recognition.train.recipe import Recipe
from recognition.train.schedule import steps_per_epoch
from recognition.train.seeds import CYCLE, epoch_seed, generator


@dataclass(frozen=True)
class Share:
    """Which part of every step's batch is this process's.

    Attributes:
        rank: Of this process.
        ranks: Processes.
        accumulate: Micro-batches that each process makes of its part.
    """

    rank: int = 0
    ranks: int = 1
    accumulate: int = 1

    @property
    def units(self) -> int:
        """Equal parts of a batch: the micro-batches of all processes."""
        return self.ranks * self.accumulate

    def unit(self, micro: int) -> int:
        """Number of this process's micro-batch among all units of the step."""
        return micro * self.ranks + self.rank

    def size(self, batch: int) -> int:
        """Pictures in a unit of a batch; what makes no whole picture for every unit is left out."""
        return batch // self.units

    def rows(self, batch: Int64[np.ndarray, " b"], micro: int) -> Int64[np.ndarray, " u"]:
        """This process's rows of a batch, in memory order."""
        size, unit = self.size(len(batch)), self.unit(micro)
        return np.sort(batch[unit * size : (unit + 1) * size])

    def check(self, recipe: Recipe, images: int) -> None:
        """Raises ValueError unless every unit of a batch gets as many pictures as the others.

        At least 2, since BatchNorm can do nothing with one. Fewer pictures than a batch are one smaller batch.

        Args:
            recipe: With the batch that is shared out.
            images: Pictures in the set.
        """
        units = f"{self.ranks} processes x {self.accumulate} micro-batches"
        whole = images // self.units * self.units
        batch = recipe.batch_size if recipe.batches == "pk" else min(recipe.batch_size, whole)
        if batch % self.units:
            raise ValueError(f"batch_size: expected a multiple of {units}, got {batch}")
        if batch < 2 * self.units:
            raise ValueError(f"batch_size: expected at least 2 pictures for each of {units}, got {batch} of {images}")


def shrunk(recipe: Recipe, images: int) -> list[str]:
    """A line where a set is smaller than a batch, which then is all of it."""
    if images >= recipe.batch_size or recipe.batches == "pk":
        return []
    return [f"batches: {images} pictures are one batch, smaller than the batch_size of {recipe.batch_size}"]


@dataclass(frozen=True)
class PkReport:
    """What an epoch of P x K batches does with a set.

    Attributes:
        people: People in all.
        short: People of fewer than K pictures, of whom some pictures come twice in a batch.
        left_out: Groups of K pictures of the epoch that found no batch of P different people.
    """

    people: int
    short: int
    left_out: int

    def __str__(self) -> str:
        told = f"{self.short} of {self.people} people have fewer pictures than a batch shows of a person: some repeat"
        return f"{told}; {self.left_out} groups of pictures found no batch" if self.left_out else told


def epoch_order(labels: Int64[np.ndarray, " n"], recipe: Recipe, epoch: int) -> Int64[np.ndarray, "steps batch"]:
    """Rows of every batch of an epoch, from 0.

    Raises:
        ValueError: If "pk" cannot be done: fewer people than a batch shows, or people of too few pictures where the
            recipe refuses them.
    """
    if recipe.batches == "pk":
        return pk_order(labels, recipe, epoch)[0]
    order = torch.randperm(len(labels), generator=generator(epoch_seed(recipe.seed, epoch))).numpy()
    steps = steps_per_epoch(len(labels), recipe)
    batch = min(recipe.batch_size, len(labels))
    return order[: steps * batch].reshape(steps, batch)


def steps_of(labels: Int64[np.ndarray, " n"], recipe: Recipe) -> int:
    """Steps of an epoch, which the schedule counts by; in P x K batches an epoch may fall short of it by a few."""
    if recipe.batches == "pk":
        k = recipe.pictures_per_person
        return max(1, int((-(-np.bincount(labels) // k)).sum()) * k // recipe.batch_size)
    return steps_per_epoch(len(labels), recipe)


def pk_order(
    labels: Int64[np.ndarray, " n"], recipe: Recipe, epoch: int
) -> tuple[Int64[np.ndarray, "steps batch"], PkReport]:
    """Rows of every P x K batch of an epoch, and what had to be done to the set for it.

    A person of n pictures is shown in ceil(n / K) groups: every picture once, and as many a second time as fill the
    last group. The groups of people are spread over the epoch; those that are left when fewer than P people have any
    are left out of it.

    Raises:
        ValueError: As `epoch_order`.
    """
    k, p = recipe.pictures_per_person, recipe.batch_size // recipe.pictures_per_person
    counts = np.bincount(labels)
    short = int((counts < k).sum())
    if len(counts) < p:
        raise ValueError(f"batches: expected at least {p} people for batches of {p} x {k} pictures, got {len(counts)}")
    if short and recipe.few_pictures == "refuse":
        raise ValueError(f"batches: expected at least {k} pictures of everybody, got fewer of {short} people")
    rng = np.random.default_rng([recipe.seed, epoch, CYCLE])
    groups = _groups(labels, counts, k, rng)
    people = _spread(-(-counts // k), rng)
    batches, left_out = _dealt(people, p)
    if not batches:
        raise ValueError(f"batches: expected {p} people in every batch, got a set where {p} never have pictures left")
    rows = np.array([[groups[person].popleft() for person in batch] for batch in batches], np.int64)
    return rows.reshape(-1, p * k), PkReport(len(counts), short, left_out)


def _groups(labels: np.ndarray, counts: np.ndarray, k: int, rng: np.random.Generator) -> list[deque[np.ndarray]]:
    """The groups of K pictures of everybody, in a random order of the pictures."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return [deque(_filled(own, k).reshape(-1, k)) for own in np.split(order, np.cumsum(counts)[:-1])]


def _filled(own: np.ndarray, k: int) -> np.ndarray:
    """A person's rows, with as many from the front again as fill the last group: in a group of their own only if the
    person has fewer than K."""
    missing = -len(own) % k
    return np.concatenate([own, np.resize(own, missing)])


def _spread(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everybody's number as often as they have groups, spread evenly over the epoch, in a random order otherwise."""
    rounds = int(groups.max())
    person = np.repeat(np.arange(len(groups)), groups)
    turn = np.arange(len(person)) - np.repeat(np.cumsum(groups) - groups, groups)
    place = np.floor((turn + rng.random(len(groups))[person]) * rounds / groups[person])
    return person[np.lexsort((rng.random(len(person)), place))]


def _dealt(people: np.ndarray, p: int) -> tuple[list[list[int]], int]:
    """Batches of P different people, in the order given as far as can be; and how many entries are left over."""
    batches: list[list[int]] = []
    batch: dict[int, None] = {}
    waiting: deque[int] = deque()
    for person in people.tolist():
        if person in batch:
            waiting.append(person)
        else:
            batch[person] = None
        if len(batch) == p:
            batches.append(list(batch))
            batch, waiting = _begun(waiting, p)
            while len(batch) == p:
                batches.append(list(batch))
                batch, waiting = _begun(waiting, p)
    return batches, len(people) - p * len(batches)


def _begun(waiting: deque[int], p: int) -> tuple[dict[int, None], deque[int]]:
    """A batch of those who wait, and who still waits."""
    batch: dict[int, None] = {}
    still: deque[int] = deque()
    for person in waiting:
        if person in batch or len(batch) == p:
            still.append(person)
        else:
            batch[person] = None
    return batch, still
