"""Pixels of an encoded picture, which may be a stranger's: the only place that decodes one.

By Pillow. OpenCV gives the same bytes in six tenths of the time, but also for JPEG whose end is missing and something
else in its place, which it fills with grey; Pillow refuses those.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

_MODES = ("L", "RGB", "P")  # of Pillow; others lose something on the way to RGB: depth, opacity, ink
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"  # Pillow takes zeros after a cut for pixels
_FAULTS = (  # what Pillow is seen to raise on damaged files; OSError covers two of its own
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def read_pixels(
    encoded: bytes,
    name: str,
    expect_size: Callable[[int, int], object],
    formats: tuple[str, ...] = ("JPEG", "PNG"),
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture, RGB.

    Args:
        encoded: It, as it is stored.
        name: It, for errors, which begin with that.
        expect_size: Told width and height before anything is decoded, since a few bytes can claim 65,535 x 65,535;
            raises ValueError where they do not do.
        formats: Which it may be in; Pillow's names.
    Raises:
        ValueError: If it is in none of the formats, not whole, of another size, or neither grey nor RGB.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=formats)  # in memory: there is no file to close
        expect_size(*image.size)
        if image.mode not in _MODES or "transparency" in image.info:
            raise ValueError(f"expected grey or RGB pixels, got {image.mode}")
        rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        if encoded.startswith(_JPEG_START) and encoded.rfind(_JPEG_END) < 0:
            raise ValueError("expected a whole JPEG, found no end")
        return rgb
    except UnidentifiedImageError as fault:
        raise ValueError(f"{name}: cannot identify {' or '.join(formats)}: it begins {encoded[:8]!r}") from fault
    except _FAULTS as fault:
        raise ValueError(f"{name}: {fault}") from fault
