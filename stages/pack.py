"""Pack: the survivors of a chunk into one tar shard, and every row into one ledger part.

The order of the writes is the law (4): the tar under another name, onto the disk, to its own name; then the ledger
part the same way, last. A process that dies in between leaves a chunk without a ledger part, which is a chunk that
has not been made yet.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from recognition.files import sync
from recognition.formats.shards import Sample, write_shard
from stages.ledger import part_path, schema_with, write_part
from stages.records import Faces, Verdicts


class Pack:
    """Writes a chunk's shard `<shards>/000030.tar` and ledger part `<ledger>/000030.parquet`; returns what it did.

    A sample is `<key>.jpg` (the aligned crop), `<key>.cls` (identity id, the class in training) and `<key>.json`
    (identity id, seed, attributes, landmarks). The same verdicts give the same bytes.

    Args:
        shards: Folder of the tars; made where it is missing.
        ledger: Folder of the ledger parts; made where it is missing.
        made_from: Fingerprint of all that the run is made from, kept in every part.
        jpeg_quality: 1 to 100. 95 is what the field's own sets use.
    Raises:
        ValueError: If an argument is out of range or a folder cannot be written to.
    """

    def __init__(self, shards: str | Path, ledger: str | Path, made_from: str, jpeg_quality: int = 95) -> None:
        if not 1 <= jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality: expected 1 to 100, got {jpeg_quality}")
        if not made_from:
            raise ValueError("made_from: expected a fingerprint, got ''")
        self.shards, self.ledger = _writable("shards", Path(shards)), _writable("ledger", Path(ledger))
        self.made_from, self.jpeg_quality = made_from, jpeg_quality

    def __call__(self, verdicts: Verdicts) -> dict[str, object]:
        """Packs one chunk.

        Returns:
            `chunk` (its number), `rows`, `kept`, `reasons` (how many pictures each rule turned away).
        Raises:
            OSError: If the disk does not take it; then the chunk has no ledger part.
        """
        chunk = verdicts.faces.chunk.index
        part, tar = part_path(self.ledger, chunk), self.shards / f"{chunk:06d}.tar"
        if part.exists():  # a chunk made again: its old part must not vouch for a new tar
            part.unlink()
            sync(self.ledger)
        sha256 = write_shard(tar, self._samples(verdicts))
        metadata = {"shard": tar.name, "tar_sha256": sha256, "made_from": self.made_from}
        write_part(part, ledger_rows(verdicts), metadata)  # last: a ledger part means that its shard is whole
        turned_away = Counter(reason for reason in verdicts.reasons if reason)
        kept = len(verdicts.reasons) - turned_away.total()
        return {
            "chunk": chunk,
            "rows": len(verdicts.reasons),
            "kept": kept,
            "reasons": dict(sorted(turned_away.items())),
        }

    def _samples(self, verdicts: Verdicts) -> Iterator[Sample]:
        faces = verdicts.faces
        for index, row in enumerate(faces.chunk.variations):
            if verdicts.reasons[index]:
                continue
            about = {
                "identity_id": row.identity_id,
                "seed": row.seed,
                "attributes": dict(row.attributes),
                "landmarks": faces.landmarks[index].tolist(),
            }
            yield Sample(row.key, encode_jpeg(faces.crops[index], self.jpeg_quality), row.identity_id, about)


def encode_jpeg(crop: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """An RGB picture as JPEG bytes (OpenCV's encoder: 4:2:0, no clock and no software name in the file)."""
    _, data = cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])  # OpenCV takes BGR
    return data.tobytes()


def ledger_rows(verdicts: Verdicts) -> pa.Table:
    """Every row of the chunk, in the plan's order, in the ledger's columns.

    Raises:
        ValueError: If a rule has the name of one of the ledger's own columns.
    """
    faces: Faces = verdicts.faces
    rows = faces.chunk.variations
    landmarks = pa.FixedSizeListArray.from_arrays(pa.array(faces.landmarks.reshape(-1)), 10)
    own = [
        [row.key for row in rows],
        [row.identity_id for row in rows],
        [faces.chunk.index] * len(rows),
        [row.seed for row in rows],
        list(verdicts.reasons),
        [reason == "" for reason in verdicts.reasons],
        faces.norms,
        landmarks,
    ]
    return pa.Table.from_arrays([*own, *verdicts.measured.values()], schema=schema_with(verdicts.measured))


def _writable(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: expected a folder that can be written to, got {folder}")
    return folder
