"""Training shards: a set mixed for reading in order, as WebDataset's users train.

Runs keep whole people together, chunk by chunk; whoever reads such tars one after the other trains on few people at a
time. Here everybody's pictures are dealt to the shards like cards, and each shard is mixed. All shards are of one size,
give or take one picture, so that workers with as many shards finish together.

`.cls` is the class, counted from 0 without gaps, which is what trainers expect there; who that is in the source is
`identity_id` in `.json`. `sizes.json` is {"000000.tar": pictures, ...}, as open_clip reads it for the length of an
epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recognition.files import whole_file
from recognition.formats.sample import LabelledSet, Sample, plain_keys
from recognition.formats.shards import SIZES, write_shard


def dealt(identity_ids: Int64[np.ndarray, " n"], shards: int, seed: int) -> list[Int64[np.ndarray, " m"]]:
    """The rows of each shard, mixed.

    Pictures are ordered by person, people and each one's pictures at random, and dealt in that order: sizes of shards
    differ by at most 1, and so do the numbers of pictures that one person has in them.

    Raises:
        ValueError: If there are not at least 1 and at most n shards.
    """
    if not 1 <= shards <= len(identity_ids):
        raise ValueError(f"shards: expected 1 to {len(identity_ids)}, a picture each at least, got {shards}")
    rng = np.random.default_rng(seed)
    _, person = np.unique(identity_ids, return_inverse=True)
    turn = rng.permutation(person.max() + 1)[person]
    order = np.lexsort((rng.random(len(person)), turn))
    return [rng.permutation(order[first::shards]).astype(np.int64) for first in range(shards)]


def write_train_shards(
    folder: Path,
    source: LabelledSet,
    shards: int,
    seed: int = 0,
    wrote: Callable[[int], object] = lambda pictures: None,
) -> None:
    """Writes `000000.tar`, `000001.tar` ... and, last, `sizes.json`; the same set and seed, the same bytes.

    The pictures of one shard are in memory at a time.

    Args:
        folder: Where they go; it exists.
        source: The pictures; their bytes pass through unchanged.
        shards: How many; at least as many as workers will read them.
        seed: Of the order.
        wrote: Told after each picture how many are done.
    Raises:
        ValueError: If there are more shards than pictures.
    """
    plan, names, done = dealt(source.identity_ids, shards, seed), plain_keys(source.keys), 0

    def mixed(rows: Int64[np.ndarray, " m"]) -> Iterator[Sample]:
        nonlocal done
        by_row = np.sort(rows)  # each file of the source is then gone through once
        held = dict(zip(by_row.tolist(), source.read(by_row), strict=True))
        for row in rows.tolist():
            sample = held.pop(row)
            about = {**sample.about, "identity_id": sample.identity_id}
            yield replace(sample, key=names[row], identity_id=int(source.labels[row]), about=about)
            done += 1
            wrote(done)

    for number, rows in enumerate(plan):
        write_shard(folder / f"{number:06d}.tar", mixed(rows))
    with whole_file(folder / SIZES) as file:
        file.write(
            (json.dumps({f"{number:06d}.tar": len(rows) for number, rows in enumerate(plan)}, indent=1) + "\n").encode()
        )
