"""`weights.json`: which file a name stands for, and the hash that it must have; generation.weights reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.steps.files import write_text
from recognition.files import sha256_of

LISTING = "weights.json"


def listed(path: Path, space: str = "", dimensions: int = 0, vectors_of: str = "") -> dict[str, Any]:
    """What is listed of a file.

    Args:
        space: Of embeddings that it gives out, and their length; "" and 0 where it is no embedder.
        vectors_of: Hash of the embedder whose vectors it has learnt from; "" where it takes none.
    """
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "space": space,
        "dimensions": dimensions,
        "vectors_of": vectors_of,
    }


def shipped(path: Path, out: Path, space: str = "", dimensions: int = 0, vectors_of: str = "") -> dict[str, Any]:
    """Copies a file into a folder; what is listed of it there."""
    shutil.copyfile(path, out / path.name)
    return listed(out / path.name, space, dimensions, vectors_of)


def write_listing(out: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the list of a folder whose files are there, at once."""
    write_text(out / LISTING, json.dumps(entries, indent=2) + "\n")
