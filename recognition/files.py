"""Files and folders that appear whole or not at all: written under another name, put on the disk, then renamed.

And what tells the content of one file from another's: its hash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

_OURS = ".unfinished"  # in a folder that we have begun, so that nobody else's is taken for one and cleared away


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A place for a file that becomes `path` when all is written, and is gone after an error; makes missing folders."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)  # another process may be at it
    part = path.with_name(path.name + ".part")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedWriter]:
    """A file to write to that becomes `path` as that of `whole_path` does."""
    with whole_path(path) as part, part.open("wb") as file:
        yield file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write to that becomes `path` when all is written, and is gone after an error.

    What is written must be on the disk by then. What a killed process has left is cleared away first.

    Raises:
        ValueError: If `path` exists, or a folder in the way of the unfinished one is not a leftover of this function.
    """
    if path.exists():
        raise ValueError(f"{path}: expected no such folder yet, found one")
    part = path.with_name(path.name + ".part")
    if part.exists():
        if not (part / _OURS).exists():
            raise ValueError(
                f"{part}: expected the unfinished folder of an earlier try or none, found another; move it away"
            )
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        (part / _OURS).touch()
        yield part
        (part / _OURS).unlink()
        for folder in (*(found for found in part.rglob("*") if found.is_dir()), part):
            sync(folder)
        os.rename(part, path)
    finally:
        if part.exists():
            shutil.rmtree(part)
    sync(path.parent)


def files_in(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, by name; of one of `whole_folder`, those that it will have."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _OURS)


def sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk: after a power cut neither is as it was before."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
