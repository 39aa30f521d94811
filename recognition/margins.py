"""Margins: what makes a softmax over identities pull faces of one person together.

A margin turns cosines into logits: it lowers the cosine of the true class, then multiplies everything by `scale`. The
loss is the cross-entropy of the logits. `MarginHead` holds the class centres and gives the cosines.

Two different losses are called ArcFace, and they train differently. In the formula's own ("exact"), the target's
gradient is d cos(theta + m) / d cos(theta) = sin(theta + m) / sin(theta). In insightface's ("straight_through"), the
margin is added without gradient, so it is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -1  # the label of a row without a true class: no margin is applied to it

# Keeps acos differentiable and theta + m below pi, where cos would rise again; the value of the AdaFace repository.
_EXACT_EPS = 1e-4


@runtime_checkable
class Margin(Protocol):
    """Cosines of b faces to c classes, and the true classes -> logits."""

    def __call__(self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "b c"]: ...


@dataclass(frozen=True)
class ArcFace:
    """Adds an angle to the angle between a face and its own class: scale * cos(theta + margin).

    ArcFace (Deng et al., 2019), equation 3: https://arxiv.org/abs/1801.07698

    With `gradient="exact"`, angles are clamped so that theta + margin stays below pi, as in the AdaFace repository;
    with `"straight_through"` the value wraps beyond pi, as in insightface.

    Args:
        margin_rad: The angle m, in [0, pi).
        scale: The factor s > 0. 64 for large sets and 512 dimensions; small ones train better with 32.
        gradient: "exact" or "straight_through".

    Raises:
        ValueError: If an argument is out of range.
    """

    margin_rad: float = 0.5
    scale: float = 64.0
    gradient: str = "straight_through"

    def __post_init__(self) -> None:
        if not 0 <= self.margin_rad < math.pi:
            raise ValueError(f"ArcFace.margin_rad: expected a value in [0, pi), got {self.margin_rad}")
        _check(self.scale, self.gradient, "ArcFace")

    def __call__(self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "b c"]:
        rows = (labels != IGNORED).nonzero().squeeze(1)
        if self.gradient == "exact":
            cosine = cosine.clamp(-1 + _EXACT_EPS, 1 - _EXACT_EPS)
            own = cosine[rows, labels[rows]]
            lowered = (own.acos() + self.margin_rad).clamp(_EXACT_EPS, math.pi - _EXACT_EPS).cos()
        else:
            cosine = cosine.clamp(-1, 1)
            own = cosine[rows, labels[rows]]
            lowered = own + ((own.acos() + self.margin_rad).cos() - own).detach()
        return self.scale * cosine.index_put((rows, labels[rows]), lowered)


@dataclass(frozen=True)
class CosFace:
    """Subtracts a constant from the cosine of a face to its own class: scale * (cos(theta) - margin).

    CosFace (Wang et al., 2018), equation 4: https://arxiv.org/abs/1801.09414. Its exact gradient is the
    straight-through one.

    Args:
        margin_cosine: The constant m, in [0, 1].
        scale: The factor s > 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    margin_cosine: float = 0.4
    scale: float = 64.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin_cosine <= 1:
            raise ValueError(f"CosFace.margin_cosine: expected a value in [0, 1], got {self.margin_cosine}")
        _check(self.scale, "exact", "CosFace")

    def __call__(self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "b c"]:
        rows = (labels != IGNORED).nonzero().squeeze(1)
        cosine = cosine.clamp(-1, 1)
        return self.scale * cosine.index_put((rows, labels[rows]), cosine[rows, labels[rows]] - self.margin_cosine)


class MarginHead(nn.Module):
    """Class centres and a margin: raw embeddings and labels -> logits, in float32 whatever the precision of the
    backbone.

    Args:
        classes: Number of identities c.
        dimensions: Length d of the embedding.
        margin: Cosines to logits.
    """

    def __init__(self, classes: int, dimensions: int, margin: Margin) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dimensions).normal_(0.0, 0.01))
        self.margin = margin

    def forward(self, embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "b c"]:
        cosine = F.normalize(embeddings.float()) @ F.normalize(self.weight).T
        return self.margin(cosine, labels)


def _check(scale: float, gradient: str, owner: str) -> None:
    if not scale > 0:
        raise ValueError(f"{owner}.scale: expected a value above 0, got {scale}")
    if gradient not in ("exact", "straight_through"):
        raise ValueError(f'{owner}.gradient: expected "exact" or "straight_through", got {gradient!r}')
