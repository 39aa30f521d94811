"""MXNet RecordIO in the layouts that insightface trains from: `train.rec`, `train.idx`, `property`; without MXNet.

A record is `magic, cflag << 29 | length` as two little-endian uint32, `length` bytes, zeros to the next multiple of 4.
Where a payload holds the magic at a multiple of 4, it is split there and the magic left out: cflag 1, 2 ..., 3 for its
parts, 0 for a whole one. A payload is `IRHeader`, `<IfQQ` (flag, label, id, id2), then `flag` float32 labels, then the
picture. `train.idx` is text: key, tab, offset of the record. The first entry of a vector of labels is the identity.

Two layouts, told apart by record 0:

- *insightface*: record 0 has no picture and labels [first identity key, end); images are keys 1, 2 ...; then comes
  a record per identity with labels [start, end) of its images' keys.
- *headerless*, as `im2rec`, insightface's `RecBuilder` and DALI's shuffled files have it: every key is an image.

`property` says `classes,112,112`, and the number of images in a second line where there is no header.

Labels are float32, exact up to 2**24: beyond that neither classes nor, in the insightface layout, keys can be told.

References:
    dmlc-core, recordio.h (the record); apache/mxnet, python/mxnet/recordio.py (header and index);
    deepinsight/insightface, recognition/arcface_torch/dataset.py and python-package/insightface/data/rec_builder.py.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from recognition.files import whole_file
from recognition.formats.sample import CROP_PX, MAX_PICTURE_BYTES, LabelledSet, Sample, extension_of, plain_keys

MAGIC = struct.pack("<I", 0xCED7230A)
EXACT = 2**24  # float32 holds every whole number below, and 2**24 itself, which 2**24 + 1 also becomes
MAX_LABELS = 1024  # of one record: insightface's landmarks take 12
_IR = struct.Struct("<IfQQ")
_MAX_PAYLOAD = _IR.size + 4 * MAX_LABELS + MAX_PICTURE_BYTES
_LENGTH = (1 << 29) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LINE = re.compile(rb"([0-9]{1,18})\t([0-9]{1,18})\n")
_MAX_LINE = 38

LAYOUTS = ("insightface", "headerless")


class Record(NamedTuple):
    """What a payload says.

    Attributes:
        labels: One number, or the vector of them.
        flag: How many labels the vector has; 0 where there is one number in the header itself.
        id: What the writer numbered it with; id2 likewise.
        picture: Encoded; b"" in header records.
    """

    labels: Float32[np.ndarray, " k"]
    flag: int
    id: int
    id2: int
    picture: bytes


def pack(label: float | Iterable[float], number: int, picture: bytes) -> bytes:
    """A payload: header, labels (a vector where `label` is no single number), picture.

    Raises:
        ValueError: If a label is not a whole number in [0, 2**24], which float32 would round.
    """
    vector = None if isinstance(label, int | float) else np.array(list(label), np.float64)
    values = np.array([label], np.float64) if vector is None else vector
    if not (len(values) and ((values >= 0) & (values <= EXACT) & (values == np.round(values))).all()):
        raise ValueError(
            f"label of record {number}: expected whole numbers from 0 to 2**24 (float32), got {values.tolist()}"
        )
    if vector is None:
        return _IR.pack(0, float(values[0]), number, 0) + picture
    return _IR.pack(len(vector), 0.0, number, 0) + vector.astype("<f4").tobytes() + picture


def unpack(payload: bytes) -> Record:
    """Takes a payload apart.

    Raises:
        ValueError: If it ends before its labels do, or claims more than `MAX_LABELS`.
    """
    if len(payload) < _IR.size:
        raise ValueError(f"expected a header of {_IR.size} bytes, found {len(payload)}")
    flag, label, number, number2 = _IR.unpack_from(payload)
    end = _IR.size + 4 * flag
    if flag > MAX_LABELS or end > len(payload):
        raise ValueError(
            f"expected at most {MAX_LABELS} labels within its {len(payload)} bytes, found a claim of {flag}"
        )
    labels = np.frombuffer(payload, "<f4", flag, _IR.size) if flag else np.array([label], np.float32)
    return Record(labels.astype(np.float32), flag, number, number2, payload[end:])


def write_record(file: BufferedIOBase, payload: bytes) -> None:
    """Appends a record, split at every magic that stands at a multiple of 4 of the payload.

    Raises:
        ValueError: If the payload is larger than a picture may be.
    """
    if len(payload) > _MAX_PAYLOAD:
        raise ValueError(f"payload: expected at most {_MAX_PAYLOAD} bytes, got {len(payload)}")
    cuts = _aligned_magics(payload)
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = _WHOLE if not cuts else _FIRST if place == 0 else _LAST if place == len(cuts) else _MIDDLE
        file.write(MAGIC + struct.pack("<I", kind << 29 | end - start) + payload[start:end] + bytes(-(end - start) % 4))


def read_record(file: BufferedIOBase) -> bytes:
    """The payload of the record that begins here, the magics put back between its parts; memory for what is there only.

    Raises:
        ValueError: If no whole record begins here, or one larger than a picture may be.
    """
    start, content, inside = file.tell(), bytearray(), False
    while True:
        kind, length = _part(file.read(8), start, inside)
        if len(content) + length > _MAX_PAYLOAD:
            raise ValueError(f"record at byte {start}: expected at most {_MAX_PAYLOAD} bytes, found a claim of more")
        part = file.read(length)
        if len(part) != length or len(file.read(-length % 4)) != -length % 4:
            raise ValueError(f"record at byte {start}: expected {length} bytes, found the end of the file")
        if _aligned_magics(part):  # a writer splits there, so this length swallows the record behind it
            raise ValueError(f"record at byte {start}: expected no magic inside a part, found one: a wrong length?")
        content += part
        if kind in (_WHOLE, _LAST):
            return bytes(content)
        content += MAGIC
        inside = True


def write_records(
    folder: Path,
    source: LabelledSet,
    layout: str = "insightface",
    wrote: Callable[[int], object] = lambda pictures: None,
) -> None:
    """Writes a set as `train.rec`, `train.idx`, `property` and `train.lst` into a folder; the same set, the same bytes.

    People come in ascending order, their pictures in the order of the set; labels are the places in that order.
    `train.lst` (key, tab, label, tab, identity/name) says which picture a key was. The index comes last: a set without
    one is none.

    Args:
        folder: Where they go; it exists.
        source: The pictures; their bytes pass through unchanged.
        layout: One of `LAYOUTS`: with header and identity records, or without.
        wrote: Told after each picture how many are done.
    Raises:
        ValueError: If the layout is neither, or there are more classes, or in the insightface layout more records, than
            float32 can number.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    order = np.argsort(source.identity_ids, kind="stable")
    classes, counts = np.unique(source.identity_ids, return_counts=True)
    first = 1 if layout == "insightface" else 0
    records = first + len(order) + first * len(classes)
    if len(classes) > EXACT:
        raise ValueError(
            f"{source.place}: expected at most 2**24 people, which float32 labels can tell, got {len(classes)}"
        )
    if first and records > EXACT:
        raise ValueError(
            f"{source.place}: expected at most 2**24 records, whose keys the insightface layout keeps as float32, "
            f"got {records}; the headerless layout has no such limit"
        )
    names, labels = plain_keys(source.keys), np.repeat(np.arange(len(classes)), counts)
    offsets = array("q")
    with whole_file(folder / "train.rec") as rec, whole_file(folder / "train.lst") as listing:
        if first:
            _append(rec, offsets, pack((1 + len(order), records), 0, b""))
        for place, sample in enumerate(source.read(order)):
            key, label = first + place, int(labels[place])
            _append(rec, offsets, pack(label, key, sample.jpeg))
            path = f"{sample.identity_id:06d}/{names[order[place]]}.{extension_of(sample)}"
            listing.write(f"{key}\t{label}\t{path}\n".encode())
            wrote(place + 1)
        ends = first + np.cumsum(counts)
        for number, (end, count) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True) if first else ()):
            _append(rec, offsets, pack((end - count, end), 1 + len(order) + number, b""))
    with whole_file(folder / "property") as file:
        file.write(f"{len(classes)},{CROP_PX},{CROP_PX}\n".encode() + (b"" if first else b"%d\n" % len(order)))
    with whole_file(folder / "train.idx") as file:
        file.writelines(b"%d\t%d\n" % row for row in enumerate(offsets))


def open_records(rec: Path) -> LabelledSet:
    """A `.rec` as a set, with the `.idx` beside it and `property` where there is one; keys are those of the index.

    Every record's place and header are looked at: the index must name each record of the file, and nothing else. In the
    insightface layout pictures come by key, in a headerless one as the index has them, as arcface_torch takes them.

    Raises:
        ValueError: If a file is missing, cut off, damaged, or contradicts another; names the file and the fault.
    """
    idx = rec.with_suffix(".idx")
    if not idx.is_file():
        raise ValueError(f"{rec}: expected its index {idx.name} beside it, found none")
    keys, offsets = _read_index(idx, rec.stat().st_size)
    try:
        with rec.open("rb") as file:
            heads = _heads(file, rec.stat().st_size)
    except (ValueError, struct.error) as fault:
        raise ValueError(f"{rec}: {fault}") from fault
    heads = heads.take(_places(idx, keys, offsets, heads.starts))
    pictures = _pictures_of(rec, keys, heads)
    labels = _whole_labels(rec, keys, heads, pictures)
    _check_property(rec.with_name("property"), labels)
    names = tuple(map(str, keys[pictures].tolist()))
    return LabelledSet("recordio", str(rec), names, labels, _Reader(rec, names, labels, offsets[pictures]))


@dataclass(frozen=True, eq=False)
class _Reader:
    rec: Path
    keys: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " n"]

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        with self.rec.open("rb") as file:
            for row in rows:
                file.seek(int(self.offsets[row]))
                try:
                    record = unpack(read_record(file))
                except ValueError as fault:
                    raise ValueError(f"{self.rec}: key {self.keys[row]}: {fault}") from fault
                about = {"label_vector": record.labels.tolist()} if record.flag else {}
                if record.labels[0] != self.labels[row]:
                    raise ValueError(
                        f"{self.rec}: key {self.keys[row]}: expected label {self.labels[row]} as it was opened"
                    )
                yield Sample(self.keys[row], record.picture, int(self.labels[row]), about)


@dataclass(frozen=True, eq=False)
class _Heads:
    """Headers of records: where they begin, their first two labels (0 if there is one), how many, bytes of picture."""

    starts: Int64[np.ndarray, " r"]
    first: Float32[np.ndarray, " r"]
    second: Float32[np.ndarray, " r"]
    flags: Int64[np.ndarray, " r"]
    picture_bytes: Int64[np.ndarray, " r"]

    def take(self, rows: Int64[np.ndarray, " n"]) -> _Heads:
        return _Heads(
            *(column[rows] for column in (self.starts, self.first, self.second, self.flags, self.picture_bytes))
        )


def _append(file: BufferedIOBase, offsets: array[int], payload: bytes) -> None:
    offsets.append(file.tell())
    write_record(file, payload)


def _aligned_magics(content: bytes | bytearray) -> list[int]:
    """Places of the magic at multiples of 4."""
    found, at = [], content.find(MAGIC)
    while at >= 0:
        found += [at] * (at % 4 == 0)
        at = content.find(MAGIC, at + 1)
    return found


def _part(head: bytes, at: int, inside: bool) -> tuple[int, int]:
    """Kind and length of the part whose 8 bytes of head stand at a byte of the file."""
    if len(head) < 8 or head[:4] != MAGIC:
        raise ValueError(f"byte {at}: expected the head of a record, found {head.hex() or 'the end of the file'}")
    word = int.from_bytes(head[4:], "little")
    kind, length = word >> 29, word & _LENGTH
    if kind not in ((_MIDDLE, _LAST) if inside else (_WHOLE, _FIRST)):
        raise ValueError(
            f"byte {at}: expected {'a further' if inside else 'the first'} part of a record, found cflag {kind}"
        )
    if kind in (_FIRST, _MIDDLE) and length % 4:
        raise ValueError(f"byte {at}: expected a part that ends at a multiple of 4, found {length} bytes")
    return kind, length


def _read_index(path: Path, rec_bytes: int) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Keys and offsets, in the order of the file."""
    most = rec_bytes // (8 + _IR.size)  # no record is smaller
    if not 0 < path.stat().st_size <= max(1, most) * _MAX_LINE:
        raise ValueError(
            f"{path}: expected a line for each of at most {most} records of a .rec of {rec_bytes} bytes, "
            f"found {path.stat().st_size} bytes"
        )
    keys, offsets = array("q"), array("q")
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE + 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"{path}: expected 'key<TAB>offset' in line {len(keys) + 1}, found {line!r}")
            keys.append(int(match[1]))
            offsets.append(int(match[2]))
    return np.array(keys, np.int64), np.array(offsets, np.int64)


def _heads(file: BufferedIOBase, size: int) -> _Heads:
    """Goes from record to record, to the end of the file; reads heads alone."""
    starts, flags, picture_bytes, first, second = array("q"), array("q"), array("q"), array("f"), array("f")
    at = 0
    while at < size:
        start, total, at = at, *_length(file, at, size)
        head = _head(file, start, total)
        flag, label = struct.unpack_from("<If", head)
        if flag > MAX_LABELS or _IR.size + 4 * flag > total:
            raise ValueError(
                f"record at byte {start}: expected labels within its {total} bytes, found a claim of {flag}"
            )
        vector = struct.unpack_from(f"<{min(flag, 2)}f", head, _IR.size)
        starts.append(start)
        flags.append(flag)
        picture_bytes.append(total - _IR.size - 4 * flag)
        first.append(vector[0] if flag else label)
        second.append(vector[1] if flag > 1 else 0.0)
    whole = [np.array(column, np.int64) for column in (starts, flags, picture_bytes)]
    return _Heads(whole[0], np.array(first, np.float32), np.array(second, np.float32), whole[1], whole[2])


def _head(file: BufferedIOBase, start: int, total: int) -> bytes:
    """The first bytes of a payload: the header and two labels, as far as they are there."""
    if total < _IR.size:
        raise ValueError(f"record at byte {start}: expected a header of {_IR.size} bytes, found {total}")
    wanted = min(total, _IR.size + 8)
    length = _part(_read_at(file, start, 8), start, inside=False)[1]
    if length >= wanted:
        return _read_at(file, start + 8, wanted)
    file.seek(start)  # the magic is part of the header itself
    return read_record(file)[:wanted]


def _length(file: BufferedIOBase, start: int, size: int) -> tuple[int, int]:
    """Bytes of the payload of the record that starts there, and where the next one does."""
    at, total, inside = start, 0, False
    while True:
        kind, length = _part(_read_at(file, at, 8), at, inside)
        total, end = total + length, at + 8 + length + -length % 4
        if end > size:
            raise ValueError(f"record at byte {start}: expected {length} bytes at byte {at + 8}, found the file's end")
        if total > _MAX_PAYLOAD:
            raise ValueError(f"record at byte {start}: expected at most {_MAX_PAYLOAD} bytes, found {total}")
        if kind in (_WHOLE, _LAST):
            return total, end
        at, total, inside = end, total + 4, True


def _read_at(file: BufferedIOBase, at: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, at)


def _places(
    idx: Path, keys: Int64[np.ndarray, " r"], offsets: Int64[np.ndarray, " r"], starts: Int64[np.ndarray, " s"]
) -> Int64[np.ndarray, " r"]:
    """Which record of the file each line of the index means; every record must be meant once, by a key of its own."""
    unique, counts = np.unique(keys, return_counts=True)
    if len(unique) < len(keys):
        raise ValueError(f"{idx}: expected each key once, found {unique[counts.argmax()]} {counts.max()} times")
    places = np.searchsorted(starts, offsets)
    astray = (
        np.flatnonzero(starts[np.minimum(places, len(starts) - 1)] != offsets) if len(starts) else np.arange(len(keys))
    )
    if len(astray):
        raise ValueError(
            f"{idx}: expected the offset of a record at key {keys[astray[0]]}, "
            f"found {offsets[astray[0]]}, where none begins"
        )
    meant = np.bincount(places, minlength=len(starts))
    if (meant != 1).any():
        wrong = int(np.flatnonzero(meant != 1)[0])
        raise ValueError(f"{idx}: expected each record once, found that at byte {starts[wrong]} {meant[wrong]} times")
    return places.astype(np.int64)


def _pictures_of(rec: Path, keys: Int64[np.ndarray, " r"], heads: _Heads) -> Int64[np.ndarray, " n"]:
    """The rows that hold pictures, in order; checks the header and the identity records of the insightface layout."""
    zero = np.flatnonzero(keys == 0)
    if not (len(zero) and heads.flags[zero[0]] >= 2 and heads.picture_bytes[zero[0]] == 0):
        rows = np.arange(len(keys))
    else:
        by_key = np.argsort(keys)
        rows = by_key[1 : _check_layout(rec, keys[by_key], heads.take(by_key))]
    empty = rows[heads.picture_bytes[rows] == 0]
    if len(empty):
        raise ValueError(f"{rec}: expected a picture at key {keys[empty[0]]}, found a record without one")
    return rows


def _check_layout(rec: Path, keys: Int64[np.ndarray, " r"], heads: _Heads) -> int:
    """Holds the insightface layout against itself; records are in the order of their keys.

    Returns:
        The key of the first identity record: pictures have the keys from 1 up to it.
    """
    first, end = float(heads.first[0]), float(heads.second[0])
    if not (_whole(heads.first[:1]).all() and _whole(heads.second[:1]).all() and 1 < first < end):
        raise ValueError(
            f"{rec}: expected labels [first identity key, end) in the header record, found [{first}, {end})"
        )
    if not (len(keys) == end and keys[-1] == end - 1):
        raise ValueError(
            f"{rec}: expected the keys 0 to {int(end) - 1} that its header record speaks of, "
            f"found {len(keys)} up to {keys[-1]}"
        )
    of, images = slice(int(first), None), slice(1, int(first))
    starts, ends = heads.first[of].astype(np.float64), heads.second[of].astype(np.float64)
    right = (heads.flags[of] >= 2) & (heads.picture_bytes[of] == 0) & _whole(heads.first[of]) & _whole(heads.second[of])
    if not right.all():
        key = int(first) + int((~right).argmax())
        raise ValueError(f"{rec}: expected an identity record, two whole labels and no picture, at key {key}")
    order = np.argsort(starts, kind="stable")
    if not (np.array_equal(starts[order], [1, *ends[order][:-1]]) and ends.max() == first and (starts < ends).all()):
        raise ValueError(
            f"{rec}: expected identity records that share the keys 1 to {int(first) - 1} out, found others"
        )
    expected = np.repeat(heads.first[images][starts[order].astype(int) - 1], (ends - starts)[order].astype(int))
    stray = np.flatnonzero(heads.first[images] != expected)
    if len(stray):
        raise ValueError(
            f"{rec}: expected one label in an identity record's range, found {heads.first[1 + stray[0]]} "
            f"and {expected[stray[0]]} at key {1 + stray[0]}"
        )
    if len(np.unique(expected)) < len(starts):
        raise ValueError(
            f"{rec}: expected a label of its own for each of {len(starts)} identity records, found one twice"
        )
    return int(first)


def _whole(labels: Float32[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Which labels are whole numbers that float32 tells apart; header records may name the end 2**24."""
    return (labels >= 0) & (labels <= EXACT) & (labels == np.round(labels))


def _whole_labels(
    rec: Path, keys: Int64[np.ndarray, " r"], heads: _Heads, pictures: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    labels = heads.first[pictures]
    wrong = np.flatnonzero(~(_whole(labels) & (labels < EXACT)))
    if len(wrong):
        raise ValueError(
            f"{rec}: expected whole labels from 0 to 2**24 - 1, which float32 tells apart, "
            f"found {labels[wrong[0]]} at key {keys[pictures[wrong[0]]]}"
        )
    return labels.astype(np.int64)


def _check_property(path: Path, labels: Int64[np.ndarray, " n"]) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(200)
    match = re.fullmatch(rb"\s*([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\s*(?:\n([0-9]{1,18})\s*)?", text)
    if match is None or (int(match[2]), int(match[3])) != (CROP_PX, CROP_PX):
        raise ValueError(f"{path}: expected 'classes,112,112', found {text!r}")
    if int(match[1]) <= labels.max():
        raise ValueError(f"{path}: expected more classes than the largest label {labels.max()}, found {int(match[1])}")
    if match[4] is not None and int(match[4]) != len(labels):
        raise ValueError(f"{path}: expected {len(labels)} pictures in its second line, found {int(match[4])}")
