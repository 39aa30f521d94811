"""Encoded pictures: Pillow's pixels, or a fault with the picture's name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from recognition.formats.pixels import read_pixels
from tests.recognition.formats.making import picture


def any_size(width: int, height: int) -> None:
    pass


def encoded(mode: str, kind: str = "PNG", **how: object) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(kind="PNG"))).convert(mode).save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize("how", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"keep_rgb": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_pillows_rgb(mode, how):
    jpeg = encoded(mode, "JPEG", **how)
    np.testing.assert_array_equal(read_pixels(jpeg, "a", any_size), Image.open(io.BytesIO(jpeg)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_png_keeps_its_colours(mode):
    png = encoded(mode)
    np.testing.assert_array_equal(read_pixels(png, "a", any_size), Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_size_is_judged_before_anything_is_decoded():
    def at_most_a_thousand(width: int, height: int) -> None:
        if max(width, height) > 1000:
            raise ValueError(f"too large: {width}x{height}")

    head = b"IHDR" + struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)  # and no pixels at all
    claim = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ValueError, match=r"^huge: too large: 9000x9000$"):
        read_pixels(claim + idat, "huge", at_most_a_thousand)


@pytest.mark.parametrize(
    ("mode", "kind", "how"),
    [
        ("I;16", "PNG", {}),  # Pillow makes everything from 256 on white
        ("1", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
        ("CMYK", "JPEG", {}),
    ],
)
def test_what_would_lose_something_on_the_way_to_rgb_is_refused(mode, kind, how):
    with pytest.raises(ValueError, match=r"^odd: expected grey or RGB pixels"):
        read_pixels(encoded(mode, kind, **how), "odd", any_size)


def test_a_format_that_is_not_expected_is_told_by_its_first_bytes():
    with pytest.raises(ValueError, match=r"^a: cannot identify JPEG or PNG: it begins b'BM.*'$"):
        read_pixels(picture(kind="BMP"), "a", any_size)
    assert read_pixels(picture(kind="BMP"), "a", any_size, ("BMP",)).shape == (112, 112, 3)


@pytest.mark.parametrize("end", [b"", bytes(5000), picture(1)], ids=["nothing", "zeros", "another picture"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_whose_end_is_missing_is_refused_whatever_stands_in_its_place(kind, end):
    whole = picture(kind=kind)
    for kept in (0.3, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"^cut: "):
            read_pixels(whole[: int(len(whole) * kept)] + end, "cut", any_size)
