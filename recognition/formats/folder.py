"""Image folders: a subfolder for each identity, JPEG or PNG files in it; as torchvision's `ImageFolder` reads them.

Everything is taken in sorted order, so that a set is the same on every file system. If all subfolders are named by
whole numbers, those are the identities; else an identity is the place of its subfolder in that order, as in
`ImageFolder`.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recognition.files import sync
from recognition.formats.sample import EXPORTED, MAX_PICTURE_BYTES, LabelledSet, Sample, extension_of, plain_keys

EXTENSIONS = (".jpg", ".jpeg", ".png")
_SYNC_EVERY, _SYNC_THREADS = 1024, 32  # files that are put on the disk together take hardly longer than one


def open_folder(root: Path) -> LabelledSet:
    """A folder of identities as a set; keys are paths below the folder, with `/`.

    Left out, and listed in `left_out`: hidden files and folders anywhere, and files beside the subfolders that are no
    pictures. Nothing else is: any other file is an error.

    Raises:
        ValueError: If a picture lies beside the subfolders, a subfolder is empty or holds something that is no picture,
            a link leads out of the folder, or two subfolders mean one number; names the path.
    """
    whole = root.resolve()
    people, left_out = _listed(root, whole, folders=True)
    if not people:
        raise ValueError(f"{root}: expected a subfolder for each identity, found none")
    numbers = _numbers(root, people)
    keys, ids = list[str](), array("q")
    for name, number in zip(people, numbers, strict=True):
        pictures, hidden = _listed(root / name, whole, folders=False)
        if not pictures:
            raise ValueError(f"{root / name}: expected at least 1 picture of this identity, found none")
        keys += [f"{name}/{picture}" for picture in pictures]
        ids.extend([number] * len(pictures))
        left_out += [f"{name}/{file}" for file in hidden]
    labels = np.array(ids, np.int64)
    return LabelledSet("folder", str(root), tuple(keys), labels, _Reader(root, tuple(keys), labels), tuple(left_out))


def write_folder(folder: Path, source: LabelledSet, wrote: Callable[[int], object] = lambda pictures: None) -> None:
    """Writes a set as `000123/<key>.jpg` (or .png): the identity in six digits, and files of the pictures' own bytes.

    Args:
        folder: Where the subfolders go; it exists. Files are on the disk when this returns.
        source: The pictures.
        wrote: Told after each picture how many are done.
    Raises:
        ValueError: If a picture is neither JPEG nor PNG.
    """
    waiting: list[Path] = []
    for place, (sample, name) in enumerate(zip(source, plain_keys(source.keys), strict=True)):
        path = folder / f"{sample.identity_id:06d}" / f"{name}.{extension_of(sample)}"
        if not path.parent.is_dir():
            path.parent.mkdir()
        path.write_bytes(sample.jpeg)
        waiting.append(path)
        if len(waiting) == _SYNC_EVERY:
            _sync(waiting)
        wrote(place + 1)
    _sync(waiting)


def is_picture(name: str) -> bool:
    """Whether a file of this name is one of the pictures of an image folder."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


@dataclass(frozen=True, eq=False)
class _Reader:
    root: Path
    keys: tuple[str, ...]
    identity_ids: Int64[np.ndarray, " n"]

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        for row in rows:
            path = self.root / self.keys[row]
            with path.open("rb") as file:
                content = file.read(MAX_PICTURE_BYTES + 1)
            if not 0 < len(content) <= MAX_PICTURE_BYTES:
                raise ValueError(f"{path}: expected 1 to {MAX_PICTURE_BYTES} bytes, found {os.stat(path).st_size}")
            yield Sample(self.keys[row], content, int(self.identity_ids[row]), {})


def _listed(folder: Path, root: Path, folders: bool) -> tuple[list[str], list[str]]:
    """Names of subfolders, or of pictures, in order; and names that are left out."""
    wanted, left_out = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if folders and entry.name == EXPORTED:
                continue
            if entry.name.startswith("."):
                left_out.append(entry.name)
                continue
            kind = _kind(Path(entry.path), root) if entry.is_symlink() else entry.stat(follow_symlinks=False).st_mode
            if folders and stat.S_ISREG(kind) and not is_picture(entry.name):
                left_out.append(entry.name)
            elif stat.S_ISDIR(kind) if folders else stat.S_ISREG(kind) and is_picture(entry.name):
                wanted.append(entry.name)
            else:
                sort = "subfolders of identities" if folders else f"pictures ({', '.join(EXTENSIONS)})"
                raise ValueError(f"{folder}: expected {sort}, found {entry.name!r}")
    return sorted(wanted), sorted(left_out)


def _kind(link: Path, root: Path) -> int:
    """What a link leads to, if that is within the folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # nothing there; a circle
        raise ValueError(f"{link}: expected a link to something in {root}: {error}") from error
    if not target.is_relative_to(root):
        raise ValueError(f"{link}: expected links that stay within {root}, found one to {target}")
    return target.stat().st_mode


def _numbers(root: Path, people: list[str]) -> list[int]:
    if not all(name.isascii() and name.isdecimal() and len(name) <= 18 for name in people):
        return list(range(len(people)))
    numbers = [int(name) for name in people]
    if len(set(numbers)) < len(numbers):
        twice = Counter(numbers).most_common(1)[0][0]
        raise ValueError(f"{root}: expected a number of its own for each subfolder, found two that mean {twice}")
    return numbers


def _sync(paths: list[Path]) -> None:
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(sync, [*paths, *{path.parent for path in paths}]))
    paths.clear()
