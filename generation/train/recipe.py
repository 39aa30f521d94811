"""What a recipe is checked by when it is made: what is out of range is refused by name before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

PRECISIONS = ("bf16", "fp32")


def one_of(recipe: object, allowed: Collection[str], *names: str) -> None:
    """Raises ValueError for the first of the named values that is not allowed."""
    within(recipe, f"one of {', '.join(allowed)}", lambda value: value in allowed, *names)


def at_least(recipe: object, lowest: float, *names: str) -> None:
    """Raises ValueError for the first of the named numbers that is smaller."""
    within(recipe, f"at least {lowest}", lambda value: value >= lowest, *names)


def within(recipe: object, expected: str, fits: Callable[[Any], bool], *names: str) -> None:
    """Raises ValueError for the first of the named values that does not fit. NaN fits nowhere."""
    for name in names:
        value = getattr(recipe, name)
        if not fits(value):
            raise ValueError(f"{name}: expected {expected}, got {value!r}")


def check_steps(recipe: object) -> None:
    """Checks what every training reads of its recipe."""
    one_of(recipe, PRECISIONS, "precision")
    at_least(recipe, 1, "steps", "batch_size", "threads", "checkpoint_every")
    at_least(recipe, 0, "seed")
    within(recipe, "more than 0", lambda lr: lr > 0, "peak_lr")


def check_average(recipe: object) -> None:
    """Checks what `loop.Averaged` reads of a recipe."""
    check_steps(recipe)
    at_least(recipe, 0, "warmup_steps", "weight_decay")
    within(recipe, "0 to less than 1", lambda decay: 0 <= decay < 1, "ema_decay")
