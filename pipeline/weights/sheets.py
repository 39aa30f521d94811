"""Contact sheets of a training: people who are not trained on, photographed alike, as the model draws them so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from PIL import Image
from torch import Tensor

from generation.close_up import close_up_circumstances
from generation.diffusion import Autoencoder, Denoiser, DenoiserShape, decoded
from generation.sampling import Guidance, sample
from generation.world import ATTRIBUTES, attribute_table
from generation.world.circumstances import random_backgrounds
from pipeline.weights.renders import CloseUps

PEOPLE = 8  # rows of a sheet
PLAIN = {"age_years": 35.0, "light_azimuth_deg": -25.0, "light_elevation_deg": 30.0, "ambient": 0.45}
POSES: tuple[dict[str, float], ...] = (
    {},
    {"yaw_deg": -60.0},
    {"yaw_deg": 35.0},
    {"age_years": 8.0},
    {"age_years": 75.0},
    {"smile": 1.0, "mouth_open": 0.5},
    {"light_azimuth_deg": 80.0, "ambient": 0.2},
    {"glasses": 2.0},
    {"hat": 2.0},
    {"yaw_deg": 20.0, "smile": -0.8, "glasses": 1.0},
)


@dataclass(frozen=True)
class Drawing:
    """How a sheet is sampled."""

    scheduler: str
    steps: int
    guidance: Guidance


UNTAUGHT = Drawing("dpm", 12, Guidance(2.0, 2.0))  # of a model that has not learnt its terms to their end


class Sheets:
    """Draws a sheet after the last step, and whenever so many minutes have passed since the one before.

    Args:
        folder: Where `sheet_000500.png` goes, named by the step.
        minutes: Between sheets, more than 0.
        drawing: How it is sampled.
    Raises:
        ValueError: If `minutes` is not more than 0.
    """

    def __init__(
        self,
        folder: Path,
        shape: DenoiserShape,
        autoencoder: Autoencoder,
        prediction: str,
        steps: int,
        minutes: float,
        device: str,
        drawing: Drawing | None = None,
    ) -> None:
        if not minutes > 0:
            raise ValueError(f"sheet_minutes: expected more than 0, got {minutes}")
        self.folder, self.shape, self.autoencoder, self.prediction = folder, shape, autoencoder, prediction
        self.steps, self.seconds, self.device = steps, 60 * minutes, device
        self.drawing = drawing or UNTAUGHT
        self._last = time.monotonic()

    def of(
        self, renders: CloseUps, vectors: Float32[np.ndarray, "n d"], rows: Sequence[int]
    ) -> Callable[[Denoiser, int], None]:
        """What a training calls after every step.

        Args:
            rows: Pictures whose vector may stand for their person; the first of each person is taken.
        Raises:
            ValueError: If there are none.
        """
        if not len(rows):
            raise ValueError("held_out: expected people with a sharp picture that is turned little, got none")
        _, first = np.unique(renders.labels[np.array(rows)], return_index=True)
        shown = [int(rows[place]) for place in first[:PEOPLE]]
        left = np.array(renders.pictures[shown])
        asked_for = np.array(vectors[shown])

        def look(model: Denoiser, step: int) -> None:
            if step == self.steps or time.monotonic() - self._last >= self.seconds:
                self._write(model, step, left, asked_for)
                self._last = time.monotonic()

        return look

    def _circumstances(self, seeds: Int64[np.ndarray, " n"]) -> Float[Tensor, "n c"] | None:
        """A wall of its own for each pose, and a day."""
        if not self.shape.circumstances:
            return None
        walls = random_backgrounds(seeds % len(POSES))
        plain = attribute_table([PLAIN | {"background": float(wall)} for wall in walls])
        return torch.from_numpy(close_up_circumstances(plain, seeds, self.shape.latent_size)).to(self.device)

    def _write(self, model: Denoiser, step: int, left: np.ndarray, vectors: Float32[np.ndarray, "p d"]) -> None:
        people, poses = len(vectors), len(POSES)
        names = [control.name for control in self.shape.controls]
        neutral = {name: ATTRIBUTES[name].neutral for name in names}
        table = np.array([[(neutral | PLAIN | pose)[name] for name in names] for pose in POSES], np.float32)
        attributes = torch.from_numpy(np.tile(table, (people, 1))).to(self.device)
        seeds = np.arange(len(attributes))
        with torch.no_grad(), torch.autocast(torch.device(self.device).type, torch.bfloat16):
            latents = sample(
                model,
                torch.from_numpy(np.repeat(vectors, poses, 0)).to(self.device),
                attributes,
                torch.ones_like(attributes, dtype=torch.bool),
                torch.ones(len(attributes), dtype=torch.bool, device=self.device),
                seeds,
                self.drawing.scheduler,
                self.drawing.steps,
                self.drawing.guidance,
                self.prediction,
                circumstances=self._circumstances(seeds),
            )
            drawn = decoded(self.autoencoder, latents).cpu().numpy()
        rows = [np.concatenate([left[i], *drawn[i * poses : (i + 1) * poses]], 1) for i in range(people)]
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(self.folder / f"sheet_{step:06d}.png")
