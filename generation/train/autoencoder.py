"""The autoencoder's training, and the latents of all pictures, encoded once for whoever trains in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor

from generation import objectives
from generation.diffusion import Autoencoder, AutoencoderShape
from generation.pixels import as_input, wide
from generation.train.likeness import WEIGHTS, Beholder, check_beholder, unlike, weighted
from generation.train.loop import Averaged, Say, rng_of_step
from generation.train.recipe import at_least, check_average, within


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How the autoencoder is trained. Losses are means over pictures in [-1, 1].

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step.
        peak_lr: AdamW's learning rate at its highest.
        warmup_steps: Steps until then; a cosine leads down to a twentieth from there.
        crop_weight: Of the absolute difference of aligned crops: the face counts more than what is round it.
        edge_weight: Of the differences of neighbouring pixels' differences.
        perceptual_weight: Of the distance of the crops' features.
        reading_weight: Of what a reader sees otherwise in them, in standard deviations, summed over attributes.
        kl_weight: Of the KL divergence, per latent number: just enough to keep the latents in bounds.
        jitter: Noise on the latents, up to this share of their spread: the decoder learns to forgive a denoiser.
        ema_decay: Of the average that is kept.
        widths: Channels at 56, 28 and 14 pixels.
        latent_channels: Channels of the latents.
        seed: Of weights, batches and noise.
        precision: "bf16" (autocast) or "fp32".
        threads: Threads of torch.
        checkpoint_every: Steps.
    Raises:
        ValueError: If a value is out of range or unknown.
    """

    steps: int = 4000
    batch_size: int = 16
    peak_lr: float = 1e-3
    warmup_steps: int = 200
    crop_weight: float = 1.0
    edge_weight: float = 0.5
    perceptual_weight: float = 0.15
    reading_weight: float = 0.02
    kl_weight: float = 3e-4
    jitter: float = 0.15
    ema_decay: float = 0.998
    weight_decay: float = 1e-4
    widths: tuple[int, ...] = (32, 64, 128)
    latent_channels: int = 4
    seed: int = 77
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_average(self)
        at_least(self, 1, "latent_channels")
        at_least(self, 0, *WEIGHTS, "kl_weight", "jitter")
        # Channels are normalised in 16 groups; three levels leave 14 of 112 pixels.
        within(
            self,
            "3 positive multiples of 16",
            lambda widths: len(widths) == 3 and min(widths) > 0 and not any(width % 16 for width in widths),
            "widths",
        )

    @property
    def shape(self) -> AutoencoderShape:
        return AutoencoderShape(tuple(self.widths), self.latent_channels)


CHECKPOINT = "autoencoder.pt"


def train_autoencoder(
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    to_crop: Float32[np.ndarray, "n 2 3"],
    recipe: AutoencoderRecipe,
    folder: Path,
    beholder: Beholder,
    say: Say = print,
    look: Callable[[Autoencoder, int], None] | None = None,
    device: str = "cpu",
) -> Autoencoder:
    """Trains the autoencoder, going on from `folder/autoencoder.pt` where there is one.

    Args:
        pictures: RGB; a memory map is read batch by batch.
        to_crop: What aligns each picture (`objectives.placed`).
        beholder: What looks at drawings beside pictures.
        look: Called after every step with the average and the number of steps done.
    Returns:
        The average, in eval mode; its latents are not measured yet (`cache_latents`).
    Raises:
        ValueError: If the loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe;
            if readings count and nothing reads.
    """
    check_beholder(beholder, recipe)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = Autoencoder(recipe.shape)
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses_of(step: int) -> dict[str, Tensor]:
        return _losses(model, pictures, to_crop, recipe, beholder, rng_of_step(recipe.seed, step), device)

    return Averaged("autoencoder", model, recipe, folder / CHECKPOINT).run(losses_of, say, look)


def _losses(
    model: Autoencoder,
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    to_crop: Float32[np.ndarray, "n 2 3"],
    recipe: AutoencoderRecipe,
    beholder: Beholder,
    rng: torch.Generator,
    device: str,
) -> dict[str, Float[Tensor, ""]]:
    """The loss and its parts, unweighted, of one batch, drawn by the generator and nothing else."""
    rows = torch.randint(0, len(pictures), (recipe.batch_size,), generator=rng).sort().values.numpy()
    pixels = wide(as_input(torch.from_numpy(pictures[rows]).to(device)))
    matrices = torch.from_numpy(to_crop[rows]).to(device)
    mean, log_variance = (tensor.float() for tensor in model.posterior(pixels))
    log_variance = log_variance.clamp(-20, 10)
    jitter = recipe.jitter * torch.rand(len(rows), 1, 1, 1, generator=rng).to(device)
    spread = torch.exp(log_variance / 2) + jitter * mean.detach().std((0, 2, 3), keepdim=True)
    latents = mean + spread * torch.randn(mean.shape, generator=rng).to(device)
    redrawn = model.decode_raw(wide(latents)).float()
    parts = unlike(redrawn, pixels, matrices, beholder)
    kl = objectives.kl_divergence(mean, log_variance)
    return {"loss": weighted(parts, recipe) + recipe.kl_weight * kl, **parts, "kl": kl}


def cache_latents(
    model: Autoencoder,
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    path: Path,
    batch_size: int = 128,
    precision: str = "bf16",
    measured: bool = False,
) -> None:
    """Measures the latents of all pictures and writes them, normalised, with their statistics, unless they are there.

    Where the model has been `measured` its statistics stay as they are: a denoiser has learnt them.

    The file, an .npz, is there once it is whole. `read_latents` gives the model the statistics.
    """
    if path.exists():
        return
    raw = _encoded(model, pictures, batch_size, precision)
    if not measured:
        model.measure(raw)
    latents = ((raw - model.mean) / model.std).half().cpu().numpy()
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, latents=latents, mean=model.mean.cpu().numpy(), std=model.std.cpu().numpy())
    os.replace(part, path)


def read_latents(model: Autoencoder, path: Path) -> Float16[np.ndarray, "n c h w"]:
    """The latents of a file, and the statistics that they are normalised by set in the model."""
    with np.load(path, allow_pickle=False) as kept:
        model.mean.copy_(torch.from_numpy(kept["mean"]))
        model.std.copy_(torch.from_numpy(kept["std"]))
        return kept["latents"]


@torch.no_grad()
def _encoded(
    model: Autoencoder, pictures: UInt8[np.ndarray, "n 112 112 3"], batch_size: int, precision: str
) -> Float[Tensor, "n c h w"]:
    device = next(model.parameters()).device
    raw = []
    for start in range(0, len(pictures), batch_size):
        pixels = as_input(torch.from_numpy(np.array(pictures[start : start + batch_size])).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            raw.append(model.posterior(wide(pixels))[0].float())
    return torch.cat(raw)
