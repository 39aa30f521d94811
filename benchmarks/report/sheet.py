"""The contact sheet: people down, photographs across, as one JPEG."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

SIDE_PX = 112
PEOPLE, PHOTOGRAPHS = 8, 10
GAP_PX = 4
PAPER = (244, 242, 236)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet: its JPEG, whose rows they are (top down), and how many photographs it shows."""

    jpeg: bytes
    identity_ids: list[int]
    photographs: int
    columns: int


def contact_sheet(table: pa.Table, shard_of_chunk: dict[int, Path]) -> Sheet | None:
    """The first kept photographs of up to eight people, who stand at even distances in the dataset; None if nothing was kept.

    Only the shards of those people are opened.

    Args:
        table: Rows of the ledger.
        shard_of_chunk: The shard of each chunk.
    Raises:
        ValueError: If a kept photograph is not in its shard, or is not 112x112.
        OSError: If a shard cannot be read.
    """
    kept = table.filter(table["kept"])
    ids = kept["identity_id"].to_numpy()
    people = np.unique(ids)
    if not len(people):
        return None
    people = people[np.linspace(0, len(people) - 1, min(PEOPLE, len(people))).round().astype(int)]
    rows = {int(person): np.flatnonzero(ids == person)[:PHOTOGRAPHS] for person in people}
    keys, chunks = kept["key"].to_pylist(), kept["chunk"].to_numpy()
    wanted = {keys[r]: (line, column) for line, mine in enumerate(rows.values()) for column, r in enumerate(mine)}
    columns = max(len(mine) for mine in rows.values())
    pitch = SIDE_PX + GAP_PX
    canvas = Image.new("RGB", (columns * pitch - GAP_PX, len(rows) * pitch - GAP_PX), PAPER)
    missing = set(wanted)
    for chunk in sorted({int(chunks[r]) for mine in rows.values() for r in mine}):
        for key, jpeg in _photographs(shard_of_chunk[chunk]):
            if key in wanted:
                line, column = wanted[key]
                canvas.paste(_tile(jpeg, key), (column * pitch, line * pitch))
                missing.discard(key)
    if missing:
        raise ValueError(f"expected every kept photograph in its shard, got none named {min(missing)}")
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return Sheet(buffer.getvalue(), list(rows), len(wanted), columns)


def _tile(jpeg: bytes, key: str) -> Image.Image:
    tile = Image.open(io.BytesIO(jpeg), formats=("JPEG",)).convert("RGB")
    if tile.size != (SIDE_PX, SIDE_PX):
        raise ValueError(f"{key}: expected a crop of {SIDE_PX}x{SIDE_PX} pixels, got {tile.size[0]}x{tile.size[1]}")
    return tile


def _photographs(shard: Path) -> list[tuple[str, bytes]]:
    """Keys and JPEGs of a shard."""
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(".jpg")]
        return [(member.name.removesuffix(".jpg"), tar.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
