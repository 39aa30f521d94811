"""The last training of a denoiser: on pictures that it draws itself, in as many steps as it will be asked for.

The terms of `mirror.py` look at estimates from renders with noise on them, which show coarsely who and what was
photographed. Sampling begins with noise, and each of its few steps goes on from the model's own work: fine shapes of a
face, which noise hides, it has to take from the identity vector alone. So here whole drawings are looked at, beside the
renders of the same people and photographs, and the gradient goes back through the steps that made them (DRaFT, Clark et
al., 2023, https://arxiv.org/abs/2309.17400). The denoising loss goes on beside it, so that the model stays one.

What is learnt so is to answer the vector and to leave the noise out: drawings of one request come to be the same. The
result is therefore taken from between the denoiser that was given and the one that has learnt (Wortsman et al., 2022,
https://arxiv.org/abs/2109.01903), where likeness is nearly that of the second and variety nearly that of the first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from generation import objectives
from generation.diffusion import Denoiser, alpha_bars, noise_schedule
from generation.pixels import as_input, wide
from generation.sampling import SCHEDULERS
from generation.train.generator import denoising_of
from generation.train.loop import Averaged, Say, follow, rank_and_ranks
from generation.train.mirror import Mirror, Reading, attribute_term
from generation.train.photographs import Batch, Others, Photographs, check_circumstances, check_draws, draw
from generation.train.recipe import at_least, check_average, one_of, within


@dataclass(frozen=True)
class TuningRecipe:
    """How a denoiser learns from its own drawings.

    Attributes:
        steps: Optimiser steps.
        batch_size: Drawings per step, of all processes together.
        peak_lr: AdamW's learning rate at its highest.
        warmup_steps: Steps until then; a cosine leads down to a twentieth from there.
        scheduler: What drawings are sampled with; one whose steps need no random numbers.
        drawn_steps: Denoising steps of a drawing.
        learnt_steps: How many of them, the last ones, the gradient goes back through (DRaFT-K).
        denoising_weight: Of the denoising loss, on renders with noise.
        denoised_every: It is of one row in so many.
        identity_weight: Of 1 - cosine of the drawn face and the face in the render that it is compared with.
        attribute_weight: Of how far what a reader sees is from what was asked for, summed over attributes.
        perceptual_weight: Of the distance of the features of the drawn and the rendered crop.
        identity_open, attributes_open, attribute_open, cross_pairs, cross_mean: As in `GeneratorRecipe`.
        taken: How far from the denoiser that was given to the average that learns the result lies; 1 is that average.
        ema_decay: Of that average.
        seed: Of batches and noise.
        precision: "bf16" (autocast) or "fp32".
        threads: Threads of torch in each process.
        checkpoint_every: Steps.
    Raises:
        ValueError: If a value is out of range or unknown.
    """

    steps: int = 1500
    batch_size: int = 32
    peak_lr: float = 2e-4
    warmup_steps: int = 50
    scheduler: str = "dpm"
    drawn_steps: int = 3
    learnt_steps: int = 3
    denoising_weight: float = 0.5
    denoised_every: int = 2
    identity_weight: float = 1.0
    attribute_weight: float = 0.12
    perceptual_weight: float = 1.0
    identity_open: float = 0.05
    attributes_open: float = 0.05
    attribute_open: float = 0.05
    cross_pairs: float = 0.8
    cross_mean: int = 5
    taken: float = 0.9
    ema_decay: float = 0.995
    weight_decay: float = 0.0
    seed: int = 41
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_average(self)
        check_draws(self)
        one_of(self, DETERMINISTIC, "scheduler")
        at_least(self, 1, "drawn_steps", "learnt_steps", "denoised_every")
        within(self, "more than 0, at most 1", lambda share: 0 < share <= 1, "taken")
        within(self, "at most drawn_steps", lambda count: count <= self.drawn_steps, "learnt_steps")
        weights = [f"{name}_weight" for name in ("denoising", "identity", "attribute", "perceptual")]
        at_least(self, 0, *weights)
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"expected one of {', '.join(weights)} above 0, got 0 for all")


DETERMINISTIC = ("ddim", "dpm")
CHECKPOINT = "tuned.pt"


def tune(
    data: Photographs,
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    denoiser: Denoiser,
    recipe: TuningRecipe,
    folder: Path,
    mirror: Mirror,
    features: objectives.Features,
    prediction: str = "v",
    say: Say = print,
    look: Callable[[Denoiser, int], None] | None = None,
    device: str = "cpu",
) -> Denoiser:
    """Trains a copy of a denoiser on, going on from `folder/tuned.pt` where there is one. Returns what is taken.

    Where torch.distributed is initialised, every process takes its part of every batch, and the first keeps and says.

    Args:
        data: With `to_crop`, which drawings are cropped by: a face that is elsewhere is no likeness.
        pictures: That `data` is of, row by row; a memory map is read batch by batch.
        denoiser: Of that data's latents.
        mirror: What looks at drawings: an embedder and a reader where their terms have a weight.
        features: Of aligned crops in [-1, 1]: what drawing and render are compared in.
        prediction: Of the denoiser.
        look: Called after every step with the average and the number of steps done, by the first process.
    Raises:
        ValueError: If a loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe; if
            there is no `to_crop`, or nothing to look with for a term; if processes would see other shares of a batch.
    """
    check_circumstances(data, denoiser.shape)
    _check(data, recipe, mirror)
    torch.set_num_threads(recipe.threads)
    model = Denoiser(denoiser.shape)
    model.load_state_dict(denoiser.state_dict())
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lesson = _Lesson(data, pictures, model, recipe, mirror, features, prediction, device)
    learnt = Averaged("tune", model, recipe, folder / CHECKPOINT).run(lesson, say, look)
    follow(learnt, copy.deepcopy(denoiser).to(device), recipe.taken)
    return learnt


def _check(data: Photographs, recipe: TuningRecipe, mirror: Mirror) -> None:
    part, every = recipe.batch_size // rank_and_ranks()[1], recipe.denoised_every
    if part % every:
        raise ValueError(f"denoised_every: expected a divisor of the {part} rows of each process, got {every}")
    if data.to_crop is None:
        raise ValueError("to_crop: expected what aligns each picture, got none")
    if recipe.identity_weight and mirror.embed is None:
        raise ValueError(f"identity_weight: expected a mirror that embeds for {recipe.identity_weight}, got none")
    if recipe.attribute_weight and mirror.reader is None:
        raise ValueError(f"attribute_weight: expected a mirror with a reader for {recipe.attribute_weight}, got none")


class _Lesson:
    """The losses of a step."""

    def __init__(
        self,
        data: Photographs,
        pictures: UInt8[np.ndarray, "n 112 112 3"],
        model: Denoiser,
        recipe: TuningRecipe,
        mirror: Mirror,
        features: objectives.Features,
        prediction: str,
        device: str,
    ) -> None:
        self.data, self.pictures, self.model, self.recipe = data, pictures, model, recipe
        self.mirror, self.features, self.prediction, self.device = mirror, features, prediction, device
        self.others = Others(data.labels, data.sources)
        self.bars = alpha_bars(prediction).to(device)
        self.names = [control.name for control in model.shape.controls]

    def __call__(self, step: int) -> dict[str, Float[Tensor, ""]]:
        recipe = self.recipe
        batch = draw(self.data, self.others, recipe, self.model.shape, step, *rank_and_ranks(), self.device)
        told = self._likeness(batch)
        told["denoising"] = batch.latents.new_zeros(())
        if recipe.denoising_weight:
            some = batch.every(recipe.denoised_every)
            told["denoising"] = denoising_of(self.model, some, self.prediction, self.bars)[0]
        weights = {
            "denoising": recipe.denoising_weight,
            "identity": recipe.identity_weight,
            "attributes": recipe.attribute_weight,
            "perceptual": recipe.perceptual_weight,
        }
        loss = torch.stack([weight * told[name] for name, weight in weights.items() if weight]).sum()
        return {"loss": loss, **told}

    def _likeness(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """What is seen in drawings, against the renders of the same photographs and what was asked for."""
        latents = drawn(self.model, batch, self.recipe, self.prediction)
        pictures, crops = self.mirror.show(latents, batch.to_crop)
        renders = wide(as_input(torch.from_numpy(self.pictures[batch.rows]).to(self.device)))
        there = wide(objectives.placed(renders, batch.to_crop))
        told = {name: latents.new_zeros(()) for name in ("identity", "attributes", "perceptual")}
        if self.recipe.perceptual_weight:
            with torch.no_grad():
                wanted = self.features(there)
            told["perceptual"] = objectives.perceptual_distance(self.features(crops), wanted)
        if self.recipe.identity_weight and self.mirror.embed is not None:
            off = objectives.identity_distance(self.mirror.embed(crops).float(), batch.own)
            told["identity"] = (batch.someone * off).mean()
        if self.recipe.attribute_weight and self.mirror.reader is not None:
            reading = Reading(*(part.float() for part in self.mirror.reader.read(pictures, crops)))
            all_rows = torch.arange(len(crops), device=crops.device)
            told["attributes"] = attribute_term(self.mirror.reader, reading, batch, all_rows, self.names) / len(crops)
        return told


def drawn(model: Denoiser, batch: Batch, recipe: TuningRecipe, prediction: str) -> Float[Tensor, "b c h w"]:
    """Latents that the model makes of a batch's noise, told who and how; differentiable in its last steps."""
    plan: Any = SCHEDULERS[recipe.scheduler](**noise_schedule(prediction))
    plan.set_timesteps(recipe.drawn_steps)
    context = objectives.with_identity_open(model.context(batch.vectors), model.nobody, batch.someone)
    told = model.condition(context, batch.attributes, batch.asked, None, batch.circumstances)
    latents = batch.noise
    for place, time in enumerate(plan.timesteps):
        with torch.set_grad_enabled(place >= recipe.drawn_steps - recipe.learnt_steps):
            times = torch.full((len(latents),), int(time), device=latents.device)
            said = model(wide(latents), times, told).float()
            latents = plan.step(said, time, latents).prev_sample
    return latents
