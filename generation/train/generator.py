"""Training of the denoiser on cached latents: seeded by step, resumable, on one process or several (torchrun)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generation import objectives
from generation.diffusion import PREDICTIONS, Denoiser, DenoiserShape, alpha_bars
from generation.pixels import wide
from generation.train.loop import Averaged, Say, rank_and_ranks
from generation.train.mirror import Mirror, check_looks, check_mirror, terms_of
from generation.train.photographs import Batch, Others, Photographs, check_circumstances, check_draws, draw
from generation.train.recipe import at_least, check_average, one_of, within


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
        cross_pairs: Share of rows whose vector is of other pictures of the person (CrossFaceID).
        cross_mean: Of how many others that vector is the unit mean, where there are so many; 1 as in CrossFaceID. One
            picture's vector tells fine shapes with much noise, and a model answers them by as much less.
        ema_decay: Of the average that is kept.
        seed: Of weights, batches, noise and dropout.
        precision: "bf16" (autocast) or "fp32".
        threads: Threads of torch in each process.
        checkpoint_every: Steps.
        identity_term: "none", "cosine" (1 - cosine of the face in the decoded x0 estimate and the vector asked for) or
            "triplet" (ID-Booth: nearer to it than to somebody else in the batch).
        identity_weight: Of that term, in the loss.
        identity_power: Of the weight (1 - t / T)^power; 2 in ID-Booth, 0 for all times alike.
        attribute_weight: Of the attribute term, in the loss: how far what a reader sees in the decoded x0 estimate is
            from what was asked for, in standard deviations, summed over attributes. 0 for none.
        looked_below: Both terms leave out rows at or above this share of T, in (0, 1]: estimates made of noise show no
            face, and decoding takes time.
        looked_above: They leave out rows below this share of T, too: what these show is seen in them already.
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
    cross_mean: int = 1
    ema_decay: float = 0.998
    weight_decay: float = 0.01
    seed: int = 31
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 250
    identity_term: str = "cosine"
    identity_weight: float = 0.5
    identity_power: float = 0.0
    attribute_weight: float = 0.05
    looked_below: float = 0.7
    looked_above: float = 0.2

    def __post_init__(self) -> None:
        check_average(self)
        check_draws(self)
        one_of(self, PREDICTIONS, "prediction")
        check_looks(self)
        within(self, "0 to less than 1", lambda share: 0 <= share < 1, "partial_dropout")
        at_least(self, 0, "min_snr_gamma", "identity_weight")

    @property
    def looks(self) -> bool:
        """Whether a term needs the decoded estimate."""
        return self.identity_term != "none" or self.attribute_weight > 0


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
        mirror: What the identity term and the attribute term look with.
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
    bars, others, (rank, ranks) = (
        alpha_bars(recipe.prediction).to(device),
        Others(data.labels, data.sources),
        rank_and_ranks(),
    )
    seen_by = mirror if recipe.looks else None

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = draw(data, others, recipe, shape, step, rank, ranks, device)
        return _losses(model, seen_by, batch, recipe, bars)

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
    check_circumstances(data, shape)
    check_mirror(mirror, recipe)
    if recipe.looks and data.to_crop is None:
        raise ValueError("to_crop: expected what aligns each picture for terms that look at estimates, got none")
    if recipe.identity_term == "triplet" and len(np.unique(data.labels)) < 2:
        raise ValueError("identity_term: expected pictures of at least 2 people for 'triplet', got 1")


def _losses(
    model: Denoiser, mirror: Mirror | None, batch: Batch, recipe: GeneratorRecipe, bars: Float[Tensor, " t"]
) -> dict[str, Float[Tensor, ""]]:
    """Of the prediction and, where there is a mirror to look with, of what is seen in the picture it implies."""
    denoising, clean = denoising_of(model, batch, recipe.prediction, bars, recipe.min_snr_gamma, recipe.partial_dropout)
    if mirror is None:
        return {"loss": denoising}
    terms = terms_of(mirror, clean, batch, recipe, [control.name for control in model.shape.controls])
    loss = denoising + recipe.identity_weight * terms["identity"] + recipe.attribute_weight * terms["attributes"]
    return {"loss": loss, "denoising": denoising, **terms}


def denoising_of(
    model: Denoiser,
    batch: Batch,
    prediction: str,
    bars: Float[Tensor, " t"],
    min_snr_gamma: float = 0.0,
    partial_dropout: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, "b c h w"]]:
    """The denoising loss of a batch of renders with noise, and the estimates of the clean latents that it is of."""
    bar = bars[batch.timesteps]
    noisy = objectives.noised(batch.latents, batch.noise, bar)
    context = objectives.with_identity_open(model.context(batch.vectors), model.nobody, batch.someone)
    context = objectives.partially_dropped(context, batch.fate >= partial_dropout, partial_dropout)
    condition = model.condition(context, batch.attributes, batch.asked, None, batch.circumstances)
    predicted = model(wide(noisy), batch.timesteps, condition)
    wanted = objectives.target(prediction, batch.latents, batch.noise, bar)
    weight = torch.ones_like(bar)
    if min_snr_gamma:
        weight = objectives.min_snr_weight(prediction, bar, min_snr_gamma)
    loss = objectives.denoising_loss(predicted, wanted, weight)
    return loss, objectives.clean_estimate(prediction, predicted.float(), noisy, bar)
