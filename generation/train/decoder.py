"""The decoder's second training: to draw sharply what a denoiser leaves of a picture.

Estimates of clean latents lack what the denoiser could not know (strands of hair, the grain of skin), and a decoder
that has seen nothing but encoded pictures draws them soft. Here it is shown estimates of pictures whose latents were
made noisy, beside the pictures themselves, and a critic that looks at patches tells its drawings from pictures (Esser
et al., 2021, VQGAN, section 3.1, https://arxiv.org/abs/2012.09841). The encoder and the latents stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from generation import objectives
from generation.diffusion import Autoencoder, Denoiser, Taught, alpha_bars
from generation.pixels import as_input, wide
from generation.train.likeness import WEIGHTS, Beholder, check_beholder, unlike, weighted
from generation.train.loop import Averaged, Say, average_gradients, averaged, rank_and_ranks, rng_of_step
from generation.train.photographs import TIMES, Photographs, check_circumstances, circumstances_at
from generation.train.recipe import at_least, check_average, within


@dataclass(frozen=True)
class DecoderRecipe:
    """How the decoder is trained the second time. Losses are means over pictures in [-1, 1].

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step, of all processes together.
        peak_lr: AdamW's learning rate at its highest.
        warmup_steps: Steps until then; a cosine leads down to a twentieth from there.
        estimated: Share of the rows whose latents a denoiser has estimated; the others are encoded, with noise on them.
        earliest, latest: Share of T at which it estimates: at 0 nothing is lost, at 1 everything.
        jitter: Noise on the encoded rows' latents, up to this share of their spread.
        crop_weight: Of the absolute difference of aligned crops.
        edge_weight: Of the differences of neighbouring pixels' differences.
        perceptual_weight: Of the distance of the crops' features.
        reading_weight: Of what a reader sees otherwise in them, in standard deviations, summed over attributes.
        critic_weight: Of the critic's opinion: the gradient that it has at the last layer, as a share of all others'.
        critic_lr: AdamW's learning rate of the critic.
        critic_from: Steps in which the critic learns and is not listened to.
        ema_decay: Of the average that is kept.
        seed: Of the critic's weights, batches and noise.
        precision: "bf16" (autocast) or "fp32".
        threads: Threads of torch.
        checkpoint_every: Steps.
    Raises:
        ValueError: If a value is out of range or unknown.
    """

    steps: int = 1200
    batch_size: int = 16
    peak_lr: float = 3e-4
    warmup_steps: int = 50
    estimated: float = 0.75
    earliest: float = 0.1
    latest: float = 0.5
    jitter: float = 0.15
    crop_weight: float = 1.0
    edge_weight: float = 0.5
    perceptual_weight: float = 0.3
    reading_weight: float = 0.02
    critic_weight: float = 0.5
    critic_lr: float = 4e-4
    critic_from: int = 100
    ema_decay: float = 0.995
    weight_decay: float = 0.0
    seed: int = 78
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_average(self)
        at_least(self, 0, *WEIGHTS, "jitter", "critic_weight", "critic_from")
        within(self, "more than 0", lambda lr: lr > 0, "critic_lr")
        within(self, "0 to 1", lambda share: 0 <= share <= 1, "estimated", "latest")
        within(self, "0 to less than latest", lambda share: 0 <= share < self.latest, "earliest")


CHECKPOINT = "decoder.pt"


def train_decoder(
    data: Photographs,
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    autoencoder: Autoencoder,
    denoiser: Denoiser,
    recipe: DecoderRecipe,
    folder: Path,
    beholder: Beholder,
    prediction: str = "v",
    taught: Taught | None = None,
    say: Say = print,
    device: str = "cpu",
) -> Autoencoder:
    """Trains the decoder of an autoencoder, going on from `folder/decoder.pt` where there is one.

    Where torch.distributed is initialised, every process takes its part of every batch, and the first keeps and says.

    Args:
        data: Of the pictures, row by row, with `to_crop`; a memory map of `pictures` is read batch by batch.
        autoencoder: Whose latents `data` holds. It is changed: its decoder is what is learnt.
        denoiser: In those latents.
        beholder: What looks at drawings beside pictures.
        prediction: Of the denoiser.
        taught: Its guidance, drawn between these bounds; None for a denoiser that is told none.
    Returns:
        The average, in eval mode, with the encoder and the latents' statistics as they were.
    Raises:
        ValueError: If a loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe; if
            there is no `to_crop`.
    """
    check_beholder(beholder, recipe)
    check_circumstances(data, denoiser.shape)
    if data.to_crop is None:
        raise ValueError("to_crop: expected what aligns each picture, got none")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    for network in (autoencoder, denoiser):
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.eval().requires_grad_(False)
    autoencoder.kl.decoder.requires_grad_(True)
    lesson = _Lesson(data, data.to_crop, pictures, autoencoder, denoiser, recipe, beholder, prediction, taught, device)
    loop = Averaged("decoder", autoencoder, recipe, folder / CHECKPOINT, others=lesson.critic.parts)
    return loop.run(lesson, say)


class Critic:
    """Tells pictures from drawings, patch by patch: 28 x 28 opinions that see 22 px each, above 0 for pictures."""

    def __init__(self, lr: float, device: str) -> None:
        self.network = nn.Sequential(
            _bounded(3, 32, 4, stride=2),
            nn.LeakyReLU(0.2),
            _bounded(32, 64, 4, stride=2),
            nn.LeakyReLU(0.2),
            _bounded(64, 128, 3),
            nn.LeakyReLU(0.2),
            _bounded(128, 1, 3),
        ).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=lr, betas=(0.5, 0.99), weight_decay=0.0)

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"critic": self.network, "critic_optimiser": self.optimiser}

    def learn(self, pictures: Float[Tensor, "b 3 h w"], drawings: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """One step on the hinge loss (Lim and Ye, 2017, https://arxiv.org/abs/1705.02894); what the loss was."""
        self.network.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        real, drawn = self.network(pictures).float(), self.network(drawings.detach()).float()
        loss = F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
        loss.backward()
        average_gradients(self.network)
        self.optimiser.step()
        self.network.requires_grad_(False)
        return loss.detach()

    def displeasure(self, drawings: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """How much drawings look like drawings, differentiably."""
        return -self.network(drawings).float().mean()


def _bounded(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution of spectral norm 1 (Miyato et al., 2018, https://arxiv.org/abs/1802.05957)."""
    return nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels_in, channels_out, kernel, stride, 1))


class _Lesson:
    """The losses of a step; the critic learns in it, too."""

    def __init__(
        self,
        data: Photographs,
        to_crop: Float32[np.ndarray, "n 2 3"],
        pictures: UInt8[np.ndarray, "n 112 112 3"],
        autoencoder: Autoencoder,
        denoiser: Denoiser,
        recipe: DecoderRecipe,
        beholder: Beholder,
        prediction: str,
        taught: Taught | None,
        device: str,
    ) -> None:
        self.to_crop = to_crop
        self.data, self.pictures, self.recipe, self.beholder = data, pictures, recipe, beholder
        self.autoencoder, self.denoiser, self.device = autoencoder, denoiser, device
        self.prediction, self.taught = prediction, taught
        self.bars = alpha_bars(prediction).to(device)
        self.critic = Critic(recipe.critic_lr, device)

    def __call__(self, step: int) -> dict[str, Float[Tensor, ""]]:
        recipe, rng = self.recipe, rng_of_step(self.recipe.seed, step)
        batch = torch.randint(0, len(self.data.latents), (recipe.batch_size,), generator=rng).sort().values
        latents, rows = self._latents(batch, rng)
        pixels = wide(as_input(torch.from_numpy(self.pictures[rows]).to(self.device)))
        drawn = self.autoencoder.decode(wide(latents)).float()
        matrices = torch.from_numpy(self.to_crop[rows]).to(self.device)
        told = unlike(drawn, pixels, matrices, self.beholder)
        likeness = weighted(told, recipe)
        told["critic"] = self.critic.learn(pixels, wide(drawn))
        if step < recipe.critic_from:
            return {"loss": likeness, **told}
        displeasure = self.critic.displeasure(wide(drawn))
        return {"loss": likeness + recipe.critic_weight * self._balance(likeness, displeasure) * displeasure, **told}

    def _latents(
        self, batch: Int64[Tensor, " n"], rng: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Int64[np.ndarray, " b"]]:
        """Of this process's part of a batch, some encoded and some estimated, and which rows those are."""
        recipe, (rank, ranks) = self.recipe, rank_and_ranks()
        uniform = torch.rand(len(batch), 5, generator=rng)
        noise = torch.randn(len(batch), *self.data.latents.shape[1:], generator=rng)
        part = slice(rank * len(batch) // ranks, (rank + 1) * len(batch) // ranks)
        chosen = batch[part].numpy()
        uniform, noise = uniform[part].to(self.device), noise[part].to(self.device)
        clean = torch.from_numpy(self.data.latents[chosen].astype(np.float32)).to(self.device)
        share = recipe.earliest + (recipe.latest - recipe.earliest) * uniform[:, 0]
        times = (share * TIMES).long().clamp(max=TIMES - 1)
        estimated = self._estimate(clean, noise, times, chosen, uniform[:, 1:3])
        encoded = clean + recipe.jitter * uniform[:, 3, None, None, None] * noise
        return torch.where((uniform[:, 4] < recipe.estimated)[:, None, None, None], estimated, encoded), chosen

    @torch.no_grad()
    def _estimate(
        self,
        clean: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        times: Int64[Tensor, " b"],
        rows: Int64[np.ndarray, " b"],
        uniform: Float[Tensor, "b 2"],
    ) -> Float[Tensor, "b c h w"]:
        """What the denoiser makes of latents with noise, told everything about the picture."""
        bar = self.bars[times]
        noisy = objectives.noised(clean, noise, bar)
        vectors, attributes = (
            torch.from_numpy(table[rows]).to(self.device) for table in (self.data.vectors, self.data.attributes)
        )
        guidance = None
        if self.taught is not None:
            low, high = torch.tensor(self.taught, device=uniform.device).unbind(1)
            guidance = low + (high - low) * uniform
        asked = torch.ones_like(attributes, dtype=torch.bool)
        circumstances = circumstances_at(self.data, rows).to(self.device)
        condition = self.denoiser.condition(self.denoiser.context(vectors), attributes, asked, guidance, circumstances)
        predicted = self.denoiser(wide(noisy), times, condition).float()
        return objectives.clean_estimate(self.prediction, predicted, noisy, bar)

    def _balance(self, likeness: Float[Tensor, ""], displeasure: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Makes both of the whole batch's gradients at the last layer alike long (Esser et al., 2021, equation 7)."""
        last = self.autoencoder.kl.decoder.conv_out.weight
        ours, theirs = (
            averaged(torch.autograd.grad(loss, last, retain_graph=True)[0].float()).norm()
            for loss in (likeness, displeasure)
        )
        return (ours / (theirs + 1e-6)).clamp(max=1e4)
