"""Calibration: a denoiser asked for a smile is to smile as much as a render that was asked for it.

A squared error is smallest at the mean of what may be, so a denoiser answers an attribute that is hard to see in a
noisy picture with less than was asked. What it is told is therefore stretched about the mean of what it has been told,
until a reader sees most nearly what it sees in renders of the same photographs. A token is linear in an attribute's
features, so the stretch is put into the weights: it costs nothing in sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from generation import diffusion
from generation.diffusion import Denoiser, FaceDiffusion
from generation.regressor import NUMBERS
from generation.sampling import SCHEDULERS, Guidance, sample
from generation.train.loop import Say
from generation.train.mirror import READ
from generation.train.recipe import PRECISIONS, at_least, one_of, within

Read = Callable[[UInt8[np.ndarray, "n s s 3"]], Float[np.ndarray, "n k"]]


@dataclass(frozen=True)
class CalibrationRecipe:
    """How the stretches are found.

    Attributes:
        attributes: Which are stretched. Pose and light, which a noisy picture shows, are answered in full without; to
            stretch them as well made people less themselves (rank-1 among 100 0.89 instead of 0.94). Eyes are open in
            the photographs that stand for people, so nothing can be found for their closing.
        batches: Each with a stretch of its own for each attribute.
        batch_size: Pictures in each.
        lowest, highest: Between which stretches are tried, evenly. Smiles alone asked for larger ones (1.75), which
            took people away from themselves (embedder A's cosine 0.756 instead of 0.766).
        steps, scheduler: Of the sampling that is calibrated.
        seed: Of rows, stretches and noise.
        precision: "bf16" or "fp32", of the network while it draws.
        threads: Of torch.
    Raises:
        ValueError: If a value is out of range.
    """

    attributes: tuple[str, ...] = (
        "smile",
        "mouth_open",
        "gaze_yaw_deg",
        "gaze_pitch_deg",
        "age_years",
    )
    batches: int = 120
    batch_size: int = 48
    lowest: float = 0.75
    highest: float = 1.4
    steps: int = 3
    scheduler: str = "dpm"
    seed: int = 37
    precision: str = "bf16"
    threads: int = 1

    def __post_init__(self) -> None:
        unread = sorted(set(self.attributes) - set(READ))
        if unread:
            raise ValueError(f"attributes: expected some of {', '.join(READ)}, got {', '.join(unread)}")
        one_of(self, PRECISIONS, "precision")
        one_of(self, SCHEDULERS, "scheduler")
        at_least(self, 1, "batches", "batch_size", "steps", "threads")
        at_least(self, 0, "seed")
        within(self, "more than 0, at most 1", lambda stretch: 0 < stretch <= 1, "lowest")
        within(self, "at least 1, above lowest", lambda stretch: stretch >= 1 and stretch > self.lowest, "highest")


@dataclass(frozen=True, eq=False)
class Asked:
    """Photographs that there are renders of, of people that the denoiser was not trained on.

    Attributes:
        vectors: Unit vectors of the people.
        attributes: In the order of the denoiser's controls.
        rendered: `NUMBERS` that the reader sees in the renders, in their units; NaN where there is no face.
        circumstances: As the denoiser's shape counts them; None for one that is told none.
    """

    vectors: Float32[np.ndarray, "n d"]
    attributes: Float32[np.ndarray, "n a"]
    rendered: Float[np.ndarray, "n k"]
    circumstances: Float32[np.ndarray, "n m"] | None = None


@torch.no_grad()
def calibrate(
    model: FaceDiffusion,
    learnt: Float32[np.ndarray, "m a"],
    asked: Asked,
    read: Read,
    recipe: CalibrationRecipe,
    say: Say,
    device: str = "cpu",
) -> dict[str, float]:
    """Stretches what the model's denoiser is told, in its weights.

    Args:
        learnt: Attributes that the denoiser was trained on; what it is told is stretched about their mean.
        read: Numbers seen in pictures, in their units, by a regressor that does not certify the model. NaN: no face.
    Returns:
        The stretch of each of the recipe's attributes that the denoiser is told.
    Raises:
        ValueError: If fewer than half of the pictures show a face.
    """
    torch.set_num_threads(recipe.threads)
    denoiser, controls = model.denoiser, model.denoiser.shape.controls
    about = denoiser.features(torch.from_numpy(learnt)).mean(0)
    born = denoiser.code.detach().clone(), denoiser.place.detach().clone()
    number_of = {place: NUMBERS.index(c.name) for place, c in enumerate(controls) if c.name in recipe.attributes}
    tried, rows = _trials(recipe, len(controls), list(number_of), len(asked.vectors))
    drawing = copy.deepcopy(model).to(device, torch.bfloat16 if recipe.precision == "bf16" else torch.float32)
    seen = []
    for batch, stretch in enumerate(tried):
        _tell(drawing.denoiser, *stretched(*born, about, torch.from_numpy(stretch)))
        seen.append(read(_drawn(drawing, asked, rows[batch], recipe, batch, device)))
        if batch % 20 == 19:
            say(f"calibrate: {batch + 1} of {recipe.batches} batches")
    found = _found(asked, np.concatenate(seen), tried, rows, number_of, recipe)
    _tell(denoiser, *stretched(*born, about, torch.from_numpy(found)))
    return {controls[place].name: float(found[place]) for place in number_of}


def stretched(
    code: Float[Tensor, "a f w"], place: Float[Tensor, "a w"], about: Float[Tensor, "a f"], stretch: Float[Tensor, " a"]
) -> tuple[Float[Tensor, "a f w"], Float[Tensor, "a w"]]:
    """`code` and `place` of a denoiser whose features f act as about + stretch * (f - about)."""
    kept = torch.einsum("af,afw->aw", (1 - stretch)[:, None] * about, code)
    return stretch[:, None, None] * code, place + kept


def nearest(off: Float[np.ndarray, " n"], stretch: Float[np.ndarray, " n"], lowest: float, highest: float) -> float:
    """The stretch at which a parabola through the squares of `off` is lowest, by least squares; NaN is left out."""
    there = np.isfinite(off)
    parabola = np.polynomial.Polynomial.fit(stretch[there], off[there] ** 2, 2)
    tried = np.linspace(lowest, highest, 1001)
    return float(tried[parabola(tried).argmin()])


def _trials(
    recipe: CalibrationRecipe, controls: int, numbers: list[int], photographs: int
) -> tuple[Float32[np.ndarray, "t a"], Int64[np.ndarray, "t b"]]:
    """The stretches of each batch, 1 where nothing is to be stretched, and the photographs in it."""
    rng = np.random.default_rng(recipe.seed)
    tried = np.ones((recipe.batches, controls), np.float32)
    tried[:, numbers] = rng.uniform(recipe.lowest, recipe.highest, (recipe.batches, len(numbers)))
    return tried, rng.integers(0, photographs, (recipe.batches, recipe.batch_size))


def _found(
    asked: Asked,
    seen: Float[np.ndarray, "n k"],
    tried: Float32[np.ndarray, "t a"],
    rows: Int64[np.ndarray, "t b"],
    number_of: dict[int, int],
    recipe: CalibrationRecipe,
) -> Float32[np.ndarray, " a"]:
    """The stretch of each control from what is seen in all pictures."""
    faces = int(np.isfinite(seen).all(1).sum())
    if 2 * faces < len(seen):
        raise ValueError(f"calibration: expected faces in at least half of {len(seen)} pictures, found {faces}")
    found = np.ones(tried.shape[1], np.float32)
    for place, number in number_of.items():
        off = seen[:, number] - asked.rendered[rows.ravel(), number]
        found[place] = nearest(off, np.repeat(tried[:, place], rows.shape[1]), recipe.lowest, recipe.highest)
    return found


def _tell(denoiser: Denoiser, code: Float[Tensor, "a f w"], place: Float[Tensor, "a w"]) -> None:
    denoiser.code.copy_(code)
    denoiser.place.copy_(place)


def _drawn(
    model: FaceDiffusion,
    asked: Asked,
    rows: Int64[np.ndarray, " b"],
    recipe: CalibrationRecipe,
    batch: int,
    device: str,
) -> UInt8[np.ndarray, "b s s 3"]:
    """Pictures of some rows, as the generator draws them; a distilled model is told the least guidance it learnt."""
    vectors, attributes = (torch.from_numpy(table[rows]).to(device) for table in (asked.vectors, asked.attributes))
    circumstances = None
    if asked.circumstances is not None:
        circumstances = torch.from_numpy(asked.circumstances[rows]).to(device)
    seeds = np.random.SeedSequence([recipe.seed, batch]).generate_state(len(rows), np.uint64) >> np.uint64(1)
    latents = sample(
        model.denoiser,
        vectors,
        attributes,
        torch.ones_like(attributes, dtype=torch.bool),
        torch.ones(len(rows), dtype=torch.bool, device=device),
        seeds.astype(np.int64),
        recipe.scheduler,
        recipe.steps,
        Guidance() if model.taught is None else Guidance(*(low for low, _ in model.taught)),
        model.prediction,
        distilled=model.taught is not None,
        circumstances=circumstances,
    )
    return diffusion.decoded(model.autoencoder, latents).cpu().numpy()
