"""Augmentations in a row, and a description that tells one augmentation from another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from recognition.augment.levels import Augmentation, Levels


@dataclass(frozen=True)
class Compose(Augmentation):
    """Several augmentations, one after the other; each draws from the generator in its turn.

    Args:
        steps: The augmentations, in order; a list becomes a tuple. None at all changes nothing.

    Raises:
        ValueError: If a step is no `Augmentation`. (Hydra hands over such when its node lacks `_convert_: all`.)
    """

    steps: Sequence[Augmentation]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", checked_steps(self.steps))

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Each step draws what it draws alone."""
        for step in self.steps:
            levels = step.changed(levels, generator)
        return levels


def checked_steps(steps: Iterable[Any]) -> tuple[Augmentation, ...]:
    """The steps as a tuple; raises ValueError at the first that is no `Augmentation`."""
    steps = tuple(steps)
    for position, step in enumerate(steps):
        if not isinstance(step, Augmentation):
            raise ValueError(f"Compose.steps[{position}]: expected an augmentation, got {step!r}")
    return steps


def described(augmentation: Augmentation) -> dict[str, Any]:
    """The class's name as "augmentation" and every field, in plain types that JSON takes: to be hashed and to be said.

    Two augmentations have the same description if and only if they are equal. `dataclasses.asdict` forgets the names:
    to it, a Flip and an Erase of the same p differ by their fields alone.
    """
    values = {field.name: _plain(getattr(augmentation, field.name)) for field in fields(augmentation)}  # type: ignore[arg-type]
    return {"augmentation": type(augmentation).__name__} | values


def _plain(value: Any) -> Any:
    if isinstance(value, Augmentation):
        return described(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
