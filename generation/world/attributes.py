"""What one photograph is like: pose, expression, age, light, accessories, camera."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, slots=True)
class Attribute:
    """One control of a photograph: a float in [low, high], `neutral` where nobody asks for another."""

    low: float
    high: float
    neutral: float
    unit: str
    meaning: str


ATTRIBUTES: dict[str, Attribute] = {
    "yaw_deg": Attribute(-75.0, 75.0, 0.0, "degree", "head turned to the left (-) or right (+) of the picture"),
    "pitch_deg": Attribute(-30.0, 30.0, 0.0, "degree", "head looking down (-) or up (+)"),
    "roll_deg": Attribute(-15.0, 15.0, 0.0, "degree", "head leaning to the left (-) or right (+) of the picture"),
    "smile": Attribute(-1.0, 1.0, 0.0, "", "corners of the mouth down (-1) or up (1)"),
    "mouth_open": Attribute(0.0, 1.0, 0.0, "", "closed (0) or wide open (1)"),
    "brow_raise": Attribute(-1.0, 1.0, 0.0, "", "frown (-1) or surprise (1)"),
    "eye_closure": Attribute(0.0, 1.0, 0.0, "", "open (0) or shut (1)"),
    "gaze_yaw_deg": Attribute(
        -30.0, 30.0, 0.0, "degree", "eyes to the left (-) or right (+) of the head's own direction"
    ),
    "gaze_pitch_deg": Attribute(-20.0, 20.0, 0.0, "degree", "eyes down (-) or up (+)"),
    "age_years": Attribute(5.0, 85.0, 30.0, "year", "age on the day of the photograph: shape, skin and hair"),
    "light_azimuth_deg": Attribute(
        -90.0, 90.0, -25.0, "degree", "main light from the left (-) or right (+) of the picture"
    ),
    "light_elevation_deg": Attribute(-30.0, 80.0, 30.0, "degree", "main light from below (-) or above (+)"),
    "light_warmth": Attribute(-1.0, 1.0, 0.0, "", "bluish (-1) or orange (1) main light"),
    "ambient": Attribute(0.0, 1.0, 0.45, "", "light from everywhere, as a share of all light"),
    "glasses": Attribute(0.0, 3.0, 0.0, "style", "rounded: 0 none, 1 round wire, 2 thick rectangular, 3 sunglasses"),
    "hat": Attribute(0.0, 3.0, 0.0, "style", "rounded: 0 none, 1 knitted, 2 cap with a peak, 3 wide brim"),
    "background": Attribute(0.0, 65535.0, 0.0, "seed", "rounded: which background and which clothes"),
    "exposure_ev": Attribute(-2.0, 2.0, 0.0, "stop", "darker (-) or brighter (+) by powers of two"),
    "white_balance": Attribute(-1.0, 1.0, 0.0, "", "the camera's error: blue (-1) or yellow (1) picture"),
    "blur_px": Attribute(0.0, 4.0, 0.0, "pixel at 112", "standard deviation of the blur, for a picture of 112 pixels"),
    "noise": Attribute(0.0, 0.2, 0.0, "of full scale", "standard deviation of the sensor's noise"),
    "jpeg_quality": Attribute(5.0, 100.0, 100.0, "", "rounded: JPEG quality; 100 is no compression at all"),
    "low_resolution_px": Attribute(
        8.0, 256.0, 256.0, "pixel", "rounded: side of the picture before it was enlarged to the size"
    ),
}
CONTROLS: tuple[str, ...] = tuple(ATTRIBUTES)


def attribute_table(rows: Sequence[Mapping[str, float | int]]) -> Float32[np.ndarray, "b a"]:
    """Attributes by name -> one row each, columns in the order of `CONTROLS`, missing ones neutral.

    Raises:
        ValueError: If a name is unknown, or a value is not a number within its attribute's range.
    """
    neutral = [ATTRIBUTES[name].neutral for name in CONTROLS]
    table = np.tile(np.array(neutral, np.float32), (len(rows), 1))
    for i, row in enumerate(rows):
        for name, value in row.items():
            _check(name, value)
            table[i, CONTROLS.index(name)] = value
    return table


def check_table(table: Float32[np.ndarray, "b a"]) -> None:
    """Raises ValueError if a row of the table leaves the range of an attribute."""
    if table.ndim != 2 or table.shape[1] != len(CONTROLS):
        raise ValueError(f"expected attributes of shape (b, {len(CONTROLS)}), got {table.shape}")
    low = np.array([a.low for a in ATTRIBUTES.values()], np.float32)
    high = np.array([a.high for a in ATTRIBUTES.values()], np.float32)
    bad = np.argwhere(~((table >= low) & (table <= high)))  # NaN is outside, too
    if len(bad):
        row, column = bad[0]
        _check(CONTROLS[column], float(table[row, column]))


def _check(name: str, value: float | int) -> None:
    if name not in ATTRIBUTES:
        raise ValueError(f"unknown attribute {name!r}, expected one of {', '.join(CONTROLS)}")
    attribute = ATTRIBUTES[name]
    if not (math.isfinite(value) and attribute.low <= value <= attribute.high):
        raise ValueError(f"expected {attribute.low:g} <= {name} <= {attribute.high:g}, got {value}")
