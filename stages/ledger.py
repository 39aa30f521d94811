"""The ledger: a row for every planned picture, kept or not, in one Parquet part per chunk.

A part exists if and only if its shard is whole (law 4), so the names of the parts are the list of finished chunks.
There is no clock in it: the same chunk gives the same bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recognition.files import sha256_of, whole_file

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("identity_id", pa.int64()),
        ("chunk", pa.int64()),
        ("seed", pa.int64()),
        ("reason", pa.string()),  # the first rule that failed; "" where the picture is kept
        ("kept", pa.bool_()),
        ("norm", pa.float32()),  # of the embedding, before it was made a unit vector
        ("landmarks", pa.list_(pa.float32(), 10)),  # x, y of five points, in pixels of the generator's picture
    ]
)
METADATA = ("shard", "tar_sha256", "made_from")
PART_NAME = re.compile(r"(\d{6,})\.parquet")


def schema_with(rules: Iterable[str]) -> pa.Schema:
    """The columns of a part: SCHEMA, then a float32 column per rule of its judge, NaN where no face was found.

    Raises:
        ValueError: If a rule has the name of a column of SCHEMA, or two rules share one.
    """
    names = list(rules)
    taken = [name for name in names if name in SCHEMA.names or names.count(name) > 1]
    if taken:
        raise ValueError(f"rules: expected names of their own beside the columns {SCHEMA.names}, got {taken}")
    return pa.schema([*SCHEMA, *((name, pa.float32()) for name in names)])


def part_path(folder: str | Path, chunk: int) -> Path:
    """Where a chunk's part is: `000030.parquet`."""
    return Path(folder) / f"{chunk:06d}.parquet"


def write_part(path: str | Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Writes a part so that it is whole and on the disk, or not there.

    Args:
        path: Where the part is to be.
        table: Rows of the plan, in order, in the columns of `schema_with`.
        metadata: `shard` (file name of the tar), `tar_sha256`, `made_from` (fingerprint of what the run is made from).
    Raises:
        ValueError: If the columns or the metadata are others.
        OSError: If the disk does not take it; then there is no part.
    """
    rules = table.column_names[len(SCHEMA) :]
    if table.schema.remove_metadata() != schema_with(rules):
        raise ValueError(f"table: expected the columns of SCHEMA and a float32 per rule, got {table.schema}")
    if sorted(metadata) != sorted(METADATA):
        raise ValueError(f"metadata: expected {list(METADATA)}, got {sorted(metadata)}")
    with whole_file(Path(path)) as file:
        pq.write_table(table.replace_schema_metadata({name: metadata[name] for name in METADATA}), file)


def read_part_metadata(path: str | Path) -> dict[str, str]:
    """`shard`, `tar_sha256` and `made_from` of one part, without its rows.

    Raises:
        ValueError: If the file is no part of a ledger.
    """
    written = pq.read_schema(path).metadata or {}
    missing = [name for name in METADATA if name.encode() not in written]
    if missing:
        raise ValueError(f"{path}: expected a ledger part with {list(METADATA)} in its metadata, found no {missing}")
    return {name: written[name.encode()].decode() for name in METADATA}


def finished_chunks(folder: str | Path) -> set[int]:
    """Numbers of the chunks that are done. A folder that is not there has none."""
    folder = Path(folder)
    names = (PART_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return {int(name[1]) for name in names if name}


def read_ledger(folder: str | Path) -> pa.Table:
    """All parts as one table, in chunk order, in a chunk as planned. Without parts: SCHEMA and no rows.

    Raises:
        ValueError: If two parts were judged by different rules.
    """
    tables = [pq.read_table(part_path(folder, chunk)) for chunk in sorted(finished_chunks(folder))]
    for table in tables:
        if table.column_names != tables[0].column_names:
            raise ValueError(
                f"{folder}: expected parts judged by the same rules, got columns "
                f"{tables[0].column_names} and {table.column_names}"
            )
    return (
        pa.concat_tables([table.replace_schema_metadata(None) for table in tables]) if tables else SCHEMA.empty_table()
    )


def damaged_chunks(folder: str | Path, shards: str | Path) -> list[int]:
    """Chunks whose part vouches for a tar that is not there or holds other bytes. Reads every tar once."""
    return [chunk for chunk in sorted(finished_chunks(folder)) if not _whole(part_path(folder, chunk), Path(shards))]


def counts_by_reason(table: pa.Table) -> dict[str, int]:
    """How many pictures have each reason, most first, ties by name; "" counts those that are kept."""
    counts = Counter(table["reason"].to_pylist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _whole(part: Path, shards: Path) -> bool:
    said = read_part_metadata(part)
    tar = shards / said["shard"]
    return tar.is_file() and sha256_of(tar) == said["tar_sha256"]


def kept_rows(table: pa.Table) -> pa.Table:
    """The rows whose picture is in a shard."""
    return table.filter(pc.field("kept"))
