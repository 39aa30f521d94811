"""Two kinds of variables from MATLAB 5 files: lists of words and of whole numbers. Safe on files of strangers.

`scipy.io.loadmat` is compiled code that dies with a segmentation fault on some damaged files, which no caller can
catch; the lists that benchmarks come with need little of the format.

References:
    MATLAB, MAT-File Format (version 5): section 1, tags, small elements, miMATRIX, miCOMPRESSED.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAX_FILE_BYTES = 2**28
MAX_INFLATED_BYTES = 2**28
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}

Variable = list[str] | np.ndarray


def read_mat(path: Path) -> dict[str, Variable]:
    """The variables of a file that are cells of words (as lists) or matrices of numbers (flat, in column order).

    Others are left out.

    Raises:
        ValueError: If it is not a whole MATLAB 5 file; names it and the fault.
    """
    size = path.stat().st_size
    if not _HEADER <= size <= MAX_FILE_BYTES:
        raise ValueError(f"{path}: expected a MATLAB 5 file of {_HEADER} to {MAX_FILE_BYTES} bytes, got {size}")
    raw = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise ValueError(f"{path}: expected a MATLAB 5 file, got another one")
    try:
        return dict(_variables(raw[_HEADER:], order))
    # what unpacking, inflating and decoding raise on damage
    except (struct.error, zlib.error, UnicodeDecodeError, ValueError, OverflowError) as fault:
        raise ValueError(f"{path}: expected a whole MATLAB 5 file: {fault}") from fault


def _variables(raw: bytes, order: str, inside: bool = False) -> Iterator[tuple[str, Variable]]:
    for kind, content in _elements(raw, order):
        if kind == _COMPRESSED and inside:
            raise ValueError("a compressed variable within another")
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            inner = inflate.decompress(content, MAX_INFLATED_BYTES)
            if not inflate.eof:
                raise ValueError("a compressed variable is cut off, or too large")
            yield from _variables(inner, order, inside=True)
        elif kind == _MATRIX:
            name, value = _matrix(content, order)
            if value is not None:
                yield name, value


def _elements(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element: a tag of 8 bytes, or of 4 with up to 4 bytes of content beside it."""
    at = 0
    while at < len(raw):
        kind, size = struct.unpack_from(order + "II", raw, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes at byte {at}")
        if start + size > len(raw):
            raise ValueError(f"an element at byte {at} goes on after the end")
        yield kind, raw[start : start + size]
        if start == at + 4:
            at += 8
        else:  # padded to 8 bytes, but for compressed ones
            at = start + size + (0 if kind == _COMPRESSED else -size % 8)


def _matrix(content: bytes, order: str, inside: bool = False) -> tuple[str, Variable | None]:
    """Name and value of a variable; None for kinds that are of no use here, such as cells inside a cell."""
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) < 4:
        raise ValueError("a variable without flags, dimensions and name")
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    name, rest = parts[2][1].decode("ascii"), parts[3:]
    if flags & 0xFF == _CELL and inside:
        return name, None
    if flags & 0xFF == _CELL:
        words = [_matrix(cell, order, inside=True)[1] for kind, cell in rest if kind == _MATRIX]
        texts = [word[0] for word in words if isinstance(word, list) and len(word) == 1]
        return name, texts if len(texts) == len(words) else None
    if flags & 0xFF == _CHAR:
        return name, [_text(*rest[0], order) if rest else ""]
    if len(rest) == 1 and rest[0][0] in _NUMBERS:
        kind, numbers = rest[0]
        return name, np.frombuffer(numbers, np.dtype(order + _NUMBERS[kind]))
    return name, None


def _text(kind: int, content: bytes, order: str) -> str:
    encoding = _TEXTS.get(kind)
    if encoding is None:
        raise ValueError(f"text of type {kind}")
    return content.decode(encoding + ("-le" if order == "<" else "-be") if encoding == "utf-16" else encoding)
