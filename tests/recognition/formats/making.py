"""Small pictures and sets, and files that are damaged on purpose."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from recognition.formats import LabelledSet, Sample
from recognition.formats.recordio import MAGIC


def picture(seed: int = 0, side_px: int = 112, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    rough = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rough).resize((side_px, side_px), Image.Resampling.BICUBIC).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def people(counts: dict[int, int]) -> LabelledSet:
    """A set in memory: so many pictures of each identity, identities taking turns."""
    samples = [
        Sample(f"{person:06d}_{number:03d}", picture(1000 * person + number), person, {"seed": number})
        for number in range(max(counts.values()))
        for person, count in counts.items()
        if number < count
    ]
    return LabelledSet.of(samples)


def contents(labelled: LabelledSet) -> list[tuple[int, bytes]]:
    """Who and what, in order: the part of a set that every format keeps."""
    return [(sample.identity_id, sample.jpeg) for sample in labelled]


jpeg_like = st.builds(
    lambda parts: b"\xff\xd8\xff" + b"".join(parts),
    st.lists(st.one_of(st.binary(max_size=9), st.just(MAGIC), st.just(b"\0" + MAGIC), st.just(MAGIC * 3)), max_size=9),
)
"""Bytes that begin like a JPEG and are full of RecordIO's magic, at multiples of 4 and elsewhere."""

sets = st.lists(st.tuples(jpeg_like, st.integers(0, 5)), min_size=1, max_size=8).map(
    lambda rows: LabelledSet.of([Sample(f"k{row}", jpeg, who, {}) for row, (jpeg, who) in enumerate(rows)])
)


def damaged(content: bytes, draw: st.DataObject, ends: int = 200) -> bytes:
    """Some bytes changed, more at both ends than between them, or the rest cut off."""
    changed = bytearray(content)
    anywhere = st.integers(0, len(content) - 1)
    end = st.integers(0, min(ends, len(content)) - 1)
    places = st.one_of(anywhere, end, end.map(lambda place: len(content) - 1 - place))
    for place in draw.draw(st.lists(places, min_size=1, max_size=4)):
        changed[place] = draw.draw(st.sampled_from([0, 1, 0x0A, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    return bytes(changed[: draw.draw(anywhere)] if draw.draw(st.integers(0, 4)) == 0 else changed)


def same_people_or_refused(
    opened: Callable[[], LabelledSet], before: list[tuple[int, bytes]], where: Path, guarded: bool = True
) -> None:
    """A damaged set is refused by a ValueError that names the place; or it holds as many pictures as before.

    Args:
        guarded: Whether the format would notice other people; no format notices other bytes without a checksum.
    """
    try:
        after = contents(opened())
    except ValueError as fault:
        assert str(where) in str(fault)  # noqa: PT017
    else:
        assert len(after) == len(before)
        assert not guarded or [who for who, _ in after] == [who for who, _ in before]
