"""Plan: gives every person its photographs: plan.parquet, and how it is read chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.progress import say
from pipeline.rundir import RunDir
from pipeline.steps.files import expect, metadata
from pipeline.steps.order import Order
from recognition.files import whole_file
from stages.records import Chunk, Identity, Variation


def plan(run: RunDir, order: Order, label: str = "plan") -> None:
    """Gives every person its photographs: plan.parquet, a row group per chunk."""
    if metadata(run.plan).get("made_from") == order.made_from:
        return
    expect(run.identities, "sample")
    planner = order.planner()
    ids = pq.read_table(run.identities, columns=["id"])["id"].to_pylist()
    schema = pa.schema(
        [("key", pa.string()), ("identity_id", pa.int64()), ("chunk", pa.int64()), ("seed", pa.int64())]
        + [(name, pa.float32()) for name in planner.names],
        metadata={"made_from": order.made_from},
    )
    with whole_file(run.plan) as file, pq.ParquetWriter(file, schema) as writer:
        for chunk, start in enumerate(range(0, len(ids), order.chunk_people)):
            rows = [row for person in ids[start : start + order.chunk_people] for row in planner(person, order.seed)]
            columns: dict[str, list[Any]] = {
                "key": [row.key for row in rows],
                "identity_id": [row.identity_id for row in rows],
                "chunk": [chunk] * len(rows),
                "seed": [row.seed for row in rows],
            }
            columns |= {name: [row.attributes[name] for row in rows] for name in planner.names}
            writer.write_table(pa.table(columns, schema=schema))
    say(f"{label}: {len(ids) * planner.images_per_identity} photographs of {len(ids)} people")


@dataclass(frozen=True)
class Plan:
    """A plan on disk, chunk by chunk."""

    identities: Path
    rows: Path

    @functools.cached_property
    def chunks(self) -> int:
        return pq.ParquetFile(self.rows).num_row_groups

    def pictures(self, index: int) -> int:
        return pq.ParquetFile(self.rows).metadata.row_group(index).num_rows

    def chunk(self, index: int) -> Chunk:
        """One chunk, with the people and the rows that it holds."""
        table = pq.ParquetFile(self.rows).read_row_group(index)
        people = pq.ParquetFile(self.identities).read_row_group(index).to_pylist()
        names = table.column_names[4:]
        variations = tuple(
            Variation(row["key"], row["identity_id"], row["seed"], {name: row[name] for name in names})
            for row in table.to_pylist()
        )
        return Chunk(index, tuple(_person(row) for row in people), variations)


def _person(row: Mapping[str, Any]) -> Identity:
    return Identity(row["id"], np.array(row["vector"], np.float32), np.array(row["reference"], np.float32))
