"""Pictures of a set that are decoded when they are wanted: 12,000 crops are 0.45 GB as pixels, and a tenth as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from benchmarks.bins import SIDE_PX, decode
from recognition.formats.pixels import read_pixels

MAX_FILE_BYTES = 2**26  # of a picture that is a file of its own
MAX_PIXELS = 2**26  # of a whole photograph


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Different pictures, each once.

    Attributes:
        sources: What each is read from: an encoded picture, a file, or pixels.
        where: What they belong to, for errors: the path of a `.bin`, or of a folder.
        resize: Whether square pictures of another size are resized, as insightface does with those of a `.bin`. Files
            are refused instead: a picture that is not 112x112 was not aligned for this.
    """

    sources: Sequence[bytes | Path | np.ndarray]
    where: str
    resize: bool = False

    def __len__(self) -> int:
        return len(self.sources)

    def crops(self, start: int, stop: int) -> UInt8[np.ndarray, "b 112 112 3"]:
        """Aligned RGB crops of rows start to stop.

        Raises:
            ValueError: If one cannot be decoded, or is not 112x112; names it and the set.
        """
        rows = range(start, min(stop, len(self)))
        pixels = np.empty((len(rows), SIDE_PX, SIDE_PX, 3), np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = self._crop(row)
        return pixels

    def whole(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """A picture as it is stored, of any size: RGB.

        Raises:
            ValueError: If it cannot be decoded; names it and the set.
        """
        source = self.sources[row]
        if isinstance(source, np.ndarray):
            return source
        encoded = source if isinstance(source, bytes) else read_picture(source)
        return decode_whole(encoded, self._name(row))

    def _crop(self, row: int) -> UInt8[np.ndarray, "112 112 3"]:
        source = self.sources[row]
        if isinstance(source, bytes) and self.resize:
            return decode(source, self._name(row))
        pixels = self.whole(row)
        if pixels.shape != (SIDE_PX, SIDE_PX, 3):
            raise ValueError(
                f"{self._name(row)}: expected an aligned crop of {SIDE_PX}x{SIDE_PX} pixels, "
                f"got {pixels.shape[1]}x{pixels.shape[0]}; align the pictures first"
            )
        return pixels

    def _name(self, row: int) -> str:
        source = self.sources[row]
        return str(source) if isinstance(source, Path) else f"{self.where}: picture {row}"


def once(sources: Sequence[bytes]) -> tuple[list[bytes], Int64[np.ndarray, " n"]]:
    """Encoded pictures without repetitions, in the order in which they first occur; and the place of each of them."""
    places: dict[bytes, int] = {}
    row = np.array([places.setdefault(source, len(places)) for source in sources], np.int64)
    return list(places), row


def read_picture(path: Path) -> bytes:
    """An encoded picture from its file.

    Raises:
        ValueError: If it is empty or too large; names it.
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise ValueError(f"{path}: expected a picture of 1 to {MAX_FILE_BYTES} bytes, got {size}")
    return path.read_bytes()


def decode_whole(encoded: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of any size, RGB.

    Raises:
        ValueError: If it is not a whole JPEG, PNG, BMP or WebP of grey or RGB pixels, or too large; begins with `name`.
    """
    return read_pixels(encoded, name, _expect_pixels, ("JPEG", "PNG", "BMP", "WEBP"))


def _expect_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {width}x{height}")
