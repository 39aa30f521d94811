"""Training of the denoiser on cached latents: seeded by step, resumable, on one process or several (torchrun)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch import distributed as dist

from generation import objectives
from generation.diffusion import Denoiser, DenoiserShape, alpha_bars
from generation.train.loop import Checkpoint, Say, rng_of_step


@dataclass(frozen=True, eq=False)
class Photographs:
    """What the denoiser is trained on. Rows are pictures.

    Attributes:
        latents: Normalised, of the autoencoder.
        vectors: Unit vectors of the embedder that conditions.
        attributes: In the order of the shape's controls.
        labels: Whose picture it is.
        sources: Rows whose vector may stand for the person in another picture: found, sharp, turned little.
    """

    latents: Float[np.ndarray, "n c h w"]
    vectors: Float32[np.ndarray, "n d"]
    attributes: Float32[np.ndarray, "n a"]
    labels: Int64[np.ndarray, " n"]
    sources: np.ndarray


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
    """

    steps: int = 6000
    batch_size: int = 64
    peak_lr: float = 1e-3
    warmup_steps: int = 300
    prediction: str = "v"
    min_snr_gamma: float = 0.0
    partial_dropout: float = 0.0
    identity_open: float = 0.1
    attributes_open: float = 0.1
    attribute_open: float = 0.1
    cross_pairs: float = 0.5
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    seed: int = 31
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 250


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
) -> Denoiser:
    """Trains the denoiser, going on from `folder/denoiser.pt` where there is one. Returns the average in eval mode."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = Denoiser(shape).to(device).to(memory_format=torch.channels_last)
    if start is not None:
        model.load_state_dict(torch.load(start, weights_only=True)["average"])
    average = Denoiser(shape).to(device).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    parts = {"model": model, "average": average, "optimiser": optimiser}
    checkpoint = Checkpoint(folder / CHECKPOINT, recipe, parts)
    first = checkpoint.resume(device)
    trained = model if ranks == 1 else nn.parallel.DistributedDataParallel(_Loss(model), find_unused_parameters=True)
    bars = alpha_bars().to(device)
    others = others_of(data)
    started, running = time.perf_counter(), 0.0
    model.train()
    loss_of = trained if ranks > 1 else _Loss(model)
    for step in range(first, recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.peak_lr * lr_share(step, recipe)
        batch = draw(data, others, recipe, shape, step, rank, ranks, device)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = loss_of(batch, recipe, bars)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(recipe.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(f"expected a finite loss, got {value} at step {step}")
        running = value if step == first else 0.98 * running + 0.02 * value
        if rank == 0 and ((step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps):
            checkpoint.keep(step + 1)
            rate = (step + 1 - first) * recipe.batch_size / (time.perf_counter() - started)
            say(f"generator: step {step + 1}/{recipe.steps}, loss {running:.4f}, {rate:.0f} pictures/s")
            if look is not None:
                look(average.eval(), step + 1)
    return average.eval()


def lr_share(step: int, recipe: GeneratorRecipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * done)))


class Others:
    """Picks another picture of a person as the source of its vector."""

    def __init__(self, data: Photographs) -> None:
        self.rows_of = {}
        order = np.argsort(data.labels, kind="stable")
        labels = data.labels[order]
        bounds = np.flatnonzero(np.diff(labels)) + 1
        usable = np.zeros(len(labels), bool)
        usable[data.sources] = True
        for rows in np.split(order, bounds):
            self.rows_of[int(data.labels[rows[0]])] = rows[usable[rows]]

    def of(self, row: int, label: int, draw: float) -> int:
        rows = self.rows_of[label]
        rows = rows[rows != row]
        return int(rows[int(draw * len(rows))]) if len(rows) else row


def others_of(data: Photographs) -> Others:
    return Others(data)


@dataclass(eq=False)
class Batch:
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    vectors: Tensor
    attributes: Tensor
    asked: Tensor
    someone: Tensor
    kept: Tensor
    uniform: Tensor


def draw(data, others, recipe, shape, step, rank, ranks, device) -> Batch:
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
    timesteps = ((torch.randperm(size, generator=rng) + uniform[:, 3]) / size * 1000).long().clamp(0, 999)
    noise = torch.randn(size, shape.latent_channels, shape.latent_size, shape.latent_size, generator=rng)
    part = slice(rank * size // ranks, (rank + 1) * size // ranks)
    mine = rows[part].numpy()
    sources = [
        others.of(int(row), int(data.labels[row]), float(u[5])) if u[4] < recipe.cross_pairs else int(row)
        for row, u in zip(mine, uniform[part], strict=True)
    ]
    tensors = (
        torch.from_numpy(data.latents[mine].astype(np.float32)),
        noise[part],
        timesteps[part],
        torch.from_numpy(data.vectors[sources]),
        torch.from_numpy(data.attributes[mine]),
        asked[part],
        someone[part],
        kept[part],
        uniform[part, 6:],
    )
    return Batch(*[tensor.to(device) for tensor in tensors])


class _Loss(nn.Module):
    """The model's loss as a module, as DistributedDataParallel wants it."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, recipe: GeneratorRecipe, bars: Float[Tensor, " t"]) -> Float[Tensor, ""]:
        bar = bars[batch.timesteps]
        noisy = objectives.noised(batch.latents, batch.noise, bar)
        context = objectives.with_identity_open(self.model.context(batch.vectors), self.model.nobody, batch.someone)
        context = objectives.partially_dropped(context, batch.kept, recipe.partial_dropout)
        condition = self.model.condition(context, batch.attributes, batch.asked)
        predicted = self.model(noisy.contiguous(memory_format=torch.channels_last), batch.timesteps, condition)
        wanted = objectives.target(recipe.prediction, batch.latents, batch.noise, bar)
        weight = torch.ones_like(bar)
        if recipe.min_snr_gamma:
            weight = objectives.min_snr_weight(recipe.prediction, bar, recipe.min_snr_gamma)
        return objectives.denoising_loss(predicted, wanted, weight)
