"""The learning rate of every step, and how many steps an epoch has."""

from __future__ import annotations

import math

from recognition.train.recipe import Recipe

_SHARES = (0.5, 0.75, 0.9)  # of the steps after the warm-up, where a recipe names no milestones


def steps_per_epoch(images: int, recipe: Recipe) -> int:
    """Whole batches in an epoch, at least one: fewer pictures than a batch are one smaller batch."""
    return max(1, images // recipe.batch_size)


def lr_at(step: int, per_epoch: int, recipe: Recipe) -> float:
    """Learning rate of a step counted over the whole training from 0: a linear rise, then the schedule."""
    warmup, total = round(recipe.warmup_epochs * per_epoch), recipe.epochs * per_epoch
    if step < warmup:
        return recipe.peak_lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if recipe.schedule == "cosine":
        return recipe.peak_lr * (1 + math.cos(math.pi * done)) / 2
    if recipe.schedule == "polynomial":
        return recipe.peak_lr * (1 - done) ** recipe.power
    if recipe.schedule == "step":
        return recipe.peak_lr * recipe.factor ** _passed(step, done, per_epoch, recipe)
    return recipe.peak_lr


def _passed(step: int, done: float, per_epoch: int, recipe: Recipe) -> int:
    """Milestones that lie behind a step."""
    if recipe.milestones:
        return sum(step >= round(epoch * per_epoch) for epoch in recipe.milestones)
    return sum(done >= share for share in _SHARES)
