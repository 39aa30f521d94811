"""Verification sets on disk: what a path is, told by its form, and opened.

| form | is |
|---|---|
| `bin` | a `.bin` file, or a folder of them |
| `pairs` | a list of pairs (see `benchmarks.pairs`) and a folder of aligned crops: the list's own, or `images` |
| `rfw` | a folder with `txts/GROUP/GROUP_pairs.txt` and `data/GROUP`: a protocol per group |
| `ijb` | a folder with IJB's meta files and `loose_crop` (see `benchmarks.templates`) |
| `tinyface` | a folder with TinyFace's lists and pictures (see `benchmarks.tinyface`) |

A path of no form, or of several, is refused with what was found: the user names the form.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pairs import Pair, interleaved, listed_folds, people_of, read_pairs
from benchmarks.pictures import Pictures
from benchmarks.protocols import Protocol, load_protocol, load_protocols
from benchmarks.templates import TemplateSet, is_template_set, read_templates
from benchmarks.tinyface import TinyFace, is_tinyface, read_tinyface
from benchmarks.verify import fold_of_pairs
from recognition.files import sha256_of

Set = Protocol | TemplateSet | TinyFace
FOLDS = 10
LIST_SUFFIXES = (".txt", ".lst", ".list")
OTHER_SUFFIXES = (".jpg", ".png", ".jpeg", ".bmp")  # looked at where a list leaves the suffix out


@dataclass(frozen=True, slots=True)
class Opening:
    """How sets are to be opened.

    Args:
        form: A key of `FORMS`; None: by what is there.
        images: Folder of the aligned crops of lists of pairs; None: the list's own.
        pairs_kind: A key of `benchmarks.pairs.KINDS`; None: by the lines.
        folds: Of lists of pairs; None: as many as the list says, or ten where it says nothing.
        allow_missing: Whether pairs whose pictures are missing are left out, with the coverage told, instead of
            refusing the set.
    """

    form: str | None = None
    images: Path | None = None
    pairs_kind: str | None = None
    folds: int | None = None
    allow_missing: bool = False

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"folds: expected at least 2, got {self.folds}")

    @property
    def of_lists(self) -> list[str]:
        """What is said here that is about lists of pairs alone."""
        said = {"images": self.images, "pairs_kind": self.pairs_kind, "folds": self.folds}
        return [name for name, value in said.items() if value is not None] + ["allow_missing"] * self.allow_missing


def open_sets(path: str | os.PathLike[str], opening: Opening = Opening()) -> Sequence[Set]:
    """The sets that a path means. Pictures are decoded later.

    Raises:
        ValueError: If nothing is there, it is of no form or of several, or it cannot be read; names the file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: expected a verification set, found nothing")
    form = opening.form or _form_of(path)
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    return FORMS[form](path, opening)


def load_pairs(path: Path, images: Path, opening: Opening, name: str | None = None) -> Protocol:
    """The protocol of a list of pairs and a folder of aligned crops.

    Raises:
        ValueError: If the list is malformed, or pictures are missing and may not be; names how many, and the first. If
            no pair of a fold is left.
    """
    pairs = read_pairs(path, opening.pairs_kind)
    folds = opening.folds or listed_folds(path) or FOLDS
    pairs, reordered = interleaved(pairs, folds)
    places = _places(pairs, images)
    missing = [photograph for photograph, place in places.items() if place is None]
    if missing and not opening.allow_missing:
        shown = ", ".join(missing[:3])
        raise ValueError(
            f"{images}: expected the {len(places)} pictures of {path}, {len(missing)} are not there: {shown} ...; "
            "--allow-missing scores the pairs that are there, and tells how many"
        )
    there = np.array([places[pair.first] is not None and places[pair.second] is not None for pair in pairs], bool)
    if not there.any():
        raise ValueError(f"{images}: expected pictures of {path}, not one pair has both of them there")
    fold = fold_of_pairs(len(pairs), folds)[there]
    gone = sorted(set(range(folds)) - set(fold.tolist()))
    if gone:
        raise ValueError(f"{path}: expected pairs in each of {folds} folds, found none in fold {gone[0]}")
    files = [place for place in places.values() if place is not None]
    row = {photograph: i for i, photograph in enumerate(p for p, place in places.items() if place is not None)}
    kept = [pair for pair, has in zip(pairs, there, strict=True) if has]
    people = people_of(pairs)
    told = {"people_by": people[1]} if people else {}
    order = "genuine pairs first in the list; interleaved by fold" if reordered else "as listed"
    about = {"source": str(path), "kind": "pairs", "order": order, "missing_pictures": len(missing)}
    return Protocol(
        name or path.stem,
        Pictures(files, str(images)),
        np.array([(row[pair.first], row[pair.second]) for pair in kept], np.int64),
        np.array([pair.same for pair in kept], bool),
        people[0][there] if people else None,
        fold,
        len(pairs),
        {**about, **told, "sha256": _sha256_of_all(path, files)},
    )


def _places(pairs: Sequence[Pair], images: Path) -> dict[str, Path | None]:
    """Where the photographs of a list are, in its order; None for those that are not there."""
    return {each: _place(images, each) for pair in pairs for each in pair[:2]}


def _place(images: Path, photograph: str) -> Path | None:
    path = images / photograph
    if path.is_file():
        return path
    others = [other for suffix in OTHER_SUFFIXES if (other := path.with_suffix(suffix)).is_file()]
    if len(others) > 1:
        raise ValueError(f"{path}: expected one picture of this name, found {', '.join(each.name for each in others)}")
    return others[0] if others else None


def _sha256_of_all(path: Path, files: Sequence[Path]) -> str:
    """Of a list and of every picture that it names, in its order."""
    digest = hashlib.sha256(sha256_of(path).encode())
    for file in files:
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def _open_bin(path: Path, opening: Opening) -> list[Set]:
    return [load_protocol(path)] if path.is_file() else [*load_protocols(path)]


def _open_pairs(path: Path, opening: Opening) -> list[Set]:
    listing = path if path.is_file() else _one_list(path)
    return [load_pairs(listing, opening.images or listing.parent, opening)]


def _open_rfw(path: Path, opening: Opening) -> list[Set]:
    if opening.images is not None:
        raise ValueError(f"images: expected none with RFW, whose crops are in {path / 'data'}, got {opening.images}")
    lists = sorted(path.glob("txts/*/*_pairs.txt"))
    groups = [each.parent.name for each in lists]
    if not lists or len(set(groups)) < len(groups):
        raise ValueError(f"{path}: expected txts/GROUP/GROUP_pairs.txt, one per group, got {groups}")
    return [load_pairs(each, path / "data" / each.parent.name, opening, f"rfw_{each.parent.name}") for each in lists]


def _one_list(folder: Path) -> Path:
    lists = [each for each in sorted(folder.iterdir()) if each.suffix in LIST_SUFFIXES and each.is_file()]
    if len(lists) != 1:
        raise ValueError(f"{folder}: expected one list of pairs, got {len(lists)}; name its file")
    return lists[0]


def _form_of(path: Path) -> str:
    if path.is_file():
        if path.suffix == ".bin":
            return "bin"
        if path.suffix in LIST_SUFFIXES:
            return "pairs"
        raise ValueError(
            f"{path}: expected a set of a form of {', '.join(FORMS)}, got a file {path.suffix or path.name}"
        )
    signs = {
        "bin": any(path.glob("*.bin")),
        "rfw": any(path.glob("txts/*/*_pairs.txt")),
        "ijb": is_template_set(path),
        "tinyface": is_tinyface(path),
    }
    found = [form for form, there in signs.items() if there]
    lists = [each.name for each in path.iterdir() if each.suffix in LIST_SUFFIXES]
    if not found and len(lists) == 1:
        return "pairs"
    if len(found) != 1:
        told = f"signs of {' and '.join(found)}" if found else "no sign of any"
        raise ValueError(
            f"{path}: expected a set of one form of {', '.join(FORMS)}, found {told}; name the form, or its file"
        )
    return found[0]


FORMS: Mapping[str, Callable[[Path, Opening], Sequence[Set]]] = {
    "bin": _open_bin,
    "pairs": _open_pairs,
    "rfw": _open_rfw,
    "ijb": lambda path, opening: [read_templates(path)],
    "tinyface": lambda path, opening: [read_tinyface(path)],
}
