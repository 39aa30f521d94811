"""How far drawings are from the pictures that they are of: what the autoencoder and its decoder lose by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from generation import objectives
from generation.pixels import wide
from generation.train.mirror import READ_PLACES

Numbers = Callable[[Tensor, Tensor], Tensor]  # pictures, crops in [-1, 1] -> standardised `NUMBERS` (b, a)


@dataclass(frozen=True, eq=False)
class Beholder:
    """What looks at drawings and pictures, differentiably, on their device; its weights do not change.

    Attributes:
        features: Of aligned crops in [-1, 1].
        numbers: What a reader sees; None where no drawing is read.
    """

    features: objectives.Features
    numbers: Numbers | None = None


@runtime_checkable
class Weighs(Protocol):
    """A recipe that says what counts how much, beside the whole picture's mean absolute difference."""

    @property
    def crop_weight(self) -> float: ...
    @property
    def edge_weight(self) -> float: ...
    @property
    def perceptual_weight(self) -> float: ...
    @property
    def reading_weight(self) -> float: ...


WEIGHTS = ("crop_weight", "edge_weight", "perceptual_weight", "reading_weight")


def unlike(
    drawn: Float[Tensor, "b 3 h w"],
    pixels: Float[Tensor, "b 3 h w"],
    to_crop: Float[Tensor, "b 2 3"],
    beholder: Beholder,
) -> dict[str, Float[Tensor, ""]]:
    """Differences of drawings and pictures in [-1, 1], unweighted: "whole", "crop", "edge", "perceptual", "reading"."""
    ours, theirs = (wide(objectives.placed(whole, to_crop)) for whole in (drawn, pixels))
    seen = beholder.features(ours)
    with torch.no_grad():
        wanted = beholder.features(theirs)
    reading = drawn.new_zeros(())
    if beholder.numbers is not None:
        read = beholder.numbers(wide(drawn), ours)[:, READ_PLACES].float()
        with torch.no_grad():
            there = beholder.numbers(wide(pixels), theirs)[:, READ_PLACES].float()
        reading = objectives.number_distance(read, there).sum(1).mean()
    return {
        "whole": (drawn - pixels).abs().mean(),
        "crop": (ours - theirs).abs().mean(),
        "edge": objectives.edge_distance(drawn, pixels),
        "perceptual": objectives.perceptual_distance(seen, wanted),
        "reading": reading,
    }


def weighted(parts: dict[str, Float[Tensor, ""]], recipe: Weighs) -> Float[Tensor, ""]:
    """Those differences as one number."""
    return (
        parts["whole"]
        + recipe.crop_weight * parts["crop"]
        + recipe.edge_weight * parts["edge"]
        + recipe.perceptual_weight * parts["perceptual"]
        + recipe.reading_weight * parts["reading"]
    )


def check_beholder(beholder: Beholder, recipe: Weighs) -> None:
    """Raises ValueError where readings count and nothing reads."""
    if recipe.reading_weight and beholder.numbers is None:
        raise ValueError(f"reading_weight: expected a beholder that reads for {recipe.reading_weight}, got none")
