"""Training of the denoiser on cached latents: seeded by step, resumable, on one process or several (torchrun)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from generation import objectives
from generation.diffusion import PREDICTIONS, Denoiser, DenoiserShape, alpha_bars
from generation.train.loop import Averaged, Say, rank_and_ranks, rng_of_step
from generation.train.recipe import at_least, check_steps, one_of, within

TIMES = 1000  # of the noise schedule
IDENTITY_TERMS = ("none", "cosine", "triplet")


@dataclass(frozen=True, eq=False)
class Photographs:
    """What the denoiser is trained on. Rows are pictures.

    Attributes:
        latents: Normalised, of the autoencoder.
        vectors: Unit vectors of the embedder that conditions.
        attributes: In the order of the shape's controls.
        labels: Whose picture it is.
        sources: Rows whose vector may stand for the person in another picture: found, sharp, turned little.
        to_crop: What aligns each picture (`objectives.placed`); needed by an identity term alone.
    """

    latents: Float[np.ndarray, "n c h w"]
    vectors: Float32[np.ndarray, "n d"]
    attributes: Float32[np.ndarray, "n a"]
    labels: Int64[np.ndarray, " n"]
    sources: Int64[np.ndarray, " s"]
    to_crop: Float32[np.ndarray, "n 2 3"] | None = None


@dataclass(frozen=True, eq=False)
class Mirror:
    """Who is seen in latents, differentiably: pictures decoded, aligned, embedded.

    Attributes:
        decode: Latents -> pictures in [-1, 1]; the autoencoder's `decode`.
        embed: Aligned crops in [-1, 1] -> vectors of the space that conditions, of any length.
    """

    decode: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]

    def __call__(self, latents: Float[Tensor, "b c h w"], to_crop: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b d"]:
        pictures = self.decode(latents.contiguous(memory_format=torch.channels_last)).float()
        return self.embed(objectives.placed(pictures, to_crop)).float()


@dataclass(frozen=True)
class GeneratorRecipe:
    """How the denoiser is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step, of all processes together.
        peak_lr: AdamW's learning rate at its highest.
        warmup_steps: Steps until then; a cosine leads down to a twentieth from there.
        prediction: "v" or "epsilon".
        min_snr_gamma: Of the min-SNR weights; 0 for weights of 1.
        partial_dropout: Share p of the projected identity's components that are dropped (IDiff-Face).
        identity_open: Share of rows whose identity is left open.
        attributes_open: Share of rows whose attributes are all left open.
        attribute_open: Chance of each attribute of the other rows to be left open; drawn per row from 0 to twice this.
        cross_pairs: Share of rows whose vector is of another picture of the person (CrossFaceID).
        ema_decay: Of the average that is kept.
        seed: Of weights, batches, noise and dropout.
        precision: "bf16" (autocast) or "fp32".
        threads: Threads of torch in each process.
        checkpoint_every: Steps.
        identity_term: "none", "cosine" (1 - cosine of the face in the decoded x0 estimate and the vector asked for) or
            "triplet" (ID-Booth: nearer to it than to somebody else in the batch).
        identity_weight: Of that term, in the loss.
        identity_below: The term is left out of rows at or above this share of T, in (0, 1]: estimates made of noise
            show no face, and decoding takes time.
        identity_above: It is left out of rows below this share of T, too: who they show is seen in them already.
        identity_power: Of the weight (1 - t / T)^power; 2 in ID-Booth, 0 for all times alike.
    Raises:
        ValueError: If a value is out of range or unknown.
    """

    steps: int = 6000
    batch_size: int = 48
    peak_lr: float = 9e-4
    warmup_steps: int = 150
    prediction: str = "v"
    min_snr_gamma: float = 0.0
    partial_dropout: float = 0.0
    identity_open: float = 0.1
    attributes_open: float = 0.1
    attribute_open: float = 0.1
    cross_pairs: float = 0.5
    ema_decay: float = 0.998
    weight_decay: float = 0.01
    seed: int = 31
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 250
    identity_term: str = "cosine"
    identity_weight: float = 0.5
    identity_below: float = 0.7
    identity_above: float = 0.2
    identity_power: float = 0.0

    def __post_init__(self) -> None:
        check_steps(self)
        check_draws(self)
        one_of(self, PREDICTIONS, "prediction")
        one_of(self, IDENTITY_TERMS, "identity_term")
        at_least(self, 0, "min_snr_gamma", "identity_weight", "identity_power")
        within(self, "more than 0, at most 1", lambda share: 0 < share <= 1, "identity_below")
        within(self, "0 to less than identity_below", lambda share: 0 <= share < self.identity_below, "identity_above")


CHECKPOINT = "denoiser.pt"


def train_generator(
    data: Photographs,
    shape: DenoiserShape,
    recipe: GeneratorRecipe,
    folder: Path,
    say: Say = print,
    look: Callable[[Denoiser, int], None] | None = None,
    device: str = "cpu",
    start: Path | None = None,
    mirror: Mirror | None = None,
) -> Denoiser:
    """Trains the denoiser, going on from `folder/denoiser.pt` where there is one. Returns the average in eval mode.

    Where torch.distributed is initialised, every process takes its part of every batch, and the first keeps and says.

    Args:
        look: Called after every step with the average and the number of steps done, by the first process.
        device: Of this process.
        start: Another training's checkpoint, whose average is where this one begins.
        mirror: What an identity term looks with.
    Raises:
        ValueError: If the loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe;
            if the data do not fit the shape or the recipe; if the processes cannot share a batch evenly.
    """
    _check(data, shape, recipe, mirror)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = Denoiser(shape)
    if start is not None:
        model.load_state_dict(torch.load(start, weights_only=True, map_location="cpu")["average"])
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bars, others, (rank, ranks) = alpha_bars(recipe.prediction).to(device), Others(data), rank_and_ranks()
    seen_by = None if recipe.identity_term == "none" else mirror

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = draw(data, others, recipe, shape, step, rank, ranks, device)
        return {"loss": _loss(model, seen_by, batch, recipe, bars)}

    return Averaged("generator", model, recipe, folder / CHECKPOINT).run(losses_of, say, look)


def _check(data: Photographs, shape: DenoiserShape, recipe: GeneratorRecipe, mirror: Mirror | None) -> None:
    wanted = {
        "latents": (len(data.labels), shape.latent_channels, shape.latent_size, shape.latent_size),
        "vectors": (len(data.labels), shape.identity_dimensions),
        "attributes": (len(data.labels), len(shape.controls)),
    }
    for name, expected in wanted.items():
        if getattr(data, name).shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {getattr(data, name).shape}")
    if recipe.identity_term != "none" and (mirror is None or data.to_crop is None):
        raise ValueError(f"identity_term: expected a mirror and to_crop for {recipe.identity_term!r}, got none")
    if recipe.identity_term == "triplet" and len(np.unique(data.labels)) < 2:
        raise ValueError("identity_term: expected pictures of at least 2 people for 'triplet', got 1")


class Others:
    """Picks another picture of a person as the source of its vector."""

    def __init__(self, data: Photographs) -> None:
        usable = np.zeros(len(data.labels), bool)
        usable[data.sources] = True
        rows = np.flatnonzero(usable)
        self._rows = rows[np.argsort(data.labels[rows], kind="stable")]  # person after person
        self._labels = data.labels
        self._place = np.full(len(data.labels), -1)
        self._place[self._rows] = np.arange(len(self._rows))

    def of(self, rows: Int64[np.ndarray, " b"], chance: Float[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """For each row another usable row of its person, evenly by a number in [0, 1); itself if there is none."""
        people = self._labels[rows]
        ordered = self._labels[self._rows]
        first, end = np.searchsorted(ordered, people), np.searchsorted(ordered, people, side="right")
        own = self._place[rows]
        count = end - first - (own >= 0)
        picked = first + (chance.astype(np.float64) * count).astype(np.int64)
        picked += (own >= 0) & (picked >= own)
        there = count > 0
        return np.where(there, self._rows[np.where(there, picked, 0)] if len(self._rows) else rows, rows)


@dataclass(eq=False)
class Batch:
    """One process's part of a step's draw; what is random in the step is in here.

    Attributes:
        vectors: Of the people asked for.
        strangers: Of other people in the batch, as sources are.
        kept: Which components of the projected identity partial dropout keeps.
        uniform: Two numbers in [0, 1) for whoever draws more.
        to_crop: What aligns the pictures.
    """

    latents: Float[Tensor, "b c h w"]
    noise: Float[Tensor, "b c h w"]
    timesteps: Int64[Tensor, " b"]
    vectors: Float[Tensor, "b d"]
    attributes: Float[Tensor, "b a"]
    asked: Bool[Tensor, "b a"]
    someone: Bool[Tensor, " b"]
    kept: Bool[Tensor, "b k"]
    uniform: Float[Tensor, "b 2"]
    strangers: Float[Tensor, "b d"]
    to_crop: Float[Tensor, "b 2 3"]


@runtime_checkable
class Draws(Protocol):
    """A recipe that says how batches are drawn."""

    @property
    def batch_size(self) -> int: ...
    @property
    def partial_dropout(self) -> float: ...
    @property
    def identity_open(self) -> float: ...
    @property
    def attributes_open(self) -> float: ...
    @property
    def attribute_open(self) -> float: ...
    @property
    def cross_pairs(self) -> float: ...
    @property
    def seed(self) -> int: ...


def check_draws(recipe: Draws) -> None:
    """Raises ValueError for the first share that is none."""
    within(recipe, "0 to 1", lambda share: 0 <= share <= 1, "identity_open", "attributes_open", "cross_pairs")
    within(recipe, "0 to less than 1", lambda share: 0 <= share < 1, "partial_dropout")
    within(recipe, "0 to 0.5", lambda share: 0 <= share <= 0.5, "attribute_open")


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
    asked &= uniform[:, 1:2] >= recipe.attributes_open
    someone = uniform[:, 2] >= recipe.identity_open
    kept = torch.rand(size, shape.context_width, generator=rng) >= recipe.partial_dropout
    # One time in each of `size` equal parts: less noise in the gradient (Kingma et al., 2021, appendix I.1).
    timesteps = ((torch.randperm(size, generator=rng) + uniform[:, 3]) / size * TIMES).long().clamp(0, TIMES - 1)
    noise = torch.randn(size, shape.latent_channels, shape.latent_size, shape.latent_size, generator=rng)
    chosen = rows.numpy()
    crossed = uniform[:, 4].numpy() < recipe.cross_pairs
    sources = np.where(crossed, others.of(chosen, uniform[:, 5].numpy()), chosen)
    part = slice(rank * size // ranks, (rank + 1) * size // ranks)
    mine = chosen[part]
    to_crop = np.tile(np.eye(2, 3, dtype=np.float32), (len(mine), 1, 1)) if data.to_crop is None else data.to_crop[mine]
    tensors = (
        torch.from_numpy(data.latents[mine].astype(np.float32)),
        noise[part],
        timesteps[part],
        torch.from_numpy(data.vectors[sources[part]]),
        torch.from_numpy(data.attributes[mine]),
        asked[part],
        someone[part],
        kept[part],
        uniform[part, 6:],
        torch.from_numpy(data.vectors[sources[_of_another_person(data.labels[chosen])[part]]]),
        torch.from_numpy(to_crop),
    )
    return Batch(*[_sent(tensor, device) for tensor in tensors])


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


def _loss(
    model: Denoiser, mirror: Mirror | None, batch: Batch, recipe: GeneratorRecipe, bars: Float[Tensor, " t"]
) -> Float[Tensor, ""]:
    """Of the prediction and, where there is a mirror to look with, of who is seen in the picture it implies."""
    bar = bars[batch.timesteps]
    noisy = objectives.noised(batch.latents, batch.noise, bar)
    context = objectives.with_identity_open(model.context(batch.vectors), model.nobody, batch.someone)
    context = objectives.partially_dropped(context, batch.kept, recipe.partial_dropout)
    condition = model.condition(context, batch.attributes, batch.asked)
    predicted = model(noisy.contiguous(memory_format=torch.channels_last), batch.timesteps, condition)
    wanted = objectives.target(recipe.prediction, batch.latents, batch.noise, bar)
    weight = torch.ones_like(bar)
    if recipe.min_snr_gamma:
        weight = objectives.min_snr_weight(recipe.prediction, bar, recipe.min_snr_gamma)
    loss = objectives.denoising_loss(predicted, wanted, weight)
    if mirror is None:
        return loss
    clean = objectives.clean_estimate(recipe.prediction, predicted.float(), noisy, bar)
    return loss + recipe.identity_weight * _identity_term(mirror, clean, batch, recipe)


def _identity_term(
    mirror: Mirror, clean: Float[Tensor, "b c h w"], batch: Batch, recipe: GeneratorRecipe
) -> Float[Tensor, ""]:
    """Mean over the rows of the batch; 0 in rows of nobody asked for, and in those that are too noisy."""
    share = batch.timesteps / TIMES
    rows = torch.nonzero(batch.someone & (share >= recipe.identity_above) & (share < recipe.identity_below)).flatten()
    if not len(rows):
        return clean.new_zeros(())
    seen, wanted = mirror(clean[rows], batch.to_crop[rows]), batch.vectors[rows]
    if recipe.identity_term == "cosine":
        term = objectives.identity_distance(seen, wanted)
    else:
        term = objectives.identity_triplet(seen, wanted, batch.strangers[rows])
    return (objectives.lateness_weight(batch.timesteps[rows], TIMES, recipe.identity_power) * term).sum() / len(
        batch.latents
    )
