"""The bundled generator: the small latent diffusion model, trained on renders alone, conditioned on embedder A."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8

from generation import diffusion
from generation.close_up import CLOSE_UP_OF_PX, close_up_circumstances
from generation.sampling import LCM_STEPS, SCHEDULERS, Guidance, sample
from generation.weights import bundled
from generation.world import ATTRIBUTES, CONTROLS, attribute_table, expose
from generation.world.circumstances import random_backgrounds
from generation.world.scenes import Photograph, generator_attributes
from stages.records import Chunk, Images

NAME = "generator"  # in weights.json
# Done to a finished, sharp picture, exactly as the world's camera does: no latent has room for noise and JPEG, and blur
# and few pixels, which the model has learnt, it draws less exactly.
SHARP = {name: ATTRIBUTES[name].neutral for name in ("blur_px", "noise", "jpeg_quality", "low_resolution_px")}
CLOSER = CLOSE_UP_OF_PX / diffusion.SIZE_PX  # a close-up is a part of the picture whose pixels the plan counts
STRANGER_STEPS = 16  # at least; the weights' few are tuned for somebody who is told, and draw one face for all others
UNIT = 1e-3  # how far a unit vector's norm may be from 1
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Measured at three passes a step: torch and the model take 0.55 GB, and each picture 5.2 MB in bf16, 8.6 MB in fp32.
BYTES_OF_MODEL = 600_000_000
BYTES_OF_PICTURE = {"bf16": 6_000_000, "fp32": 10_000_000}


class Bundled:
    """Photographs the people of a chunk: unit vectors of embedder A in, close-ups out.

    An attribute that a plan does not name is left open: the picture's seed draws it, as photographs of the training
    were drawn. (In the world it would be neutral.) What no attribute names, the day's haircut or the framing, each
    picture has of its own seed, too. The model is told all of it. It has also learnt to be told nothing, which guidance
    starts from, but in few steps it answers that by the mean of all it might draw.

    Args:
        space: Of the vectors, literally: the space of the embedder that the model was trained with.
        steps: Denoising steps, 1 to 1000; at most 50 with "lcm".
        scheduler: "dpm" (DPM-Solver++), "ddim", "lcm", or "ddpm" (ancestral, the slow loop of IDiff-Face).
        guidance_identity: 1 for none; how far the identity is pushed. Distilled weights were taught a range of both.
        guidance_attributes: 1 for none; how far the attributes are pushed.
        precision: "bf16" (twice as fast on processors that have it) or "fp32".
        device: Of torch. Pictures of different devices and precisions are alike, not equal.
        threads: Threads of torch while it draws, at least 1. They change the speed, not the pictures.
        batch_size: Pictures at a time, a multiple of the threads: every batch has this shape, so that no picture
            depends on its chunk.
        weights: Folder of `weights.json` and the model; None for the bundled one.
    Raises:
        ValueError: If an argument is out of range, the space is another, or the weights are not those listed.
    """

    controls = CONTROLS
    ranges: ClassVar = {name: (attribute.low, attribute.high) for name, attribute in ATTRIBUTES.items()}
    licence = "this project's own: trained on its procedural world's renders alone"
    unit_vectors = True
    size_px = diffusion.SIZE_PX
    framing = "close-up"

    @staticmethod
    def weights_sha256(weights: str | Path | None = None) -> str:
        """What decides its pictures beside its arguments, wherever the folder is.

        Raises:
            ValueError: If the folder lists no generator.
        """
        return bundled(NAME, weights).sha256

    @staticmethod
    def vectors_of(weights: str | Path | None = None) -> str:
        """Preflight's question: hash of the embedder whose vectors the model has learnt from; "" where nobody says.

        Raises:
            ValueError: If the folder lists no generator.
        """
        return bundled(NAME, weights).vectors_of

    @staticmethod
    def check_settings(
        steps: Any = 3,
        scheduler: Any = "dpm",
        guidance_identity: Any = 1.0,
        guidance_attributes: Any = 1.0,
        precision: Any = "bf16",
        threads: Any = 1,
        batch_size: Any = 16,
    ) -> None:
        """Preflight's question, answered without a model loaded: are the settings, whatever a config has, in range?

        Raises:
            ValueError: If one is not.
        """
        for name, number in (("steps", steps), ("threads", threads), ("batch_size", batch_size)):
            if not isinstance(number, int):
                raise ValueError(f"{name}: expected a whole number, got {number!r}")
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {scheduler!r}")
        most = LCM_STEPS if scheduler == "lcm" else 1000
        if not 1 <= steps <= most:
            raise ValueError(f"steps: expected 1 to {most} with scheduler {scheduler!r}, got {steps}")
        for name, value in (("guidance_identity", guidance_identity), ("guidance_attributes", guidance_attributes)):
            if not isinstance(value, int | float) or not 0 <= value <= 20:
                raise ValueError(f"{name}: expected 0 to 20, got {value!r}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        if threads < 1 or batch_size < 1:
            raise ValueError(f"threads, batch_size: expected at least 1, got {threads}, {batch_size}")
        # torch's GroupNorm sums over a thread's part of the batch: a picture in two parts is rounded differently.
        if batch_size % threads:
            raise ValueError(f"batch_size: expected a multiple of {threads} threads, got {batch_size}")

    @staticmethod
    def check_weights(weights: str | Path | None = None) -> None:
        """Preflight's question, answered without a model loaded: is the right file there?

        Raises:
            ValueError: If the file is missing or not the one listed.
        """
        bundled(NAME, weights).verify()

    @staticmethod
    def memory_bytes(batch_size: int = 16, precision: str = "bf16") -> int:
        """Preflight's question, answered without a model loaded: what one worker takes at most, about."""
        return BYTES_OF_MODEL + batch_size * BYTES_OF_PICTURE.get(precision, BYTES_OF_PICTURE["fp32"])

    def __init__(
        self,
        space: str,
        steps: int = 3,
        scheduler: str = "dpm",
        guidance_identity: float = 1.0,
        guidance_attributes: float = 1.0,
        precision: str = "bf16",
        device: str = "cpu",
        threads: int = 1,
        batch_size: int = 16,
        weights: str | Path | None = None,
    ) -> None:
        self.check_settings(steps, scheduler, guidance_identity, guidance_attributes, precision, threads, batch_size)
        if device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device: expected 'cpu' where torch sees no CUDA device, got {device!r}")
        model = diffusion.load(bundled(NAME, weights).verify())
        if space != model.space:
            raise ValueError(f"space: expected {model.space!r}, which the weights were trained with, got {space!r}")
        self.space, self.steps, self.scheduler, self.threads = space, steps, scheduler, threads
        self.device, self._batch_size = device, batch_size
        self._guidance = Guidance(guidance_identity, guidance_attributes)
        _check_taught(self._guidance, model.taught)
        self._model = model.to(device, PRECISIONS[precision])
        self._told = [control.name for control in model.denoiser.shape.controls]

    def __call__(self, chunk: Chunk) -> Images:
        """Raises ValueError if a vector is no unit vector of the space, or an attribute is unknown or out of range."""
        vector_of = {person.id: person.vector for person in chunk.identities}
        for person in chunk.identities:
            self._check_vector(person.id, person.vector)
        for row in chunk.variations:
            _check_attributes(row.key, row.attributes)
        rows = chunk.variations
        photographs = [_photograph(row.attributes, row.seed) for row in rows]
        vectors = np.stack([vector_of[row.identity_id] for row in rows])
        seeds = np.array([row.seed for row in rows], np.int64)
        pixels = self._drawn(vectors, photographs, np.ones(len(rows), bool), seeds, self.steps)
        return Images(chunk, pixels)

    def strangers(self, seeds: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 112 112 3"]:
        """Pictures of nobody asked for, in `STRANGER_STEPS` or more: samples of the model without an identity."""
        nobody = np.zeros((len(seeds), self._model.denoiser.shape.identity_dimensions), np.float32)
        photographs = [_photograph({}, int(seed)) for seed in seeds]
        return self._drawn(nobody, photographs, np.zeros(len(seeds), bool), seeds, max(self.steps, STRANGER_STEPS))

    def _drawn(
        self,
        vectors: Float32[np.ndarray, "b d"],
        photographs: Sequence[Photograph],
        someone: Bool[np.ndarray, " b"],
        seeds: Int64[np.ndarray, " b"],
        steps: int,
    ) -> UInt8[np.ndarray, "b 112 112 3"]:
        sharp = [photograph | SHARP for photograph in photographs]
        table = np.array([[photograph[name] for name in self._told] for photograph in sharp], np.float32)
        circumstances = self._circumstances(photographs, seeds)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        parts = [
            self._batch(steps, vectors[s], table[s], someone[s], circumstances[s], seeds[s])
            for s in self._slices(len(seeds))
        ]
        torch.set_num_threads(before)  # of the process, in which a recogniser may be trained next
        pixels = np.concatenate(parts)
        for picture, photograph, seed in zip(pixels, photographs, seeds, strict=True):
            _through_the_camera(picture, photograph, int(seed))
        return pixels

    def _circumstances(
        self, photographs: Sequence[Photograph], seeds: Int64[np.ndarray, " b"]
    ) -> Float32[np.ndarray, "b c"]:
        shape = self._model.denoiser.shape
        if not shape.circumstances:
            return np.zeros((len(seeds), 0), np.float32)
        return close_up_circumstances(attribute_table(photographs), seeds, shape.latent_size)

    def _slices(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self._batch_size) for first in range(0, rows, self._batch_size))

    def _batch(self, steps: int, *told: np.ndarray) -> np.ndarray:
        """Pictures of one batch: vectors, attributes, whether they are of someone, circumstances, seeds."""
        rows, spare = len(told[0]), self._batch_size - len(told[0])
        *filled, seeds = (np.concatenate([a, np.repeat(a[-1:], spare, 0)]) for a in told)
        vector, attributes, who, circumstances = (torch.from_numpy(array).to(self.device) for array in filled)
        latents = sample(
            self._model.denoiser,
            vector,
            attributes,
            torch.ones_like(attributes, dtype=torch.bool),
            who,
            seeds,
            self.scheduler,
            steps,
            self._guidance,
            self._model.prediction,
            distilled=self._model.taught is not None,
            circumstances=circumstances,
        )
        pixels = diffusion.decoded(self._model.autoencoder, latents)
        return pixels[:rows].cpu().numpy()

    def _check_vector(self, person: int, vector: np.ndarray) -> None:
        wanted = self._model.denoiser.shape.identity_dimensions
        if vector.shape != (wanted,):
            raise ValueError(f"identity {person}: expected a vector of {wanted} numbers, got shape {vector.shape}")
        norm = float(np.linalg.norm(vector))
        if not abs(norm - 1) <= UNIT:  # NaN is not, either
            raise ValueError(f"identity {person}: expected a unit vector of {self.space}, got norm {norm:.4g}")


def _check_taught(guidance: Guidance, taught: diffusion.Taught | None) -> None:
    for name, value, (low, high) in zip(Guidance._fields, guidance, taught or (), strict=False):
        if not low <= value <= high:
            raise ValueError(
                f"guidance_{name}: expected {low:g} to {high:g}, which the distilled weights were taught, got {value:g}"
            )


def _check_attributes(key: str, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if name not in Bundled.ranges:
            raise ValueError(f"{key}: unknown attribute {name!r}, expected one of {', '.join(Bundled.controls)}")
        low, high = Bundled.ranges[name]
        if not low <= value <= high:
            raise ValueError(f"{key}: expected {low:g} <= {name} <= {high:g}, got {value}")


def _photograph(asked: Mapping[str, Any], seed: int) -> Photograph:
    """A photograph with every attribute: those that are asked for, all others as the seed draws them."""
    drawn = generator_attributes(1, np.random.default_rng([seed, 79]))[0]
    wall = float(random_backgrounds(np.array([seed]))[0])
    return drawn | {"background": wall} | {name: float(value) for name, value in asked.items()}


def _through_the_camera(picture: UInt8[np.ndarray, "112 112 3"], photograph: Photograph, seed: int) -> None:
    """Does to the picture, in place, what the photograph's camera does."""
    if any(photograph[name] != neutral for name, neutral in SHARP.items()):
        blur_px, noise, quality, low_resolution_px = (photograph[name] for name in SHARP)
        exact, rng = picture.astype(np.float32) / 255, np.random.default_rng(seed)
        picture[:] = expose(exact, blur_px * CLOSER, noise, quality, low_resolution_px / CLOSER, rng)
