"""LFW's `pairs.txt` (View 2): which photographs are compared, and in which fold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """Two photographs as paths below the data set's folder, and whether they are of one person."""

    first: str
    second: str
    same: bool


def read_pairs(path: str | os.PathLike[str], extension: str = ".jpg") -> list[Pair]:
    """Reads a list of pairs in LFW's form; its order is that of the folds.

    The first line is `folds<TAB>n`; per fold follow n lines `name<TAB>i<TAB>j` (one person) and n lines
    `name<TAB>i<TAB>other name<TAB>j` (two). A photograph is `name/name_0001.jpg`.

    Raises:
        ValueError: If a line has another form or stands in the wrong half of its fold, or if lines are missing; names
            the line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    if len(header) != 2 or not all(field.isdecimal() for field in header):
        raise ValueError(f"{path}: expected 'folds<TAB>pairs of each kind' in line 1, got {lines[:1]}")
    folds, each = (int(field) for field in header)
    if len(lines) - 1 != 2 * folds * each:
        raise ValueError(f"{path}: expected {2 * folds * each} pairs after line 1, got {len(lines) - 1}")
    pairs = []
    for index, line in enumerate(lines[1:]):
        same = index % (2 * each) < each
        match line.split("\t"):
            case [name, first, second] if same and first.isdecimal() and second.isdecimal():
                other = name
            case [name, first, other, second] if not same and first.isdecimal() and second.isdecimal():
                pass
            case _:
                kind = "name, i, j" if same else "name, i, other name, j"
                raise ValueError(f"{path}: expected '{kind}' between tabs in line {index + 2}, got {line!r}")
        pairs.append(Pair(_photograph(name, first, extension), _photograph(other, second, extension), same))
    return pairs


def _photograph(name: str, number: str, extension: str) -> str:
    return f"{name}/{name}_{int(number):04d}{extension}"
