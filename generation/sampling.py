"""Sampling of the bundled model with diffusers' schedulers: one noise seed per row, drawn on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from generation.diffusion import Condition, Denoiser, noise_schedule

LCM_STEPS = 50  # of the solver that a consistency model is distilled from: it takes no more of its own
SCHEDULERS: dict[str, Callable[..., object]] = {
    "ddim": partial(DDIMScheduler, clip_sample=False, set_alpha_to_one=True),  # Song et al., 2021, equation 12, eta 0
    "dpm": partial(DPMSolverMultistepScheduler, algorithm_type="dpmsolver++", solver_order=2),  # Lu et al., 2022
    "lcm": partial(LCMScheduler, original_inference_steps=LCM_STEPS),  # Luo et al., 2023
    "ddpm": partial(DDPMScheduler, clip_sample=False),  # Ho et al., 2020, algorithm 2; a thousand steps
}


class Guidance(NamedTuple):
    """How far a prediction is pushed along what a condition changes; 1 is not at all.

    With who = identity and how = attributes, the guided prediction is
    e(nobody, open) + attributes * (e(nobody, how) - e(nobody, open)) + identity * (e(who, how) - e(nobody, how)),
    Brooks et al. (2023, https://arxiv.org/abs/2211.09800), equation 3. Passes of the network that cancel are not made.
    """

    identity: float = 1.0
    attributes: float = 1.0

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of e(who, how), e(nobody, how), e(nobody, open)."""
        return self.identity, self.attributes - self.identity, 1.0 - self.attributes


def guided_by(
    said: Float[Tensor, "3 b c h w"], identity: Float[Tensor, " b"], attributes: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The guided prediction of e(who, how), e(nobody, how), e(nobody, open), with a guidance for each row."""
    weights = torch.stack([identity, attributes - identity, 1 - attributes])
    return (weights[:, :, None, None, None] * said).sum(0)


def noise_of(
    seeds: Int64[np.ndarray, " b"], shape: tuple[int, ...]
) -> tuple[Float[Tensor, "b c h w"], list[torch.Generator]]:
    """Standard normal numbers, each row from its own seed, and the generators that go on from there."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=rng) for rng in generators]), generators


@torch.no_grad()
def sample(
    model: Denoiser,
    vectors: Float[Tensor, "b d"],
    attributes: Float[Tensor, "b a"],
    asked: Bool[Tensor, "b a"],
    someone: Bool[Tensor, " b"],
    seeds: Int64[np.ndarray, " b"],
    scheduler: str,
    steps: int,
    guidance: Guidance,
    prediction: str = "v",
    distilled: bool = False,
    circumstances: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Latents of the photographs asked for. A distilled model is told the guidance, and passes once a step.

    Circumstances are part of how: open where the attributes are.
    """
    shape = model.shape
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    plan: Any = SCHEDULERS[scheduler](**noise_schedule(prediction))
    plan.set_timesteps(steps)
    latents, generators = noise_of(seeds, (shape.latent_channels, shape.latent_size, shape.latent_size))
    latents = latents.to(device)
    conditions = _conditions(model, vectors, attributes, asked, someone, guidance if distilled else None, circumstances)
    wanted = (1.0, 0.0, 0.0) if distilled else guidance.weights
    passes = [(weight, condition) for weight, condition in zip(wanted, conditions, strict=True) if weight]
    told = Condition(*(torch.cat([getattr(c, part) for _, c in passes]) for part in ("tokens", "pooled", "backdrop")))
    weights = torch.tensor([weight for weight, _ in passes], device=device)[:, None, None, None, None]
    extra = {"generator": generators} if scheduler in ("lcm", "ddpm") else {}
    for time in plan.timesteps:
        twice = plan.scale_model_input(latents, time).repeat(len(passes), 1, 1, 1)
        times = torch.full((len(twice),), int(time), device=device)
        predicted = model(twice.to(dtype).contiguous(memory_format=torch.channels_last), times, told).float()
        guided = (weights * predicted.unflatten(0, (len(passes), -1))).sum(0)
        latents = plan.step(guided, time, latents, **extra).prev_sample
    return latents


def _conditions(
    model: Denoiser,
    vectors: Float[Tensor, "b d"],
    attributes: Float[Tensor, "b a"],
    asked: Bool[Tensor, "b a"],
    someone: Bool[Tensor, " b"],
    guidance: Guidance | None,
    circumstances: Float[Tensor, "b n"] | None,
) -> list[Condition]:
    """Of (who, how), (nobody, how), (nobody, open); the first is told the guidance, if there is one to tell."""
    context = model.context(vectors.to(next(model.parameters()).dtype))
    nobody = model.nobody.expand_as(context)
    who = torch.where(someone[:, None], context, nobody)
    push = None if guidance is None else told_guidance(vectors.new_tensor(guidance), asked, someone)
    return [
        model.condition(who, attributes, asked, push, circumstances),
        model.condition(nobody, attributes, asked, None, circumstances),
        model.condition(nobody, attributes, torch.zeros_like(asked)),
    ]


def told_guidance(
    guidance: Float[Tensor, "*b 2"], asked: Bool[Tensor, "b a"], someone: Bool[Tensor, " b"]
) -> Float[Tensor, "b 2"]:
    """Guidance of identity and of attributes as a distilled model is told it: 1 where that condition is left open."""
    there = torch.stack([someone, asked.any(1)], 1)
    return torch.where(there, guidance, torch.ones_like(guidance))
