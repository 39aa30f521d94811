"""A set decoded once into a file that is mapped into memory: `crops.u8`, row by row, and `index.json`.

The index is written last and names the source by its sha256: where it is, the crops are whole and of that source. What
a crash leaves has no index, and is made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from recognition.decoding import CROP_BYTES, PER_WORKER, Workers, cores, decode_into, pieces
from recognition.files import whole_file, whole_path
from recognition.formats.sample import CROP_PX, LabelledSet
from recognition.train.pictures import Pictures

CROPS, INDEX = "crops.u8", "index.json"
_PIECE = 128  # pictures that a worker decodes at a time
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class MemoryMap:
    """Decoded crops on disk.

    Attributes:
        folder: Where they lie.
        sha256: Of the set that they were decoded from.
        keys: Names of the pictures.
        identity_ids: Whose each is.
    """

    folder: Path
    sha256: str
    keys: tuple[str, ...]
    identity_ids: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def images(self) -> UInt8[np.ndarray, "n 112 112 3"]:
        """RGB; read from the disk as they are asked for."""
        return np.memmap(self.folder / CROPS, np.uint8, "r", shape=(len(self), CROP_PX, CROP_PX, 3))

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Class of each: the place of its identity among all, ascending."""
        return np.unique(self.identity_ids, return_inverse=True)[1].astype(np.int64)

    def pictures(self, rows: Int64[np.ndarray, " m"] | None = None) -> Pictures:
        """What `train` takes: all crops, or some of them, whose people are numbered without gaps."""
        if rows is None:
            return Pictures(self.images, self.labels)
        labels = self.labels.copy()
        labels[rows] = np.unique(labels[rows], return_inverse=True)[1]
        return Pictures(self.images, labels, rows)


def decoded(
    source: LabelledSet,
    folder: Path,
    workers: int | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> MemoryMap:
    """The set, decoded into a folder; at once where the folder has it already.

    Args:
        source: What to decode.
        folder: Its own; another source's crops there are replaced.
        workers: Processes that decode; None: one for each core, fewer for small sets.
        on_progress: Called with the number of pictures done.

    Raises:
        ValueError: If the disk has no room, with both numbers, before anything is decoded; if a picture is broken or
            not 112x112, naming its key.
    """
    found = opened(folder)
    if found is not None and found.sha256 == source.sha256:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    crops, index = folder / CROPS, folder / INDEX
    index.unlink(missing_ok=True)  # before the crops that it vouches for
    crops.unlink(missing_ok=True)
    expect_room(folder, len(source))
    with whole_path(crops) as part:
        _decode(source, part, workers or max(1, min(cores(), len(source) // PER_WORKER)), on_progress)
    told = {
        "format": _FORMAT,
        "sha256": source.sha256,
        "kind": source.kind,
        "keys": list(source.keys),
        "identity_ids": source.identity_ids.tolist(),
    }
    with whole_file(index) as file:
        file.write(json.dumps(told).encode())
    return MemoryMap(folder, source.sha256, source.keys, source.identity_ids)


def opened(folder: Path) -> MemoryMap | None:
    """The crops in a folder; None where there are none, or not whole."""
    try:
        told: dict[str, Any] = json.loads((folder / INDEX).read_text())
        size = (folder / CROPS).stat().st_size
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if told.get("format") != _FORMAT or size != len(told["keys"]) * CROP_BYTES:
        return None
    return MemoryMap(folder, told["sha256"], tuple(told["keys"]), np.array(told["identity_ids"], np.int64))


def expect_room(folder: Path, pictures: int) -> None:
    """Raises ValueError unless the disk of a folder, which may not be there yet, has room for so many crops."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    needed, free = pictures * CROP_BYTES, shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f"{folder}: expected {needed / 1e9:.1f} GB free for {pictures} decoded pictures of {CROP_BYTES / 1e3:.1f} "
            f"kB each, found {free / 1e9:.1f} GB"
        )


def _decode(source: LabelledSet, path: Path, workers: int, on_progress: Callable[[int], object] | None) -> None:
    """Writes all crops."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(source) * CROP_BYTES)  # no room shows now, not half way through
    done = 0
    with Workers(workers) as crew:
        rows = range(0, len(source), _PIECE)
        given = zip(rows, pieces(source, _PIECE), strict=True)
        for count in crew.each(partial(decode_into, path), given):
            done += count
            if on_progress is not None:
                on_progress(done)
