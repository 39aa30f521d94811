"""Judge: `Faces -> Verdicts`. Every rule measures every face; the first rule that a face fails is its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from stages.records import Faces, Verdicts

KEPT = ""


@runtime_checkable
class Rule(Protocol):
    """Measures one number per face and says which faces pass. It never drops, reorders or changes a face."""

    def __call__(self, faces: Faces) -> tuple[Float32[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
        """What was measured, in the rule's own unit (NaN where there is no face, and only there), and who passes."""
        ...


class Judge:
    """Applies rules by name, in order. A rule's name is the reason that is written down where it is the first to fail.

    Args:
        rules: At least one rule, by its name, in the order in which reasons are given.
    Raises:
        ValueError: If there is no rule, or a name is empty (the reason "" means kept).
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = dict(rules)
        if not self.rules:
            raise ValueError("rules: expected at least one rule, got none")
        for name, rule in self.rules.items():
            if not name.isidentifier() or not isinstance(rule, Rule):
                raise ValueError(f"rules: expected a name like own_identity and a rule, got {name!r}: {rule!r}")

    def __call__(self, faces: Faces) -> Verdicts:
        reasons = np.full(len(faces.found), KEPT, dtype=object)
        measured = {}
        for name, rule in self.rules.items():
            measured[name], passed = rule(faces)
            _check(name, measured[name], faces)
            reasons[(reasons == KEPT) & ~passed] = name
        return Verdicts(faces, tuple(reasons.tolist()), measured)


def _check(name: str, measured: Float32[np.ndarray, " b"], faces: Faces) -> None:
    nameless = np.flatnonzero(np.isnan(measured) & faces.found)
    if len(nameless):
        key = faces.chunk.variations[nameless[0]].key
        raise ValueError(f"rule {name}: expected a number for every face that was found, got NaN for {key}")
