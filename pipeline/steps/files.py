"""Files of a run: text and tables; what they say of themselves; what is said when one is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recognition.files import whole_file


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str], rows_per_group: int | None = None) -> None:
    with whole_file(path) as file:
        pq.write_table(table.replace_schema_metadata(dict(metadata)), file, row_group_size=rows_per_group)


def digest(*inputs: str) -> str:
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def metadata(path: Path) -> dict[str, str]:
    """Metadata of a Parquet file; none of one that is not there."""
    if not path.exists():
        return {}
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}


def read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is not there. ValueError, with its name, where that is no JSON object."""
    try:
        said = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as fault:
        raise ValueError(f"{path}: expected JSON: {fault}") from fault
    if not isinstance(said, dict):
        raise ValueError(f"{path}: expected an object, found {type(said).__name__}")
    return said


def expect(path: Path, step: str) -> None:
    """Raises ValueError where the file is missing, naming the step that writes it."""
    if not path.exists():
        raise ValueError(f"expected {path}, which the step {step} writes; ask for it first: steps=[{step},...]")
