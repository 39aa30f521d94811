"""Lists of pairs: which photographs are compared, in which order, and which of them are of one person.

Four layouts are in use, and told apart by their lines or named by the user:

* `lfw`: LFW's View 2 `pairs.txt`. The first line is `folds n`; per fold follow n lines `name i j` (one person) and n
  lines `name i other_name j` (two), tabs or spaces between. A photograph is `name/name_0001.jpg`.
* `rfw`: the same lines without the first, in any order.
* `two_lines`: CALFW and CPLFW: two lines per pair, `picture label`; a label that is not 0 is of one person (CALFW
  writes a fold there). All pairs of one person come first.
* `label_first`: AgeDB-30 and others as OpenSphere has them: `label picture picture`; 1 is one person, 0 or -1 are two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from benchmarks.people import check_labels, numbered

MAX_LIST_BYTES = 2**30  # IJB-C's 15.7 million pairs are 0.25 GB
MAX_DIGITS = 9
_NUMBERED = re.compile(r"(.+)_\d+")  # Some_Name_0001


class Pair(NamedTuple):
    """Two photographs as paths below the data set's folder, and whether they are of one person."""

    first: str
    second: str
    same: bool


def read_pairs(path: str | os.PathLike[str], kind: str | None = None, extension: str = ".jpg") -> list[Pair]:
    """Reads a list of pairs; its order is that of the folds.

    Args:
        path: Text, UTF-8.
        kind: A key of `KINDS`; None: the only one that the first lines are in the form of.
        extension: Of the photographs of `lfw` and `rfw`, whose lists leave it out.
    Raises:
        ValueError: If a line has another form or stands in the wrong half of its fold, if lines are missing, or if the
            kind is not given and the lines are of no kind or of several; names the file, and the line.
    """
    path = Path(path)
    lines = read_lines(path)
    chosen = kind or _recognised(path, lines)
    if chosen not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {chosen!r}")
    return KINDS[chosen](path, lines, extension)


def listed_folds(path: Path) -> int | None:
    """How many folds a list says it has, in the first line of the kind `lfw`; None where it does not.

    Raises:
        ValueError: As `read_lines`.
    """
    lines = read_lines(path)
    return int(lines[0].split()[0]) if _is_lfw(lines) else None


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, without blank ones at its end.

    Raises:
        ValueError: If it is empty, too large or not UTF-8; names it.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_LIST_BYTES:
        raise ValueError(f"{path}: expected a list of 1 to {MAX_LIST_BYTES} bytes, got {size}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: expected text in UTF-8: {fault}") from fault
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: expected pairs, got blank lines")
    return lines


def interleaved(pairs: Sequence[Pair], folds: int) -> tuple[list[Pair], bool]:
    """Pairs in an order whose folds hold both kinds, and whether that is another order than theirs.

    Folds are blocks in file order. Of a list that has all pairs of one person first, fold f takes the f-th part of
    these and then the f-th part of the others: 300 and 300 of CALFW's 3,000 and 3,000. Other lists stay as they are.
    """
    same = np.array([pair.same for pair in pairs], bool)
    genuine = int(same.sum())
    if not same[:genuine].all() or genuine in (0, len(pairs)):
        return list(pairs), False
    parts = zip(
        np.array_split(np.arange(genuine), folds), np.array_split(np.arange(genuine, len(pairs)), folds), strict=True
    )
    return [pairs[row] for part in parts for row in np.concatenate(part)], True


def people_of(pairs: Sequence[Pair]) -> tuple[Int64[np.ndarray, "p 2"], str] | None:
    """Who is on the photographs, as far as their paths tell, and by what; None where they do not.

    A path tells by its folder (`Some_Name/0001.jpg`), or by its file (`Some_Name_0001.jpg`); it is believed only if it
    agrees with the label of every pair, and if some person has more than one photograph.
    """
    same = np.array([pair.same for pair in pairs], bool)
    for by, name_of in (("folder", _by_folder), ("file name", _by_file)):
        names = [name_of(photograph) for pair in pairs for photograph in pair[:2]]
        if any(name is None for name in names):
            continue
        people = numbered([name for name in names if name is not None]).reshape(-1, 2)
        photographs = len({photograph for pair in pairs for photograph in pair[:2]})
        if people.max() + 1 < photographs and _agree(people, same):
            return people, by
    return None


def _agree(people: Int64[np.ndarray, "p 2"], same: np.ndarray) -> bool:
    try:
        check_labels("paths", people, same)
    except ValueError:
        return False
    return True


def _by_folder(photograph: str) -> str | None:
    folder, _, _ = photograph.rpartition("/")
    return folder or None


def _by_file(photograph: str) -> str | None:
    match = _NUMBERED.fullmatch(Path(photograph).stem)
    return match[1] if match else None


def _recognised(path: Path, lines: Sequence[str]) -> str:
    """The one kind that the first lines are in the form of."""
    fitting = [kind for kind, fits in _FORMS.items() if fits(lines)]
    if len(fitting) != 1:
        found = f"the forms of {' and '.join(fitting)}" if fitting else "none of these forms"
        raise ValueError(
            f"{path}: expected lines of one kind of {', '.join(KINDS)}, found {found} in line 1, {lines[0][:80]!r}; "
            "name the kind"
        )
    return fitting[0]


def _is_lfw(lines: Sequence[str]) -> bool:
    header = lines[0].split()
    return len(header) == 2 and all(_is_number(field) for field in header)


def _is_rfw(lines: Sequence[str]) -> bool:
    fields = lines[0].split()
    return len(fields) in (3, 4) and _is_number(fields[1]) and _is_number(fields[-1])


def _is_two_lines(lines: Sequence[str]) -> bool:
    return all(len(line.split()) == 2 and _is_path(line.split()[0]) for line in lines[:2]) and len(lines) > 1


def _is_label_first(lines: Sequence[str]) -> bool:
    fields = lines[0].split()
    return len(fields) == 3 and fields[0] in _LABELS and _is_path(fields[1]) and _is_path(fields[2])


def _is_path(field: str) -> bool:
    return not _is_number(field)


def _is_number(field: str) -> bool:
    return field.isdecimal() and len(field) <= MAX_DIGITS


_FORMS: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "lfw": _is_lfw,
    "rfw": _is_rfw,
    "two_lines": _is_two_lines,
    "label_first": _is_label_first,
}
_LABELS = {"1": True, "0": False, "-1": False}


def _read_lfw(path: Path, lines: Sequence[str], extension: str) -> list[Pair]:
    header = lines[0].split()
    if len(header) != 2 or not all(_is_number(field) for field in header):
        raise ValueError(f"{path}: expected 'folds, pairs of each kind' in line 1, got {lines[0][:80]!r}")
    folds, each = (int(field) for field in header)
    if len(lines) - 1 != 2 * folds * each or len(lines) == 1:
        raise ValueError(f"{path}: expected {2 * folds * each} pairs after line 1, got {len(lines) - 1}")
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        same = (number - 2) % (2 * each) < each
        pair = _named_pair(path, number, line, extension)
        if pair.same != same:
            kind = "name, i, j" if same else "name, i, other name, j"
            raise ValueError(f"{path}: expected '{kind}' in line {number}, got {line[:200]!r}")
        pairs.append(pair)
    return pairs


def _read_rfw(path: Path, lines: Sequence[str], extension: str) -> list[Pair]:
    return [_named_pair(path, number, line, extension) for number, line in enumerate(lines, start=1)]


def _named_pair(path: Path, number: int, line: str, extension: str) -> Pair:
    match line.split():
        case [name, first, second] if _is_number(first) and _is_number(second):
            other, same = name, True
        case [name, first, other, second] if _is_number(first) and _is_number(second):
            same = False
        case _:
            raise ValueError(
                f"{path}: expected 'name, i, j' or 'name, i, other name, j' between tabs or spaces in line {number}, "
                f"got {line[:200]!r}"
            )
    photographs = (_numbered_photograph(each, i, extension) for each, i in ((name, first), (other, second)))
    first_path, second_path = (_below(path, number, each) for each in photographs)
    return Pair(first_path, second_path, same)


def _numbered_photograph(name: str, number: str, extension: str) -> str:
    return f"{name}/{name}_{int(number):04d}{extension}"


def _read_two_lines(path: Path, lines: Sequence[str], extension: str) -> list[Pair]:
    if len(lines) % 2:
        raise ValueError(f"{path}: expected two lines for each pair, got {len(lines)} lines")
    halves = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) != 2 or not _is_number(fields[1]):
            raise ValueError(f"{path}: expected 'picture label' in line {number}, got {line[:200]!r}")
        halves.append((_below(path, number, fields[0]), int(fields[1])))
    pairs = []
    for place, ((first, label), (second, other)) in enumerate(zip(halves[0::2], halves[1::2], strict=True)):
        if (label == 0) != (other == 0):
            raise ValueError(
                f"{path}: expected both or neither of lines {2 * place + 1} and {2 * place + 2}, a pair, labelled 0, "
                f"got {label} and {other}"
            )
        pairs.append(Pair(first, second, label != 0))
    return pairs


def _read_label_first(path: Path, lines: Sequence[str], extension: str) -> list[Pair]:
    pairs = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in _LABELS:
            raise ValueError(f"{path}: expected '1, 0 or -1, picture, picture' in line {number}, got {line[:200]!r}")
        first, second = (_below(path, number, field) for field in fields[1:])
        pairs.append(Pair(first, second, _LABELS[fields[0]]))
    return pairs


def _below(path: Path, number: int, photograph: str) -> str:
    """A path as a list names it; a list may only name what is below the folder of the photographs."""
    if photograph.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", photograph) or "\0" in photograph:
        raise ValueError(
            f"{path}: expected a path below the pictures' folder in line {number}, got {photograph[:200]!r}"
        )
    return photograph


KINDS: Mapping[str, Callable[[Path, Sequence[str], str], list[Pair]]] = {
    "lfw": _read_lfw,
    "rfw": _read_rfw,
    "two_lines": _read_two_lines,
    "label_first": _read_label_first,
}
