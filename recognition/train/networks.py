"""The networks of a recipe: a backbone and the class centres with their margin."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from recognition.backbones import BACKBONES
from recognition.partial_fc import PartialFC
from recognition.train.recipe import Recipe


def backbone(recipe: Recipe, device: torch.device) -> nn.Module:
    """The recipe's backbone with fresh weights, from torch's global generator.

    Raises:
        ValueError: If the recipe drops features and the backbone has no place for it.
    """
    build = BACKBONES[recipe.backbone]
    drops = "dropout" in inspect.signature(build).parameters
    if recipe.dropout and not drops:
        raise ValueError(f"Recipe.dropout: expected 0, as {recipe.backbone} drops nothing, got {recipe.dropout}")
    model = build(dropout=recipe.dropout) if drops else build()
    # Channels last in memory: up to 1.4 times faster convolutions on CPUs, and what tensor cores take.
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def outline(recipe: Recipe) -> nn.Module:
    """The recipe's backbone without memory for its weights: names and shapes.

    Raises:
        ValueError: As `backbone`.
    """
    meta = torch.device("meta")
    with meta:
        return backbone(recipe, meta)


def head(recipe: Recipe, classes: int, model: nn.Module, device: torch.device) -> PartialFC:
    """The recipe's head: this process's part of the class centres."""
    return PartialFC(classes, dimensions(model), recipe.margin, recipe.sample_rate).to(device)


def dimensions(model: nn.Module) -> int:
    """Length of a backbone's embedding."""
    return int(model.dimensions)  # type: ignore[arg-type]
