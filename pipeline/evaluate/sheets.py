"""Sheets of pictures: people down, one attribute changed per column; and generated pictures beside renders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from generation.world import ATTRIBUTES
from stages.records import Variation

CHANGES: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("plain", {}),
    ("yaw -60", {"yaw_deg": -60.0}),
    ("yaw -30", {"yaw_deg": -30.0}),
    ("yaw 30", {"yaw_deg": 30.0}),
    ("yaw 60", {"yaw_deg": 60.0}),
    ("age 10", {"age_years": 10.0}),
    ("age 75", {"age_years": 75.0}),
    ("smile", {"smile": 1.0}),
    ("frown", {"smile": -0.8, "brow_raise": -1.0}),
    ("light left", {"light_azimuth_deg": -80.0, "ambient": 0.2}),
    ("light right", {"light_azimuth_deg": 80.0, "ambient": 0.2}),
    ("glasses", {"glasses": 2.0}),
    ("sunglasses", {"glasses": 3.0}),
    ("hat", {"hat": 2.0}),
)
OPEN = ("open", "open")  # nothing asked for but the person, twice
SEED = 5_000


def attribute_rows(ids: Sequence[int], honoured: Collection[str]) -> tuple[list[str], list[Variation]]:
    """Titles of the columns, and a row of photographs per person, of what the generator honours.

    A person's photographs share their seed and are plain but for what the title says; the last two leave all open.
    """
    changes = [(title, change) for title, change in CHANGES if set(change) <= set(honoured)]
    plain = {name: ATTRIBUTES[name].neutral for name in honoured if name in ATTRIBUTES and name != "background"}
    rows = []
    for person in ids:
        asked = [plain | dict(change) for _, change in changes] + [{} for _ in OPEN]
        seeds = [SEED + person] * len(changes) + [SEED + person + 1_000_000 * (k + 1) for k in range(len(OPEN))]
        rows += [
            Variation(f"{person:06d}_{k:03d}", person, seed, attributes)
            for k, (seed, attributes) in enumerate(zip(seeds, asked, strict=True))
        ]
    return [title for title, _ in changes] + list(OPEN), rows


def beside(
    generated: UInt8[np.ndarray, "n h w 3"], renders: UInt8[np.ndarray, "n h w 3"], people: int
) -> UInt8[np.ndarray, "r c h w 3"]:
    """A line of generated pictures and below it the line of the same person's renders, person by person."""
    shape = (people, -1, *generated.shape[1:])
    lines = np.stack([generated.reshape(shape), renders.reshape(shape)], 1)
    return lines.reshape(2 * people, *lines.shape[2:])
