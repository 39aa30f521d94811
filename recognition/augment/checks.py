"""What the fields of an augmentation may be. Errors name class, field, expectation and value."""

from __future__ import annotations

from typing import Any


def probabilities(owner: Any, *names: str) -> None:
    """Raises ValueError unless each field is a number in [0, 1]."""
    for name in names:
        number(owner, name, 0, 1)


def number(owner: Any, name: str, low: float, high: float) -> None:
    """Raises ValueError unless the field is a number in [low, high]."""
    value = getattr(owner, name)
    if not (_is_number(value) and low <= value <= high):
        _refuse(owner, name, f"a number in [{low:g}, {high:g}]", value)


def whole(owner: Any, name: str, low: int, high: int) -> None:
    """Raises ValueError unless the field is a whole number in [low, high]."""
    value = getattr(owner, name)
    if isinstance(value, bool) or not (isinstance(value, int) and low <= value <= high):
        _refuse(owner, name, f"a whole number in [{low}, {high}]", value)


def interval(owner: Any, name: str, low: float, high: float, kind: type = float) -> None:
    """Raises ValueError unless the field is (smallest, largest), in order, within [low, high]; of kind int, whole. A
    list, as YAML has it, becomes a tuple, so that the owner can be hashed and equals one that was given a tuple."""
    value = getattr(owner, name)
    try:
        first, last = value
    except (TypeError, ValueError):
        first, last = None, None
    right = all(_is_number(x) and x == x and kind(x) == x for x in (first, last))  # x == x: NaN is no int
    if not (right and low <= first <= last <= high):
        numbers = "whole numbers" if kind is int else "numbers"
        _refuse(owner, name, f"two {numbers}, in order, in [{low:g}, {high:g}]", value)
    object.__setattr__(owner, name, (first, last))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(owner: Any, name: str, expected: str, value: Any) -> None:
    raise ValueError(f"{type(owner).__name__}.{name}: expected {expected}, got {value!r}")
