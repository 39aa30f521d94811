"""Files of a run: written whole or not at all; what they say of themselves; what is said when one is missing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes `path` when all is written and on the disk, and never before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text)


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str], rows_per_group: int | None = None) -> None:
    with whole(path) as part:
        pq.write_table(table.replace_schema_metadata(dict(metadata)), part, row_group_size=rows_per_group)


def digest(*inputs: str) -> str:
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Of the file; "" of one that is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def metadata(path: Path) -> dict[str, str]:
    """Metadata of a Parquet file; none of one that is not there."""
    if not path.exists():
        return {}
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}


def read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is not there."""
    return json.loads(path.read_text()) if path.exists() else {}


def expect(path: Path, step: str) -> None:
    """Raises ValueError where the file is missing, naming the step that writes it."""
    if not path.exists():
        raise ValueError(f"expected {path}, which the step {step} writes; ask for it first: steps=[{step},...]")
