"""The contact sheet: people down, photographs across, as one JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from recognition.formats.shards import decode_crop, read_shards

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
    """The first kept photographs of up to eight people at even distances in the dataset; None if nothing was kept.

    Only the shards of those people are opened.

    Args:
        table: Rows of the ledger.
        shard_of_chunk: The shard of each chunk.
    Raises:
        ValueError: If a shard is malformed, or a kept photograph is not in it or not 112x112.
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
    opened = sorted({int(chunks[r]) for mine in rows.values() for r in mine})
    missing = set(wanted)
    for sample in read_shards(shard_of_chunk[chunk] for chunk in opened):
        if sample.key in wanted:
            line, column = wanted[sample.key]
            canvas.paste(Image.fromarray(decode_crop(sample)), (column * pitch, line * pitch))
            missing.discard(sample.key)
    if missing:
        raise ValueError(f"expected every kept photograph in its shard, got none named {min(missing)}")
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return Sheet(buffer.getvalue(), list(rows), len(wanted), columns)
