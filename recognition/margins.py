"""Margins: what makes a softmax over identities pull faces of one person together.

A margin turns cosines into logits: it lowers the cosine of the true class, then multiplies everything by `scale`. The
loss is the cross-entropy of the logits. A margin is a description, which a recipe hashes; its `module()` computes.
`recognition.partial_fc.PartialFC` holds the class centres and gives the cosines.

Two different losses are called ArcFace, and they train differently. In the formula's own ("exact"), the target's
gradient is d cos(theta + m) / d cos(theta) = sin(theta + m) / sin(theta). In insightface's ("straight_through"), the
margin is added without gradient, so it is 1.

A module is called as `module(cosine, labels, norms)`: `Float["b c"]` cosines of b faces to c classes, `Int64["b"]` the
column of each face's own class, or `IGNORED` where it has none among these, and `Float["b"]` the lengths of the raw
embeddings; it gives `Float["b c"]` logits in the precision of the cosines. Where the classes are spread over processes,
all are called with all faces, each with its own columns; what a margin must know of the other columns it asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, distributed, nn

IGNORED = -1  # the label of a row whose true class is not among the columns: no margin is applied to it

# Keeps acos differentiable and theta + m below pi, where cos would rise again; the values of the AdaFace repository.
_EXACT_EPS = 1e-4
_ADAFACE_EPS = 1e-3
_ADAFACE_NORMS = (1e-3, 100.0)  # norms outside are taken for the bound
_ADAFACE_START = (20.0, 100.0)  # mean and standard deviation of the norms before the first step


@runtime_checkable
class Margin(Protocol):
    """What a recipe says of its loss: fields to be hashed, and the module that computes with them."""

    @property
    def scale(self) -> float: ...

    def module(self) -> nn.Module: ...


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
        _check_scale(self.scale, "ArcFace")
        _one_of(self.gradient, ("exact", "straight_through"), "ArcFace.gradient")

    def module(self) -> nn.Module:
        return _ArcFace(self)


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
        _check_scale(self.scale, "CosFace")

    def module(self) -> nn.Module:
        return _CosFace(self)


@dataclass(frozen=True)
class AdaFace:
    """A margin that depends on a picture's quality, of which the length of its raw embedding tells.

    AdaFace (Kim et al., 2022), https://arxiv.org/abs/2204.00964. With the length's place among the others,
    z = clip(concentration * (norm - mean) / std, -1, 1), the logit of the own class is
    scale * (cos(theta - margin z) - (margin + margin z)): ArcFace for the poorest pictures (z = -1), CosFace for the
    average one (z = 0), and a negative angle under twice CosFace's margin for the best (z = 1).

    Mean and standard deviation (of all processes' faces, with n - 1) are running averages, updated before they are
    used, in training mode only; both are buffers. As in the authors' code, norms are clipped to [0.001, 100] and
    carry no gradient, and cosines are kept 0.001 from -1 and 1.

    Args:
        margin: m, both an angle in radians and a cosine, in [0, 1].
        concentration: h > 0, by which lengths are spread over [-1, 1].
        scale: The factor s > 0.
        decay: Weight of the newest batch in the running averages, t_alpha, in (0, 1]. The authors train with 0.01; the
            default of their class is 1, which forgets everything before this batch.

    Raises:
        ValueError: If an argument is out of range; in training, if there are fewer than 2 faces, whose standard
            deviation nobody knows.
    """

    margin: float = 0.4
    concentration: float = 0.333
    scale: float = 64.0
    decay: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ValueError(f"AdaFace.margin: expected a value in [0, 1], got {self.margin}")
        if not 0 < self.concentration < math.inf:
            raise ValueError(f"AdaFace.concentration: expected a finite value above 0, got {self.concentration}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"AdaFace.decay: expected a value in (0, 1], got {self.decay}")
        _check_scale(self.scale, "AdaFace")

    def module(self) -> nn.Module:
        return _AdaFace(self)


@dataclass(frozen=True)
class ElasticFace:
    """ArcFace or CosFace with a margin that is drawn anew for each face: m ~ N(mean, std).

    ElasticFace (Boutros et al., 2022), https://arxiv.org/abs/2109.09416. With "_plus", the batch's
    margins are sorted and dealt out by the cosines of the faces to their own classes. The authors' code deals the
    sorted margins by the permutation that sorts the cosines in falling order, not by the faces' ranks in it: face i
    gets the margin at place permutation[i]. So does this one. Gradients are exact; beyond pi the angle wraps.

    Margins come from torch's global CPU generator, one for each face of the batch: a seeded run repeats, and processes
    that are seeded alike draw alike.

    Args:
        variant: "arc", "arc_plus", "cos" or "cos_plus".
        mean: Mean of the margins: radians with "arc", in [0, pi), a cosine with "cos", in [0, 1]. The authors' are 0.5
            and 0.35.
        std: Their standard deviation, at least 0. The authors' are 0.05, with "arc_plus" 0.0175, with "cos_plus" 0.025.
        scale: The factor s > 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    variant: str
    mean: float
    std: float
    scale: float = 64.0

    def __post_init__(self) -> None:
        _one_of(self.variant, ("arc", "arc_plus", "cos", "cos_plus"), "ElasticFace.variant")
        limit = math.pi if self.variant.startswith("arc") else 1.0
        if not 0 <= self.mean <= limit:
            raise ValueError(f"ElasticFace.mean: expected a value in [0, {limit:.4g}], got {self.mean}")
        if not 0 <= self.std < math.inf:
            raise ValueError(f"ElasticFace.std: expected a finite value of at least 0, got {self.std}")
        _check_scale(self.scale, "ElasticFace")

    def module(self) -> nn.Module:
        return _ElasticFace(self)


@dataclass(frozen=True)
class Filtered:
    """Another margin, which does not see the classes that are too similar to a face to be other people.

    Cosines above `max_cosine` to classes that are not a face's own are set to 0, without gradient: two classes of a
    noisy set may be one person. insightface's `interclass_filtering_threshold`, with 0.4 for noisy sets.

    A margin of its own rather than a field of the others: a recipe that does not filter keeps its hash.

    Args:
        margin: What is applied afterwards.
        max_cosine: The largest cosine to another class that is believed, in (0, 1].

    Raises:
        ValueError: If `max_cosine` is out of range.
    """

    margin: ArcFace | CosFace | AdaFace | ElasticFace
    max_cosine: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.max_cosine <= 1:
            raise ValueError(f"Filtered.max_cosine: expected a value in (0, 1], got {self.max_cosine}")

    @property
    def scale(self) -> float:
        return self.margin.scale

    def module(self) -> nn.Module:
        return _Filtered(self)


class _ArcFace(nn.Module):
    def __init__(self, told: ArcFace) -> None:
        super().__init__()
        self.told = told

    def forward(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], norms: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        rows, columns = _own(labels)
        if self.told.gradient == "exact":
            cosine = cosine.clamp(-1 + _EXACT_EPS, 1 - _EXACT_EPS)
            own = cosine[rows, columns]
            lowered = (own.acos() + self.told.margin_rad).clamp(_EXACT_EPS, math.pi - _EXACT_EPS).cos()
        else:
            cosine = cosine.clamp(-1, 1)
            own = cosine[rows, columns]
            lowered = own + ((own.acos() + self.told.margin_rad).cos() - own).detach()
        return self.told.scale * cosine.index_put((rows, columns), lowered)


class _CosFace(nn.Module):
    def __init__(self, told: CosFace) -> None:
        super().__init__()
        self.told = told

    def forward(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], norms: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        rows, columns = _own(labels)
        cosine = cosine.clamp(-1, 1)
        lowered = cosine[rows, columns] - self.told.margin_cosine
        return self.told.scale * cosine.index_put((rows, columns), lowered)


class _AdaFace(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, told: AdaFace) -> None:
        super().__init__()
        self.told = told
        for name, start in zip(("mean", "std"), _ADAFACE_START, strict=True):
            self.register_buffer(name, torch.tensor(start))

    def forward(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], norms: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        rows, columns = _own(labels)
        norms = norms.detach().clamp(*_ADAFACE_NORMS)
        if self.training:
            self._follow(norms)
        quality = ((norms - self.mean) / (self.std + _ADAFACE_EPS) * self.told.concentration).clamp(-1, 1)[rows]
        cosine = cosine.clamp(-1 + _ADAFACE_EPS, 1 - _ADAFACE_EPS)
        theta = cosine[rows, columns].acos() - self.told.margin * quality
        lowered = theta.clamp(_ADAFACE_EPS, math.pi - _ADAFACE_EPS).cos() - self.told.margin * (1 + quality)
        return self.told.scale * cosine.index_put((rows, columns), lowered)

    @torch.no_grad()
    def _follow(self, norms: Tensor) -> None:
        if len(norms) < 2:
            raise ValueError(f"AdaFace: expected at least 2 faces in a batch, got {len(norms)}")
        self.mean.lerp_(norms.mean(), self.told.decay)
        self.std.lerp_(norms.std(), self.told.decay)


class _ElasticFace(nn.Module):
    def __init__(self, told: ElasticFace) -> None:
        super().__init__()
        self.told = told

    def forward(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], norms: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        # As float32 on the CPU whatever the cosines are: the same margins on every device.
        drawn = torch.normal(self.told.mean, self.told.std, (len(labels),)).to(cosine)
        return self.with_margins(cosine, labels, drawn)

    def with_margins(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], margins: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """The logits with these margins, one for each face."""
        rows, columns = _own(labels)
        cosine = cosine.clamp(-1, 1)
        own = cosine[rows, columns]
        if self.told.variant.endswith("_plus"):
            margins = _dealt(margins, own.detach(), rows)
        margins = margins[rows]
        if self.told.variant.startswith("cos"):
            lowered = own - margins
        else:
            edge = 1 - torch.finfo(own.dtype).eps  # the slope of acos is infinite at 1
            lowered = (own.clamp(-edge, edge).acos() + margins).cos()
        return self.told.scale * cosine.index_put((rows, columns), lowered)


class _Filtered(nn.Module):
    def __init__(self, told: Filtered) -> None:
        super().__init__()
        self.told = told
        self.margin = told.margin.module()

    def forward(
        self, cosine: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], norms: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        too_similar = cosine > self.told.max_cosine
        too_similar[_own(labels)] = False
        return self.margin(cosine.masked_fill(too_similar, 0), labels, norms)


def _own(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the cosines of faces to their own classes."""
    rows = (labels != IGNORED).nonzero().squeeze(1)
    return rows, labels[rows]


def _dealt(margins: Tensor, own: Tensor, rows: Tensor) -> Tensor:
    """ElasticFace's "plus": the margins of the batch, dealt by all faces' cosines to their own classes.

    Args:
        margins: (b,) as drawn.
        own: (n,) the cosines known here, of the faces `rows`; the others are asked of the other processes.
        rows: (n,) places in the batch.
    """
    known = margins.new_zeros(2, len(margins))  # the cosine, and whether there is one
    known[0, rows], known[1, rows] = own, 1.0
    if distributed.is_initialized():
        distributed.all_reduce(known)
    there = (known[1] > 0).nonzero().squeeze(1)
    order = known[0, there].argsort(descending=True, stable=True)
    dealt = margins.clone()
    dealt[there] = margins[there].sort().values[order]
    return dealt


def _check_scale(scale: float, owner: str) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"{owner}.scale: expected a finite value above 0, got {scale}")


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
