"""What a denoiser is trained on, and what a step draws of it: by the step's number, alike on all processes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from generation.diffusion import DenoiserShape
from generation.train.loop import rng_of_step
from generation.train.recipe import at_least, within

TIMES = 1000  # of the noise schedule


@dataclass(frozen=True, eq=False)
class Photographs:
    """What the denoiser is trained on. Rows are pictures.

    Attributes:
        latents: Normalised, of the autoencoder.
        vectors: Unit vectors of the embedder that conditions.
        attributes: In the order of the shape's controls.
        labels: Whose picture it is.
        sources: Rows whose vector may stand for the person in another picture: found, sharp, turned little.
        to_crop: What aligns each picture (`objectives.placed`); needed by whoever looks at faces in them.
        circumstances: As the shape counts them; None for a shape that is told none.
    """

    latents: Float[np.ndarray, "n c h w"]
    vectors: Float32[np.ndarray, "n d"]
    attributes: Float32[np.ndarray, "n a"]
    labels: Int64[np.ndarray, " n"]
    sources: Int64[np.ndarray, " s"]
    to_crop: Float32[np.ndarray, "n 2 3"] | None = None
    circumstances: Float[np.ndarray, "n m"] | None = None


class Others:
    """Picks other pictures of a person as the source of its vector, of those that are usable as one."""

    def __init__(self, labels: Int64[np.ndarray, " n"], sources: Int64[np.ndarray, " s"]) -> None:
        rows = np.unique(sources)
        self._rows = rows[np.argsort(labels[rows], kind="stable")]  # person after person
        self._labels = labels
        self._place = np.full(len(labels), -1)
        self._place[self._rows] = np.arange(len(self._rows))

    def of(
        self, rows: Int64[np.ndarray, " b"], chance: Float[np.ndarray, " b"], after: int = 0
    ) -> Int64[np.ndarray, " b"]:
        """For each row another usable row of its person, evenly by a number in [0, 1); itself if there is none.

        Args:
            after: How many others come between that one and the one that is returned, round the person's.
        """
        people = self._labels[rows]
        ordered = self._labels[self._rows]
        first, end = np.searchsorted(ordered, people), np.searchsorted(ordered, people, side="right")
        own = self._place[rows]
        count = end - first - (own >= 0)
        there = count > 0
        picked = first + ((chance.astype(np.float64) * count).astype(np.int64) + after) % np.maximum(count, 1)
        picked += (own >= 0) & (picked >= own)
        return np.where(there, self._rows[np.where(there, picked, 0)] if len(self._rows) else rows, rows)

    def mean_of(
        self,
        vectors: Float32[np.ndarray, "n d"],
        rows: Int64[np.ndarray, " b"],
        chance: Float[np.ndarray, " b"],
        most: int,
    ) -> Float32[np.ndarray, "b d"]:
        """For each row the unit mean of the vectors of others of its person, of `most` if there are so many.

        Where there are fewer, all are taken, some of them twice: as many times as another, or once more.
        """
        chosen = [vectors[self.of(rows, chance, after)] for after in range(most)]
        mean = np.mean(chosen, 0, dtype=np.float64)
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)


@dataclass(eq=False)
class Batch:
    """One process's part of a step's draw; what is random in the step is in here.

    Attributes:
        rows: Of the pictures, in the data.
        vectors: Of the people asked for.
        own: Of the very pictures.
        strangers: Of other people in the batch, as sources are.
        fate: Of each component of the projected identity, in [0, 1): below p, partial dropout drops it.
        uniform: Two numbers in [0, 1) for whoever draws more.
        to_crop: What aligns the pictures.
        circumstances: NaN in rows whose attributes are all left open; no columns where none are told.
    """

    rows: Int64[np.ndarray, " b"]
    latents: Float[Tensor, "b c h w"]
    noise: Float[Tensor, "b c h w"]
    timesteps: Int64[Tensor, " b"]
    vectors: Float[Tensor, "b d"]
    own: Float[Tensor, "b d"]
    attributes: Float[Tensor, "b a"]
    asked: Bool[Tensor, "b a"]
    someone: Bool[Tensor, " b"]
    fate: Float[Tensor, "b k"]
    uniform: Float[Tensor, "b 2"]
    strangers: Float[Tensor, "b d"]
    to_crop: Float[Tensor, "b 2 3"]
    circumstances: Float[Tensor, "b n"]

    def every(self, stride: int) -> Batch:
        """One row in so many, from the first one on."""
        return Batch(*(getattr(self, field.name)[::stride] for field in fields(self)))


@runtime_checkable
class Draws(Protocol):
    """A recipe that says how batches are drawn."""

    @property
    def batch_size(self) -> int: ...
    @property
    def identity_open(self) -> float: ...
    @property
    def attributes_open(self) -> float: ...
    @property
    def attribute_open(self) -> float: ...
    @property
    def cross_pairs(self) -> float: ...
    @property
    def cross_mean(self) -> int: ...
    @property
    def seed(self) -> int: ...


def check_draws(recipe: Draws) -> None:
    """Raises ValueError for the first share that is none."""
    within(recipe, "0 to 1", lambda share: 0 <= share <= 1, "identity_open", "attributes_open", "cross_pairs")
    within(recipe, "0 to 0.5", lambda share: 0 <= share <= 0.5, "attribute_open")
    at_least(recipe, 1, "cross_mean")


def check_circumstances(data: Photographs, shape: DenoiserShape) -> None:
    """Raises ValueError if the data do not tell the circumstances that the shape is told."""
    told = 0 if data.circumstances is None else data.circumstances.shape[1]
    if told != shape.circumstances:
        raise ValueError(f"circumstances: expected {shape.circumstances} numbers of each picture, got {told}")


def draw(
    data: Photographs,
    others: Others,
    recipe: Draws,
    shape: DenoiserShape,
    step: int,
    rank: int,
    ranks: int,
    device: str,
) -> Batch:
    """The batch of a step, by its number alone; each process takes its part of the same draw."""
    rng = rng_of_step(recipe.seed, step)
    size = recipe.batch_size
    rows = torch.randint(0, len(data.latents), (size,), generator=rng)
    uniform = torch.rand(size, 8, generator=rng)
    asked = torch.rand(size, len(shape.controls), generator=rng) >= 2 * recipe.attribute_open * uniform[:, :1]
    described = uniform[:, 1:2] >= recipe.attributes_open
    asked &= described
    someone = uniform[:, 2] >= recipe.identity_open
    fate = torch.rand(size, shape.context_width, generator=rng)
    # One time in each of `size` equal parts: less noise in the gradient (Kingma et al., 2021, appendix I.1).
    timesteps = ((torch.randperm(size, generator=rng) + uniform[:, 3]) / size * TIMES).long().clamp(0, TIMES - 1)
    noise = torch.randn(size, shape.latent_channels, shape.latent_size, shape.latent_size, generator=rng)
    chosen = rows.numpy()
    crossed = uniform[:, 4].numpy() < recipe.cross_pairs
    vectors = data.vectors[chosen]
    vectors[crossed] = others.mean_of(data.vectors, chosen[crossed], uniform[:, 5].numpy()[crossed], recipe.cross_mean)
    part = slice(rank * size // ranks, (rank + 1) * size // ranks)
    mine = chosen[part]
    to_crop = np.tile(np.eye(2, 3, dtype=np.float32), (len(mine), 1, 1)) if data.to_crop is None else data.to_crop[mine]
    tensors = (
        torch.from_numpy(data.latents[mine].astype(np.float32)),
        noise[part],
        timesteps[part],
        torch.from_numpy(vectors[part]),
        torch.from_numpy(data.vectors[mine]),
        torch.from_numpy(data.attributes[mine]),
        asked[part],
        someone[part],
        fate[part],
        uniform[part, 6:],
        torch.from_numpy(vectors[_of_another_person(data.labels[chosen])[part]]),
        torch.from_numpy(to_crop),
        torch.where(described[part], circumstances_at(data, mine), torch.nan),
    )
    return Batch(mine, *[_sent(tensor, device) for tensor in tensors])


def circumstances_at(data: Photographs, rows: Int64[np.ndarray, " b"]) -> Float[Tensor, "b k"]:
    """Of some rows; no columns where none are told."""
    if data.circumstances is None:
        return torch.zeros(len(rows), 0)
    return torch.from_numpy(data.circumstances[rows].astype(np.float32))


def _of_another_person(labels: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
    """For each row the next one, round the batch, of somebody else; itself if all are of one person."""
    other = np.arange(len(labels))
    for ahead in range(len(labels) - 1, 0, -1):  # the nearest is written last
        candidate = (np.arange(len(labels)) + ahead) % len(labels)
        other = np.where(labels[candidate] != labels, candidate, other)
    return other


def _sent(tensor: Tensor, device: str) -> Tensor:
    """On the device; from pinned memory, so that a GPU need not wait for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
