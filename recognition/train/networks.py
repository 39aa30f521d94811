"""The networks of a recipe: a backbone and the class centres with their margin."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recognition.backbones import BACKBONES
from recognition.margins import MarginHead
from recognition.train.recipe import Recipe


class _WholeHead(MarginHead):
    """PartialFC of one process with every class."""

    def __init__(self, classes, dimensions, margin, sample_rate=1.0):  # type: ignore[no-untyped-def]
        super().__init__(classes, dimensions, margin)
        self.first, self.count = 0, classes

    def forward(self, embeddings, labels):  # type: ignore[no-untyped-def]
        return F.cross_entropy(super().forward(embeddings, labels), labels)

    def whole_weight(self) -> Tensor:
        return self.weight.detach()

    def load_whole(self, weight: Tensor) -> None:
        with torch.no_grad():
            self.weight.copy_(weight)


def backbone(recipe: Recipe, device: torch.device) -> nn.Module:
    """The recipe's backbone with fresh weights, from torch's global generator.

    Raises:
        ValueError: If the recipe drops features and the backbone has no place for it.
    """
    build = BACKBONES[recipe.backbone]
    if recipe.dropout and "dropout" not in inspect.signature(build).parameters:
        raise ValueError(f"Recipe.dropout: expected 0, as {recipe.backbone} drops nothing, got {recipe.dropout}")
    model = build(dropout=recipe.dropout) if recipe.dropout else build()  # type: ignore[call-arg]
    # Channels last in memory: up to 1.4 times faster convolutions on CPUs, and what tensor cores take.
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def head(recipe: Recipe, classes: int, model: nn.Module, device: torch.device) -> _WholeHead:
    """The recipe's head: this process's part of the class centres."""
    return _WholeHead(classes, dimensions(model), recipe.margin, recipe.sample_rate).to(device)


def dimensions(model: nn.Module) -> int:
    """Length of a backbone's embedding."""
    return int(model.dimensions)  # type: ignore[arg-type]


def logits_of(margin: object, cosine: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
    """Logits of a margin that has seen nothing yet."""
    return margin(cosine, labels)  # type: ignore[operator]
