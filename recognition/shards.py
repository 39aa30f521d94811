"""The shard format: labelled crops in a tar that WebDataset readers understand; writer and reader side by side.

A sample is three adjacent members, `<key>.jpg`, `<key>.cls` (the identity, as text) and `<key>.json` (whatever else is
known of the picture). A tar depends on its samples alone: USTAR, no clock, no owner. The reader trusts nothing: a tar
is either whole and of this form, or a ValueError.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

# No dot: WebDataset takes everything after the first one for the extension. At most 80: USTAR names end at 100.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MEMBER = re.compile(rf"({_KEY.pattern})\.(jpg|cls|json)")
_MAX_BYTES = {"jpg": 16 << 20, "cls": 20, "json": 1 << 20}
_BLOCK = tarfile.BLOCKSIZE
_CROP = (112, 112)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a shard.

    Attributes:
        key: Unique name, of letters, digits, `_` and `-`.
        jpeg: The encoded crop.
        identity_id: Whose face it is, at least 0.
        about: What else is known of the picture; must survive JSON.
    """

    key: str
    jpeg: bytes
    identity_id: int
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Decoded crops with contiguous labels.

    Attributes:
        images: RGB crops.
        labels: Class of each crop: the place of its identity in `identity_ids`.
        identity_ids: Identities, ascending.
        keys: Names of the crops.
    """

    images: UInt8[np.ndarray, "n 112 112 3"]
    labels: Int64[np.ndarray, " n"]
    identity_ids: Int64[np.ndarray, " c"]
    keys: tuple[str, ...]


def write_shard(path: Path, samples: Iterable[Sample]) -> str:
    """Writes a tar and waits until it is on the disk; the same samples give the same bytes everywhere.

    The caller gives the file its final name: what lies at `path` after an error is not a shard.

    Returns:
        The sha256 of the file.

    Raises:
        ValueError: If a key is malformed or used twice, or a value cannot be written.
    """
    keys: set[str] = set()
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                if sample.key in keys:
                    raise ValueError(f"key: expected each key once, got {sample.key!r} twice")
                keys.add(sample.key)
                for extension, content in _members(sample):
                    tar.addfile(_header(f"{sample.key}.{extension}", len(content)), io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shards(paths: Iterable[Path]) -> Iterator[Sample]:
    """The samples of the shards, in order.

    Raises:
        ValueError: If a file is not a whole tar of this form, naming file and fault.
    """
    for path in paths:
        yield from _read_shard(path)


def load_training_set(paths: Iterable[Path]) -> TrainingSet:
    """All crops of the shards, decoded once into memory: 37.6 kB each.

    Raises:
        ValueError: If a shard is malformed, a picture cannot be decoded or is not 112x112 (naming its key), a key
            occurs twice, or there is no sample.
    """
    samples = list(read_shards(paths))
    if not samples:
        raise ValueError("shards: expected at least 1 sample, got 0")
    keys = tuple(sample.key for sample in samples)
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise ValueError(f"key: expected each key once in all shards, got {twice!r} twice")
    images = np.empty((len(samples), *_CROP, 3), np.uint8)
    for row, sample in zip(images, samples, strict=True):
        row[:] = decode_crop(sample)
    identity_ids, labels = np.unique(
        np.array([sample.identity_id for sample in samples], np.int64), return_inverse=True
    )
    return TrainingSet(images, labels.astype(np.int64), identity_ids, keys)


def decode_crop(sample: Sample) -> UInt8[np.ndarray, "112 112 3"]:
    """The RGB pixels of a sample.

    Raises:
        ValueError: If it is not a whole JPEG of 112x112 pixels, naming the key.
    """
    try:
        with Image.open(io.BytesIO(sample.jpeg), formats=["JPEG"]) as image:
            if image.size != _CROP:  # known before anything is decoded
                raise ValueError(f"expected 112x112 pixels, got {image.width}x{image.height}")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"picture {sample.key}: {error}") from error


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """Extension and content of the members of a sample, in the order of the format."""
    if not _KEY.fullmatch(sample.key):
        raise ValueError(f"key: expected 1 to 80 letters, digits, _ or -, got {sample.key!r}")
    if sample.identity_id < 0:
        raise ValueError(f"identity_id of {sample.key}: expected at least 0, got {sample.identity_id}")
    about = json.dumps(dict(sample.about), sort_keys=True, separators=(",", ":"), allow_nan=False)
    contents = {"jpg": sample.jpeg, "cls": str(sample.identity_id).encode(), "json": about.encode()}
    for extension, content in contents.items():
        if len(content) > _MAX_BYTES[extension]:
            raise ValueError(
                f"{sample.key}.{extension}: expected at most {_MAX_BYTES[extension]} bytes, got {len(content)}"
            )
        yield extension, content


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, no names: nothing of the machine
    header.size = size
    header.mode = 0o444
    return header


def _read_shard(path: Path) -> Iterator[Sample]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield from _samples(tar, path)
    except tarfile.TarError as error:
        raise ValueError(f"{path}: expected a whole tar: {error}") from error


def _samples(tar: tarfile.TarFile, path: Path) -> Iterator[Sample]:
    finished: set[str] = set()
    open_key, contents, end = "", dict[str, bytes](), 0
    for member in tar:
        key, extension = _checked_name(member, path)
        if key in finished or (extension in contents and key == open_key):
            raise ValueError(f"{path}: expected {member.name} once, next to the members of its sample")
        if open_key and key != open_key:
            raise ValueError(f"{path}: expected .jpg, .cls and .json of {open_key}, found only {', '.join(contents)}")
        open_key, contents[extension] = key, _content(tar, member, path)
        end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
        if len(contents) == len(_MAX_BYTES):
            yield _sample(key, contents, path)
            finished.add(key)
            open_key, contents = "", {}
    if open_key:
        raise ValueError(f"{path}: expected .jpg, .cls and .json of {open_key}, found only {', '.join(contents)}")
    _check_end(path, end)


def _checked_name(member: tarfile.TarInfo, path: Path) -> tuple[str, str]:
    """Key and extension of a member that may be read."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ValueError(f"{path}: expected plain files only, found {member.name!r} of type {member.type!r}")
    match = _MEMBER.fullmatch(member.name)
    if match is None:
        raise ValueError(f"{path}: expected names <key>.jpg, <key>.cls and <key>.json, found {member.name!r}")
    key, extension = match.groups()
    if member.size > _MAX_BYTES[extension]:
        raise ValueError(f"{path}: expected {member.name} within {_MAX_BYTES[extension]} bytes, found {member.size}")
    return key, extension


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise ValueError(f"{path}: expected {member.size} bytes in {member.name}, found {len(content)}: cut off?")
    return content


def _sample(key: str, contents: Mapping[str, bytes], path: Path) -> Sample:
    if not re.fullmatch(rb"[0-9]{1,18}", contents["cls"]):
        raise ValueError(f"{path}: expected a whole number in {key}.cls, found {contents['cls']!r}")
    try:
        about = json.loads(contents["json"], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON in {key}.json: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: expected an object in {key}.json, found {type(about).__name__}")
    return Sample(key, contents["jpg"], int(contents["cls"]), about)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_end(path: Path, end: int) -> None:
    """Two zero blocks at least, and zeros only, after the last member: `tarfile` takes a damaged header for the end of
    the tar."""
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(2 * tarfile.RECORDSIZE)
    if not 2 * _BLOCK <= len(rest) < 2 * _BLOCK + tarfile.RECORDSIZE or any(rest):
        raise ValueError(f"{path}: expected the end of the tar after byte {end}: cut off or damaged there")
