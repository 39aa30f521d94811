"""A labelled picture, and a set of them on disk: what training, export and the building of protocols share.

A set is opened without decoding or keeping a picture: the names and labels of all of them are known, their bytes are
read when they are asked for, and each is held against what was known.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from recognition.formats.pixels import read_pixels

# No dot: WebDataset takes everything after the first one for the extension. At most 80: USTAR names end at 100.
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MAX_PICTURE_BYTES = 16 << 20
EXPORTED = "export.json"  # what an export says of itself, in its folder: of no set a part
CROP_PX = 112


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of somebody.

    Attributes:
        key: Its name in its set.
        jpeg: The encoded crop; a PNG where the set holds such.
        identity_id: Whose face it is, at least 0.
        about: What else is known of the picture; must survive JSON.
    """

    key: str
    jpeg: bytes
    identity_id: int
    about: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """A set of labelled pictures, opened: `for sample in labelled` gives all of them in order, as often as is asked.

    Attributes:
        kind: The format: "shards", "recordio", "folder" or "huggingface"; "memory" where it is on no disk.
        place: The file or folder, for messages.
        keys: Names of the pictures, each once.
        identity_ids: Whose each is, at least 0; not contiguous in general.
        fetch: Reads rows, by number, in the order in which they are asked for. Files are open only while it runs.
        left_out: Files that are there and belong to no picture, such as hidden ones: to be told about.
    Raises:
        ValueError: If there is no picture, a key occurs twice, or a label is negative.
    """

    kind: str
    place: str
    keys: tuple[str, ...]
    identity_ids: Int64[np.ndarray, " n"]
    fetch: Callable[[Iterable[int]], Iterator[Sample]]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError(f"{self.place}: expected at least 1 picture, found 0")
        if len(set(self.keys)) < len(self.keys):
            twice = Counter(self.keys).most_common(1)[0][0]
            raise ValueError(f"{self.place}: expected each key once, found {twice!r} twice")
        if len(self.identity_ids) != len(self.keys) or self.identity_ids.min() < 0:
            raise ValueError(
                f"{self.place}: expected an identity of at least 0 for each of {len(self.keys)} pictures, "
                f"found {len(self.identity_ids)}, the smallest {self.identity_ids.min(initial=0)}"
            )

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> LabelledSet:
        """A set of pictures that are in memory."""
        ids = np.array([sample.identity_id for sample in samples], np.int64)
        keys = tuple(sample.key for sample in samples)
        return cls("memory", "memory", keys, ids, lambda rows: (samples[row] for row in rows))

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Sample]:
        return self.read(range(len(self)))

    def read(self, rows: Iterable[int] | Int64[np.ndarray, " r"]) -> Iterator[Sample]:
        """The pictures of these rows, in this order: part of a set for one of several workers, or a set mixed.

        Raises:
            ValueError: If a picture is not there as it was when the set was opened.
        """
        rows = rows if isinstance(rows, range) else [int(row) for row in rows]
        for row, sample in zip(rows, self.fetch(rows), strict=True):
            if sample.key != self.keys[row] or sample.identity_id != self.identity_ids[row]:
                raise ValueError(f"{self.place}: expected {self.keys[row]} as it was opened, found {sample.key}")
            yield sample

    @functools.cached_property
    def sha256(self) -> str:
        """Tells one set from another by what it holds: key, identity and encoded bytes of every picture, in order.

        Covers neither `about` nor where and in which format the set lies, so shards and their export as a Hugging Face
        dataset have the same. Names, sizes and times of files would not do: two sets can share them. All pictures are
        read once for it, at about the rate of the disk, and none is decoded.
        """
        digest = hashlib.sha256()
        for sample in self:
            key = sample.key.encode("utf-8", "surrogateescape")  # a file's name may be no text
            digest.update(struct.pack("<QQQ", len(key), sample.identity_id, len(sample.jpeg)))
            digest.update(key)
            digest.update(sample.jpeg)
        return digest.hexdigest()

    @functools.cached_property
    def classes(self) -> Int64[np.ndarray, " c"]:
        """Its identities, ascending."""
        return np.unique(self.identity_ids)

    @functools.cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The class of each picture: the place of its identity in `classes`."""
        return np.searchsorted(self.classes, self.identity_ids).astype(np.int64)


def decode_crop(sample: Sample) -> UInt8[np.ndarray, "112 112 3"]:
    """The RGB pixels of a sample.

    Raises:
        ValueError: If it is not a whole JPEG or PNG of 112x112 grey or RGB pixels, naming the key.
    """
    return read_pixels(sample.jpeg, f"picture {sample.key}", _expect_crop)


def _expect_crop(width: int, height: int) -> None:
    if width != CROP_PX or height != CROP_PX:
        raise ValueError(f"expected {CROP_PX}x{CROP_PX} pixels, got {width}x{height}")


def extension_of(sample: Sample) -> str:
    """ "jpg" or "png", by how the picture begins.

    Raises:
        ValueError: If it begins like neither, naming the key.
    """
    for start, extension in ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png")):
        if sample.jpeg.startswith(start):
            return extension
    raise ValueError(f"picture {sample.key}: expected a JPEG or PNG, found one that begins {sample.jpeg[:8]!r}")


def plain_keys(keys: Sequence[str]) -> Sequence[str]:
    """The keys, if each can be part of a file's name (`KEY`) wherever the set goes; else their numbers, 8 digits."""
    fit = all(KEY.fullmatch(key) for key in keys)
    return keys if fit else [f"{row:08d}" for row in range(len(keys))]
