"""Hugging Face datasets: Parquet files whose schema says what the columns are, and a card, README.md, for the Hub.

`datasets.load_dataset(folder)` gives `image` (an `Image`: the struct {bytes, path} of the encoded picture), `label` (a
`ClassLabel` of 0, 1 ... without gaps, whose names are the identities), `key`, `identity_id`, and what else is known.
The features stand in the Parquet metadata under "huggingface", where `datasets` itself writes them; the card names the
files, the split and its size.

References:
    https://huggingface.co/docs/hub/datasets-cards, https://huggingface.co/docs/hub/datasets-data-files-configuration,
    https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from recognition.files import whole_file
from recognition.formats.sample import MAX_PICTURE_BYTES, LabelledSet, Sample, extension_of

ROWS_PER_FILE = 50_000  # crops of 112 px: about 0.2 to 0.5 GB, as the Hub advises
ROWS_PER_GROUP = 500  # the Hub's viewer and a shuffled reader fetch a group at a time
OWN_COLUMNS = ("image", "label", "key", "identity_id")
_KNOWN = {"label": pa.int64(), "key": pa.string(), "identity_id": pa.int64()}  # without a picture read
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.parquet")
_MAX_GROUP_BYTES = 2**31  # of a row group as it says of itself: nobody's readers take more
_MAX_FOOTER_BYTES = 256 << 20
_HUB_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


def open_dataset(place: Path) -> LabelledSet:
    """A folder of Parquet files, or one such file, as a set.

    It needs `image` (a struct with `bytes`) and `label` (whole numbers); identities are `identity_id` where there is
    such a column, else the labels; keys are `key`, else the rows' numbers, 8 digits. Other columns are `about`.

    Raises:
        ValueError: If a file is missing, cut off, damaged or of other columns, there is more than one split, a picture
            is not in the file, or labels and identities contradict each other; names the file and the fault.
    """
    paths = _files_of(place)
    opened = [_opened(path) for path in paths]
    known = _joined(place, [table for table, _ in opened])
    labels = known["label"].to_numpy()
    ids = known["identity_id"].to_numpy() if "identity_id" in known.column_names else labels
    pairs = len(np.unique(np.stack([labels, ids]), axis=1).T)
    if not pairs == len(np.unique(labels)) == len(np.unique(ids)):
        raise ValueError(f"{place}: expected one identity_id for each label, found {pairs} pairs of the two")
    keys = known["key"].to_pylist() if "key" in known.column_names else [f"{row:08d}" for row in range(len(known))]
    groups = [(path, group) for path, (_, sizes) in zip(paths, opened, strict=True) for group in range(len(sizes))]
    ends = np.cumsum([size for _, sizes in opened for size in sizes], dtype=np.int64)
    return LabelledSet("huggingface", str(place), tuple(keys), ids, _Reader(tuple(groups), ends, tuple(keys), ids))


def write_dataset(
    folder: Path,
    source: LabelledSet,
    name: str,
    columns: pa.Schema | None = None,
    front_matter: Mapping[str, Any] | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    wrote: Callable[[int], object] = lambda pictures: None,
) -> None:
    """Writes `data/train-00000-of-00002.parquet` ... and README.md; the same set, the same bytes.

    Args:
        folder: Where they go; it exists.
        source: The pictures; their bytes pass through unchanged.
        name: Of the dataset, for its card.
        columns: What of `about` becomes a column: int64, float32, bool, string, or lists of float32 of one length.
        front_matter: For the card's YAML, such as `license`, `tags`.
        rows_per_file: Pictures of a file; the last one holds the rest.
        wrote: Told after each picture how many are done.
    Raises:
        ValueError: If a column has a name or type of its own, or a picture lacks it.
    """
    extra = columns or pa.schema([])
    schema = _schema(source, extra)
    data = folder / "data"
    data.mkdir()
    starts = range(0, len(source), rows_per_file)
    picture_bytes = 0
    for number, start in enumerate(starts):
        path = data / f"train-{number:05d}-of-{len(starts):05d}.parquet"
        rows = range(start, min(start + rows_per_file, len(source)))
        with whole_file(path) as file, pq.ParquetWriter(file, schema, **_AS_IT_IS) as writer:
            for first in range(0, len(rows), ROWS_PER_GROUP):
                group = rows[first : first + ROWS_PER_GROUP]
                samples = list(source.read(group))
                writer.write_table(_table(samples, source.labels[group.start : group.stop], extra, schema))
                picture_bytes += sum(len(sample.jpeg) for sample in samples)
                wrote(group.stop)
    size = sum(path.stat().st_size for path in data.iterdir())
    with whole_file(folder / "README.md") as file:
        file.write(_card(source, name, extra, front_matter or {}, picture_bytes, size).encode())


# JPEGs do not compress; a checksum per page tells a flipped bit. No column is kept as a dictionary: pictures differ.
# Statistics would repeat whole pictures, the smallest and the largest, where no checksum is.
_AS_IT_IS: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_page_checksum": True,
    "write_statistics": ["label", "key", "identity_id"],
}


@dataclass(frozen=True, eq=False)
class _Reader:
    """Rows by number. Those of one row group that follow each other read it once."""

    groups: tuple[tuple[Path, int], ...]  # file, number of the row group in it
    ends: Int64[np.ndarray, " g"]
    keys: tuple[str, ...]
    identity_ids: Int64[np.ndarray, " n"]

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        for number, mine in itertools.groupby(rows, lambda row: int(np.searchsorted(self.ends, row, side="right"))):
            path, group = self.groups[number]
            begin = int(self.ends[number - 1]) if number else 0
            with _parquet(path) as file:
                table = file.read_row_group(group)
            if len(table) != self.ends[number] - begin:
                raise ValueError(
                    f"{path}: expected {self.ends[number] - begin} rows in group {group}, found {len(table)}"
                )
            for row in mine:
                yield self._sample(table.slice(row - begin, 1), row, path)

    def _sample(self, table: pa.Table, row: int, path: Path) -> Sample:
        said = table.to_pylist()[0]
        picture = (said["image"] or {}).get("bytes") or b""
        if not 0 < len(picture) <= MAX_PICTURE_BYTES:
            raise ValueError(
                f"{path}: expected 1 to {MAX_PICTURE_BYTES} bytes as picture {self.keys[row]}, found {len(picture)}"
            )
        about = {name: value for name, value in said.items() if name not in OWN_COLUMNS}
        return Sample(said.get("key", self.keys[row]), picture, int(self.identity_ids[row]), about)


def _files_of(place: Path) -> list[Path]:
    """The Parquet files of one split, all of them."""
    if place.is_file():
        return [place]
    found = [path for path in (*place.glob("*.parquet"), *place.glob("data/*.parquet")) if path.name[0] != "."]
    if len({path.parent for path in found}) != 1:
        raise ValueError(f"{place}: expected Parquet files in it or in its data/, found {'both' if found else 'none'}")
    folder, paths = found[0].parent, sorted(found)
    matches = [_PART.fullmatch(path.name) for path in paths]
    splits = sorted({match[1] if match else path.stem for match, path in zip(matches, paths, strict=True)})
    if len(splits) > 1:
        raise ValueError(f"{place}: expected the files of one split, found {', '.join(splits)}; name the file of one")
    whole = {f"{splits[0]}-{number:05d}-of-{len(paths):05d}.parquet" for number in range(len(paths))}
    if matches[0] is not None and {path.name for path in paths} != whole:
        raise ValueError(
            f"{folder}: expected all of {matches[0][3]} files of {splits[0]}, found {len(paths)} of other numbers"
        )
    return paths


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, its faults as ValueErrors that name it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, thrift_string_size_limit=_MAX_FOOTER_BYTES) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file's content
            raise
        raise ValueError(f"{path}: expected a whole Parquet file: {error}") from error


def _opened(path: Path) -> tuple[pa.Table, list[int]]:
    """Everything but pictures and `about`: `label`; `key` and `identity_id` where they are. And rows per group."""
    with _parquet(path) as file:
        _check_claims(path, file.metadata)
        schema = file.schema_arrow
        image = schema.field("image").type if "image" in schema.names else pa.null()
        if not (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0 and "label" in schema.names):
            raise ValueError(f"{path}: expected columns image, a struct with bytes, and label, found {schema.names}")
        if not pa.types.is_binary(image.field("bytes").type):
            raise ValueError(f"{path}: expected bytes in image, found {image.field('bytes').type}")
        table = file.read(columns=[name for name in _KNOWN if name in schema.names])
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        for name in table.column_names:
            fits = pa.types.is_string if name == "key" else pa.types.is_integer
            if not fits(table[name].type) or table[name].null_count:
                raise ValueError(
                    f"{path}: expected {name} in every row, found {table[name].type}, {table[name].null_count} nulls"
                )
        table.validate(full=True)
        if len(table) != sum(sizes):
            raise ValueError(f"{path}: expected {sum(sizes)} rows, found {len(table)}")
        return table.replace_schema_metadata(None), sizes


def _joined(place: Path, tables: list[pa.Table]) -> pa.Table:
    if len({tuple(table.column_names) for table in tables}) > 1:
        raise ValueError(f"{place}: expected files of the same columns, found others in one of them")
    names = tables[0].column_names
    try:
        return pa.concat_tables([table.cast(pa.schema([(name, _KNOWN[name]) for name in names])) for table in tables])
    except pa.ArrowException as error:
        raise ValueError(f"{place}: {error}") from error


def _check_claims(path: Path, metadata: pq.FileMetaData) -> None:
    """What the footer says must fit the file, before memory is taken for it."""
    size = path.stat().st_size
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(column) for column in range(group.num_columns)]
        stored = sum(column.total_compressed_size for column in columns)
        unpacked = sum(column.total_uncompressed_size for column in columns)
        if not (0 <= stored <= size and 0 <= unpacked <= _MAX_GROUP_BYTES and 0 <= group.num_rows <= _MAX_GROUP_BYTES):
            raise ValueError(
                f"{path}: expected row group {number} within {size} bytes, {_MAX_GROUP_BYTES} unpacked, "
                f"found a claim of {group.num_rows} rows in {stored}, {unpacked} unpacked"
            )


def _schema(source: LabelledSet, extra: pa.Schema) -> pa.Schema:
    taken = [name for name in extra.names if name in OWN_COLUMNS or extra.names.count(name) > 1]
    if taken:
        raise ValueError(f"columns: expected names of their own beside {OWN_COLUMNS}, got {taken}")
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": [f"{identity:06d}" for identity in source.classes.tolist()], "_type": "ClassLabel"},
        "key": _feature(pa.string()),
        "identity_id": _feature(pa.int64()),
        **{field.name: _feature(field.type) for field in extra},
    }
    own = [("image", _IMAGE), ("label", pa.int64()), ("key", pa.string()), ("identity_id", pa.int64())]
    said = json.dumps({"info": {"features": features}})
    return pa.schema([*own, *((field.name, field.type) for field in extra)], metadata={"huggingface": said})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """How `datasets` names a type."""
    names = {pa.int64(): "int64", pa.float32(): "float32", pa.bool_(): "bool", pa.string(): "string"}
    if kind in names:
        return {"dtype": names[kind], "_type": "Value"}
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32():
        return {"feature": _feature(pa.float32()), "length": kind.list_size, "_type": "Sequence"}
    raise ValueError(f"columns: expected int64, float32, bool, string or lists of float32 of one length, got {kind}")


def _table(samples: Sequence[Sample], labels: Int64[np.ndarray, " m"], extra: pa.Schema, schema: pa.Schema) -> pa.Table:
    for sample in samples:
        missing = [name for name in extra.names if name not in sample.about]
        if missing:
            raise ValueError(f"picture {sample.key}: expected {missing} to be known of it")
    images = [{"bytes": sample.jpeg, "path": f"{Path(sample.key).stem}.{extension_of(sample)}"} for sample in samples]
    own = [images, labels, [sample.key for sample in samples], [sample.identity_id for sample in samples]]
    values = [[sample.about[name] for sample in samples] for name in extra.names]
    try:
        arrays = [pa.array(column, field.type) for column, field in zip([*own, *values], schema, strict=True)]
    except (pa.ArrowException, TypeError, UnicodeEncodeError) as error:  # a file's name may be no text
        raise ValueError(f"pictures {samples[0].key} to {samples[-1].key}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _card(
    source: LabelledSet, name: str, extra: pa.Schema, more: Mapping[str, Any], picture_bytes: int, files_bytes: int
) -> str:
    """README.md. YAML is a superset of JSON, so the front matter's values are written as JSON."""
    hub_size = next((word for limit, word in _HUB_SIZES if len(source) < limit), "n>10M")
    front = {
        "pretty_name": name,
        "task_categories": ["image-classification", "image-feature-extraction"],
        "size_categories": [hub_size],
        "tags": ["face-recognition"],
        **more,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        "dataset_info": {
            "splits": [{"name": "train", "num_bytes": picture_bytes, "num_examples": len(source)}],
            "download_size": files_bytes,
            "dataset_size": picture_bytes,
        },
    }
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    known = "".join(f"| `{field.name}` | {field.type} |\n" for field in extra)
    return f"""---
{lines}
---

# {name}

{len(source):,} aligned face crops (112×112) of {len(source.classes):,} identities.

```python
datasets.load_dataset(".")["train"]
```

| column | |
|---|---|
| `image` | the crop, encoded as it was written first |
| `label` | class, 0 to {len(source.classes) - 1}; its name is the identity |
| `key` | name of the picture |
| `identity_id` | whose face it is |
{known}"""
