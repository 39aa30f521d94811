"""Sets of pictures that are made once: a chunk is a file of pictures and a file of what was seen in them.

A folder is named by what its pictures are made from, so whoever asks for the same set again, finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float32, Int64, UInt8

from generation.regressor import CLASSES, NUMBERS
from generation.weights import Weights
from pipeline.progress import Watch
from pipeline.runners import Runner
from recognition.files import whole_file
from stages.embed.detector import session_options
from stages.records import Chunk, Faces, Identity, Images, Variation

Lazy = Callable[[], Any]
BATCH = 16  # pictures that the regressor reads at once


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What embedder, witness and regressor see in the pictures of a set, in the order of its rows.

    Attributes:
        owners: Id of each picture's person.
        embeddings: By the embedder that judges, unit norm; `norms` their lengths before.
        landmarks, found: By the detector, in pixels of the picture.
        witness: By the witness, unit norm.
        numbers: By the regressor, in the order of `NUMBERS` and the attributes' units; `glasses`, `hat` the styles.
    """

    owners: Int64[np.ndarray, " n"]
    embeddings: Float32[np.ndarray, "n d"]
    norms: Float32[np.ndarray, " n"]
    landmarks: Float32[np.ndarray, "n 5 2"]
    found: Bool[np.ndarray, " n"]
    witness: Float32[np.ndarray, "n w"]
    numbers: Float32[np.ndarray, "n k"]
    glasses: Int64[np.ndarray, " n"]
    hat: Int64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a set was made: pictures a second of all workers together, in the generator alone."""

    pictures: int
    workers: int
    images_per_s: float


class Kept:
    """A station: a generator whose pictures are kept. It is built when the first picture is missing.

    Args:
        generator: Builds the generator.
        folder: Of the set.
    """

    def __init__(self, generator: Lazy, folder: str) -> None:
        self._build, self._folder = generator, Path(folder)
        self._generator: Any = None

    def __call__(self, chunk: Chunk) -> Images:
        path = pictures_path(self._folder, chunk.index)
        if path.exists():
            return Images(chunk, read_pictures(path))
        if self._generator is None:
            self._generator = self._build()
        started = time.perf_counter()
        images = self._generator(chunk)
        seconds = time.perf_counter() - started
        with whole_file(path) as file:
            np.savez_compressed(file, pixels=images.pixels, seconds=seconds, worker=os.getpid())
        return images


class Look:
    """A station: what the networks see in pictures, kept in a file per chunk. Returns the number of pictures.

    Args:
        embedder, witness: Build the two embedders.
        regressor: The regressor's ONNX file.
        folder: Of what was seen.
    """

    def __init__(self, embedder: Lazy, witness: Lazy, regressor: str, folder: str) -> None:
        self._embedder, self._witness = embedder(), witness()
        self._regressor = Regressor(Path(regressor))
        self._folder = Path(folder)

    def __call__(self, images: Images) -> int:
        faces = self._embedder(images)
        witnessed, _ = self._witness.embed_crops(faces.crops)
        numbers, glasses, hat = self._regressor(images.pixels, faces.crops)
        seen = Seen(
            owners=np.array([row.identity_id for row in images.chunk.variations], np.int64),
            embeddings=faces.embeddings,
            norms=faces.norms,
            landmarks=faces.landmarks,
            found=faces.found,
            witness=witnessed,
            numbers=numbers,
            glasses=glasses,
            hat=hat,
        )
        with whole_file(pictures_path(self._folder, images.chunk.index)) as file:
            np.savez(file, **{field.name: getattr(seen, field.name) for field in fields(Seen)})
        return len(seen.owners)


class Regressor:
    """112x112 pictures and the crops of their faces -> numbers in units, styles of glasses and hat, through ONNX.

    Raises:
        ValueError: If the file's inputs or outputs are others; if the pictures are not 112 px square.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=session_options(threads), providers=["CPUExecutionProvider"]
        )
        shapes = {output.name: output.shape[1] for output in self._session.get_outputs()}
        if shapes != {"numbers": len(NUMBERS), **CLASSES}:
            raise ValueError(f"{path}: expected outputs { ({'numbers': len(NUMBERS), **CLASSES}) }, got {shapes}")

    def __call__(
        self, pictures: UInt8[np.ndarray, "b h w 3"], crops: UInt8[np.ndarray, "b 112 112 3"]
    ) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        if pictures.shape[1:3] != (112, 112):
            raise ValueError(f"pictures: expected 112 x 112, got {pictures.shape[2]} x {pictures.shape[1]}")
        parts = [self._run(pictures[start:stop], crops[start:stop]) for start, stop in _blocks(len(pictures))]
        numbers, *styles = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        glasses, hat = (probability.argmax(1).astype(np.int64) for probability in styles)
        return numbers, glasses, hat

    def _run(self, *seen: UInt8[np.ndarray, "b 112 112 3"]) -> list[np.ndarray]:
        scaled = [(each.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5 for each in seen]
        inputs = dict(zip(("pixels", "crops"), scaled, strict=True))
        return self._session.run(["numbers", *CLASSES], {k: np.ascontiguousarray(x) for k, x in inputs.items()})


def _blocks(count: int) -> list[tuple[int, int]]:
    return [(start, start + BATCH) for start in range(0, count, BATCH)]


@dataclass(frozen=True)
class Studio:
    """Makes sets of pictures of people, and looks at them.

    Args:
        folder: Where the sets go.
        runner: Carries the chunks.
        chunk_people: People per chunk.
        embedder, witness: Build the two embedders.
        seen_by: Fingerprint of both.
        regressor: What reads attributes; its file is checked when it is first needed.
    """

    folder: Path
    runner: Runner
    chunk_people: int
    embedder: Lazy
    witness: Lazy
    seen_by: str
    regressor: Weights

    def make(
        self,
        name: str,
        generator: Lazy,
        made_from: str,
        vectors: Mapping[int, Float32[np.ndarray, " c"]],
        rows: Sequence[Variation],
    ) -> PictureSet:
        """The set of these rows: made, where it is not there; looked at, where it was not.

        Args:
            name: Of the set, on progress lines and in its folder's name.
            generator: Builds what makes the pictures.
            made_from: Fingerprint of the generator and its weights.
            vectors: What each person is conditioned on, by id.
            rows: Photographs, a person's rows adjacent.
        """
        key = _digest(f"{made_from} {self.chunk_people}", vectors, rows)
        eyes = hashlib.sha256((key + self.seen_by + self.regressor.sha256).encode()).hexdigest()[:16]
        made = PictureSet(
            self.folder / "pictures" / f"{name}-{key}",
            self.folder / "seen" / f"{name}-{eyes}",
            chunks_of(vectors, rows, self.chunk_people),
        )
        missing = [chunk for chunk in made.chunks if not made.is_there(chunk)]
        if missing:
            stations: dict[str, Lazy] = {
                "generate": partial(Kept, generator, str(made.pictures)),
                "embed": partial(Look, self.embedder, self.witness, str(self.regressor.verify()), str(made.looks)),
            }
            with Watch(name, sum(len(chunk.variations) for chunk in missing), "pictures") as watch:
                for done in self.runner.run(missing, stations):
                    watch.advance(done.result)
        return made


@dataclass(frozen=True, eq=False)
class PictureSet:
    """A set that is on the disk: `chunks` of rows, their `pictures`, and the `looks` at them."""

    pictures: Path
    looks: Path
    chunks: Sequence[Chunk]

    def is_there(self, chunk: Chunk) -> bool:
        return all(pictures_path(folder, chunk.index).exists() for folder in (self.pictures, self.looks))

    @property
    def rows(self) -> list[Variation]:
        return [row for chunk in self.chunks for row in chunk.variations]

    def seen(self) -> Seen:
        """What was seen in all pictures."""
        parts = [np.load(pictures_path(self.looks, chunk.index)) for chunk in self.chunks]
        return Seen(*(np.concatenate([part[field.name] for part in parts]) for field in fields(Seen)))

    def pixels(self, chunk: Chunk) -> UInt8[np.ndarray, "b h w 3"]:
        return read_pictures(pictures_path(self.pictures, chunk.index))

    def speed(self) -> Speed:
        """As it was measured when the pictures were made."""
        parts = [np.load(pictures_path(self.pictures, chunk.index)) for chunk in self.chunks]
        pictures = sum(len(chunk.variations) for chunk in self.chunks)
        workers = len({int(part["worker"]) for part in parts})
        return Speed(pictures, workers, pictures / sum(float(part["seconds"]) for part in parts) * workers)


def faces_of(made: PictureSet, seen: Seen, crop: Callable[..., np.ndarray]) -> Iterator[Faces]:
    """The faces of a set chunk by chunk, as a judge wants them."""
    start = 0
    for chunk in made.chunks:
        rows = slice(start, start := start + len(chunk.variations))
        crops = crop(made.pixels(chunk), seen.landmarks[rows])
        yield Faces(chunk, crops, seen.landmarks[rows], seen.embeddings[rows], seen.norms[rows], seen.found[rows])


def chunks_of(
    vectors: Mapping[int, Float32[np.ndarray, " c"]], rows: Sequence[Variation], chunk_people: int
) -> list[Chunk]:
    """Rows in chunks of whole people, who have no reference yet."""
    nobody = np.zeros(0, np.float32)
    of: dict[int, list[Variation]] = {}
    for row in rows:
        of.setdefault(row.identity_id, []).append(row)
    ids = list(of)
    blocks = [ids[start : start + chunk_people] for start in range(0, len(ids), chunk_people)]
    return [
        Chunk(
            index,
            tuple(Identity(person, vectors[person], nobody) for person in block),
            tuple(row for person in block for row in of[person]),
        )
        for index, block in enumerate(blocks)
    ]


def pictures_path(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:06d}.npz"


def read_pictures(path: Path) -> UInt8[np.ndarray, "b h w 3"]:
    with np.load(path) as arrays:
        return arrays["pixels"]


def _digest(made_from: str, vectors: Mapping[int, np.ndarray], rows: Sequence[Variation]) -> str:
    """Of all that decides the pictures of a set."""
    digest = hashlib.sha256(made_from.encode())
    for person, vector in vectors.items():
        digest.update(f"{person}".encode() + vector.tobytes())
    told = [[row.key, row.identity_id, row.seed, dict(row.attributes)] for row in rows]
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()[:16]
