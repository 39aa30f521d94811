"""The shard format: labelled crops in a tar that WebDataset readers understand; writer and reader side by side.

A sample is three adjacent members, `<key>.jpg`, `<key>.cls` (the identity, as text) and `<key>.json` (whatever else is
known of the picture). A tar depends on its samples alone: USTAR, no clock, no owner. The reader trusts nothing: a tar
is either whole and of this form, or a ValueError.

WebDataset (https://github.com/webdataset/webdataset): files that share a name up to the first dot are one sample.
Beside the tars its users keep `sizes.json`, {"000000.tar": 10000, ...}: how many samples each holds.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from recognition.files import sha256_of, whole_file
from recognition.formats.sample import CROP_PX, KEY, MAX_PICTURE_BYTES, LabelledSet, Sample, decode_crop

SIZES = "sizes.json"
_MEMBER = re.compile(rf"({KEY.pattern})\.(jpg|cls|json)")
_MAX_BYTES = {"jpg": MAX_PICTURE_BYTES, "cls": 20, "json": 1 << 20}
_MAX_SIZES_BYTES = 64 << 20
_BLOCK = tarfile.BLOCKSIZE


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
    """Writes a tar, which appears whole or not at all; the same samples give the same bytes everywhere.

    Returns:
        The sha256 of the file.

    Raises:
        ValueError: If a key is malformed or used twice, or a value cannot be written.
    """
    keys: set[str] = set()
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            if sample.key in keys:
                raise ValueError(f"key: expected each key once, got {sample.key!r} twice")
            keys.add(sample.key)
            for extension, content in _members(sample):
                tar.addfile(_header(f"{sample.key}.{extension}", len(content)), io.BytesIO(content))
    return sha256_of(path)


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
    images = np.empty((len(samples), CROP_PX, CROP_PX, 3), np.uint8)
    for row, sample in zip(images, samples, strict=True):
        row[:] = decode_crop(sample)
    identity_ids, labels = np.unique(
        np.array([sample.identity_id for sample in samples], np.int64), return_inverse=True
    )
    return TrainingSet(images, labels.astype(np.int64), identity_ids, keys)


def open_shards(paths: Sequence[Path], place: Path, left_out: tuple[str, ...] = ()) -> LabelledSet:
    """The samples of the shards as one set, in order. Reads every name, label and description; pictures when asked for.

    Args:
        paths: The tars.
        place: Where they are, for messages; if it is a folder with `sizes.json` in it, that must agree with them.
        left_out: What else is there.
    Raises:
        ValueError: If a shard is malformed, a key occurs twice, or `sizes.json` speaks of other shards or counts.
    """
    keys, ids, places, counts = list[str](), array("q"), array("q"), dict[str, int]()
    for path in paths:
        before = len(keys)
        for entry in _entries(path, pictures=False):
            keys.append(entry.sample.key)
            ids.append(entry.sample.identity_id)
            places.extend((*entry.picture, *entry.about))
        counts[path.name] = len(keys) - before
    _check_sizes(place / SIZES, counts)
    file_of = np.repeat(np.arange(len(paths)), list(counts.values()))
    reader = _Reader(
        tuple(paths), tuple(keys), np.array(ids, np.int64), file_of, np.array(places, np.int64).reshape(-1, 4)
    )
    return LabelledSet("shards", str(place), reader.keys, reader.identity_ids, reader, left_out)


class _Entry(NamedTuple):
    """A sample in a tar, and where its picture and its description are: offset and size in bytes."""

    sample: Sample
    picture: tuple[int, int]
    about: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Reader:
    """Samples by their places. Rows may come in any order; those of one shard that follow each other open it once."""

    paths: tuple[Path, ...]
    keys: tuple[str, ...]
    identity_ids: Int64[np.ndarray, " n"]
    file_of: Int64[np.ndarray, " n"]
    places: Int64[np.ndarray, "n 4"]  # offset and size of the picture, offset and size of its description

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        for number, run in itertools.groupby(rows, lambda row: int(self.file_of[row])):
            path = self.paths[number]
            with path.open("rb") as file:
                for row in run:
                    offset, size, about, about_size = map(int, self.places[row])
                    picture, text = _bytes_at(file, path, offset, size), _bytes_at(file, path, about, about_size)
                    yield Sample(
                        self.keys[row], picture, int(self.identity_ids[row]), _object(text, self.keys[row], path)
                    )


def _bytes_at(file: BufferedIOBase, path: Path, offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(
            f"{path}: expected {size} bytes at byte {offset}, found {len(content)}: changed since it was opened?"
        )
    return content


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """Extension and content of the members of a sample, in the order of the format."""
    if not KEY.fullmatch(sample.key):
        raise ValueError(f"key: expected 1 to 80 letters, digits, _ or -, got {sample.key!r}")
    if sample.identity_id < 0:
        raise ValueError(f"identity_id of {sample.key}: expected at least 0, got {sample.identity_id}")
    try:
        about = json.dumps(dict(sample.about), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"about {sample.key}: expected what survives JSON: {error}") from error
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
    return (entry.sample for entry in _entries(path, pictures=True))


def _entries(path: Path, pictures: bool) -> Iterator[_Entry]:
    """The samples of a tar, without their pictures where those are not asked for."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as tar:  # type: ignore[call-overload]
            yield from _samples(tar, path, pictures)
    except (tarfile.TarError, OverflowError, UnicodeDecodeError, _TooLongError) as error:
        raise ValueError(f"{path}: expected a whole tar: {error}") from error


class _TooLongError(Exception):
    """A header of the tar claims more than any member of a shard may have."""


class _Bounded:
    """A file that never reads more at once than a member may have: `tarfile` reads what the header of a long name or of
    extended attributes claims, and the memory would be taken before the bytes turn out not to be there."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.file, self.name = file, ""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_PICTURE_BYTES:
            raise _TooLongError(f"a header claims {size} bytes")
        return self.file.read(size)


def _samples(tar: tarfile.TarFile, path: Path, pictures: bool) -> Iterator[_Entry]:
    finished: set[str] = set()
    open_key, contents, places, end = "", dict[str, bytes](), dict[str, tuple[int, int]](), 0
    for member in tar:
        key, extension = _checked_name(member, path)
        if key in finished or (extension in contents and key == open_key):
            raise ValueError(f"{path}: expected {member.name} once, next to the members of its sample")
        if open_key and key != open_key:
            raise ValueError(f"{path}: expected .jpg, .cls and .json of {open_key}, found only {', '.join(contents)}")
        wanted = pictures or extension != "jpg"
        open_key, contents[extension] = key, _content(tar, member, path) if wanted else b""
        places[extension] = member.offset_data, member.size
        end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
        if len(contents) == len(_MAX_BYTES):
            yield _Entry(_sample(key, contents, path), places["jpg"], places["json"])
            finished.add(key)
            open_key, contents = "", {}
    if open_key:
        raise ValueError(f"{path}: expected .jpg, .cls and .json of {open_key}, found only {', '.join(contents)}")
    _check_end(path, end)


def _check_sizes(path: Path, counted: Mapping[str, int]) -> None:
    """Holds `sizes.json`, where there is one, against the shards."""
    if not path.is_file():
        return
    if path.stat().st_size > _MAX_SIZES_BYTES:
        raise ValueError(f"{path}: expected at most {_MAX_SIZES_BYTES} bytes, found {path.stat().st_size}")
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if said != dict(counted):
        names = said if isinstance(said, dict) else {}
        wrong = sorted(name for name in {*names, *counted} if names.get(name) != counted.get(name))
        shown = (
            f"{wrong[0]} with {counted.get(wrong[0], 0)}, found {names.get(wrong[0])!r:.40}" if wrong else "an object"
        )
        raise ValueError(f"{path}: expected the samples of each shard beside it, {shown}")


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
    return Sample(key, contents["jpg"], int(contents["cls"]), _object(contents["json"], key, path))


def _object(text: bytes, key: str, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON in {key}.json: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: expected an object in {key}.json, found {type(about).__name__}")
    return about


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
