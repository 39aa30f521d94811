"""The detector's training: what it is shown, what it loses by, how it is exported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation.detector import SIZE_PX, Detector, WithProbability
from generation.pixels import as_input
from generation.train.loop import OneCycle, Say
from generation.train.recipe import check_steps, within


@dataclass(frozen=True)
class DetectorRecipe:
    """How the detector is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step.
        peak_lr: AdamW's learning rate at its highest (one cycle with a cosine end).
        negatives: Share of a batch in which there is no face, in (0, 1).
        seed: Of weights, batches and augmentation.
        precision: "bf16" (autocast; twice as fast on processors that have it) or "fp32".
        threads: Threads of torch; the result is the same bits for one number of threads.
        checkpoint_every: Steps between checkpoints.
    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 12_000
    batch_size: int = 128
    peak_lr: float = 2e-3
    negatives: float = 0.2
    seed: int = 11
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        check_steps(self)
        within(self, "more than 0 and less than 1", lambda share: 0 < share < 1, "negatives")


def moved(
    pixels: Float[Tensor, "b 3 s s"], landmarks: Float[Tensor, "b 5 2"], rng: torch.Generator
) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 5 2"]]:
    """Turns each picture by up to 25 deg, scales it by 0.7 to 1.35, shifts it by up to 14 px; landmarks move along."""
    count, centre, device = len(pixels), (SIZE_PX - 1) / 2, pixels.device
    angle = (torch.rand(count, generator=rng) * 2 - 1).to(device) * math.radians(25)
    scale = torch.exp(torch.empty(count).uniform_(math.log(0.7), math.log(1.35), generator=rng)).to(device)
    shift = (torch.rand(count, 2, generator=rng) * 2 - 1).to(device) * 14
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)  # (b, 2, 2)
    placed = torch.einsum("bij,bkj->bki", rotation * scale[:, None, None], landmarks - centre) + centre + shift[:, None]
    # grid_sample asks where each new pixel comes from: the inverse map, in units of half frames.
    inverse = rotation.transpose(1, 2) / scale[:, None, None]
    offset = -torch.einsum("bij,bj->bi", inverse, shift) / (SIZE_PX / 2)
    grid = F.affine_grid(torch.cat([inverse, offset[..., None]], 2), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False), placed


def faceless(pixels: Float[Tensor, "b 3 s s"], rng: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Pictures without a face made from pictures with one: shuffled tiles, corners enlarged, flat colour with noise."""
    count, size = len(pixels), pixels.shape[-1]
    kind = torch.randint(0, 3, (count,), generator=rng)
    out = pixels.clone()
    for row in range(count):
        if kind[row] == 0:
            tile = size // int(torch.tensor([4, 7, 8])[torch.randint(0, 3, (1,), generator=rng)])
            tiles = pixels[row].unfold(1, tile, tile).unfold(2, tile, tile).flatten(1, 2)  # (3, tiles, tile, tile)
            tiles = tiles[:, torch.randperm(tiles.shape[1], generator=rng).to(pixels.device)]
            side = size // tile
            out[row] = tiles.unflatten(1, (side, side)).permute(0, 1, 3, 2, 4).reshape(3, size, size)
        elif kind[row] == 1:
            crop = int(torch.randint(10, 24, (1,), generator=rng))
            top, left = (int(torch.randint(0, 2, (1,), generator=rng)) * (size - crop) for _ in range(2))
            patch = pixels[row : row + 1, :, top : top + crop, left : left + crop]
            out[row] = F.interpolate(patch, size=(size, size), mode="bilinear")[0]
        else:
            colour = torch.rand(3, 1, 1, generator=rng) * 2 - 1
            noise = torch.randn(3, size, size, generator=rng) * torch.rand(1, generator=rng) * 0.5
            out[row] = (colour + noise).clamp(-1, 1).to(pixels.device)
    return out


def seen_differently(pixels: Float[Tensor, "b 3 s s"], rng: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Changes brightness and contrast, and covers a part of every fifth picture by a grey box."""
    count, size = len(pixels), pixels.shape[-1]
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.7, 1.3, generator=rng).to(pixels.device)
    brightness = torch.empty(count, 1, 1, 1).uniform_(-0.25, 0.25, generator=rng).to(pixels.device)
    out = (pixels * contrast + brightness).clamp(-1, 1)
    for row in torch.nonzero(torch.rand(count, generator=rng) < 0.2).flatten().tolist():
        high, wide = (int(torch.randint(12, 45, (1,), generator=rng)) for _ in range(2))
        top, left = (int(torch.randint(0, size - side, (1,), generator=rng)) for side in (high, wide))
        out[row, :, top : top + high, left : left + wide] = float(torch.rand(1, generator=rng)) * 2 - 1
    return out


def landmark_loss(predicted: Float[Tensor, "b 5 2"], truth: Float[Tensor, "b 5 2"]) -> Float[Tensor, ""]:
    """Smooth L1 in pixels, quadratic below 1 px."""
    return F.smooth_l1_loss(predicted, truth, beta=1.0)


def train_detector(
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    landmarks: Float32[np.ndarray, "n 5 2"],
    recipe: DetectorRecipe,
    folder: Path,
    say: Say = print,
    device: str = "cpu",
) -> Detector:
    """Trains the detector, continuing from `folder/detector.pt` where there is one. Returns it in eval mode.

    Raises:
        ValueError: If the loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = Detector().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    OneCycle("detector", model, recipe, folder / "detector.pt").run(
        lambda rng: _detector_loss(model, pictures, landmarks, recipe, rng), say
    )
    return model.eval()


def _detector_loss(
    model: Detector,
    pictures: UInt8[np.ndarray, "n 112 112 3"],
    landmarks: Float32[np.ndarray, "n 5 2"],
    recipe: DetectorRecipe,
    rng: torch.Generator,
) -> Float[Tensor, ""]:
    rows = torch.randint(0, len(pictures), (recipe.batch_size,), generator=rng).numpy()
    device = next(model.parameters()).device
    faces = as_input(torch.from_numpy(pictures[np.sort(rows)]).to(device))
    truth = torch.from_numpy(landmarks[np.sort(rows)]).to(device)
    empty = round(recipe.batch_size * recipe.negatives)
    with_face, truth = moved(faces[empty:], truth[empty:], rng)
    batch = seen_differently(torch.cat([faceless(faces[:empty], rng), with_face]), rng)
    is_face = (torch.arange(len(batch), device=device) >= empty).float()
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        predicted, logit = model(batch.contiguous(memory_format=torch.channels_last))
    return landmark_loss(predicted[empty:], truth) + 2.0 * F.binary_cross_entropy_with_logits(logit, is_face)


def export_detector(model: Detector, path: Path) -> None:
    """Writes the detector as ONNX: input (N, 3, 112, 112), outputs `landmarks` (N, 5, 2) in pixels and `found` (N,)."""
    exported = WithProbability(model.cpu()).eval()
    torch.onnx.export(
        exported,
        (torch.zeros(2, 3, SIZE_PX, SIZE_PX),),
        str(path),
        input_names=["pixels"],
        output_names=["landmarks", "found"],
        dynamic_axes={name: {0: "batch"} for name in ("pixels", "landmarks", "found")},
        opset_version=17,
        dynamo=False,
    )
