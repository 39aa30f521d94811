"""Where a run's verification sets come from. Whatever their origin, they are `.bin` files that one reader reads.

The people of the world's protocols come from a stream of random numbers of their own, so no bundled model and no run
has ever seen them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.bins import write_bin
from benchmarks.people import people_path, write_people
from generation.world import SPACE, attribute_table, render
from generation.world.scenes import PROTOCOLS, PairPlan, protocol_pairs
from pipeline.progress import Watch, say
from pipeline.runners import Runner
from pipeline.steps.files import write_text
from stages.embed.align import crop
from stages.pack import encode_jpeg
from stages.records import Chunk, Identity, Variation

PROTOCOL_STREAM = 7_003  # of SeedSequence, beside the seed and the protocol's place
JPEG_QUALITY = 95
PICTURES_PER_CHUNK = 120


class Photograph:
    """A station: renders the rows of a chunk and cuts the faces out by their exact landmarks. Returns JPEG files."""

    def __call__(self, chunk: Chunk) -> list[bytes]:
        vector_of = {person.id: person.vector for person in chunk.identities}
        rendering = render(
            np.stack([vector_of[row.identity_id] for row in chunk.variations]),
            attribute_table([row.attributes for row in chunk.variations]),
            np.array([row.seed for row in chunk.variations], np.int64),
        )
        return [encode_jpeg(face, JPEG_QUALITY) for face in crop(rendering.pixels, rendering.landmarks)]


class WorldProtocols:
    """The protocols of the face world, rendered when they are first needed: of the same arguments, the same sets.

    Args:
        names: Which of `generation.world.scenes.PROTOCOLS`.
        pairs: Of each, a multiple of twice the folds.
        folds: With people of their own.
        seed: Of people and photographs; no run's seed, so that runs compare.
        space: The world's space, literally.
    Raises:
        ValueError: If a name is unknown, a number out of range, or the space is not that of the world at hand.
    """

    def __init__(
        self, names: Sequence[str], pairs: int = 6000, folds: int = 10, seed: int = 0, space: str = SPACE
    ) -> None:
        unknown = [name for name in names if name not in PROTOCOLS]
        if unknown or not names:
            raise ValueError(f"names: expected some of {', '.join(PROTOCOLS)}, got {', '.join(unknown) or 'none'}")
        if folds < 2 or pairs < 1 or pairs % (2 * folds):
            raise ValueError(f"pairs: expected a positive multiple of 2 * folds = {2 * folds}, got {pairs}")
        if space != SPACE:
            raise ValueError(f"space: expected {SPACE!r}, the world at hand, got {space!r}")
        self.names, self.pairs, self.folds, self.seed, self.space = list(names), pairs, folds, seed, space

    def prepare(self, folder: Path, runner: Runner) -> None:
        """Writes `<name>.bin`, and beside it who is on it, for every protocol that `folder` lacks, or has of other
        arguments."""
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in self.names if not self._written(folder, name)]
        for name in self.names:  # of a run that was begun before people were written down
            if name not in missing and not people_path(folder / f"{name}.bin").exists():
                write_people(folder / f"{name}.bin", self._plan(name).person.tolist())
        if not missing:
            return
        plans = [self._plan(name) for name in missing]
        pictures: list[list[bytes]] = [[] for _ in range(sum(map(_chunk_count, plans)))]
        with Watch("verify protocols", sum(len(plan.seeds) for plan in plans), "pictures") as watch:
            for done in runner.run(_chunks(plans), {"photograph": Photograph}):
                pictures[done.index] = done.result
                watch.advance(len(done.result))
        rest = iter(pictures)
        for name, plan in zip(missing, plans, strict=True):
            jpegs = [jpeg for chunk in itertools.islice(rest, _chunk_count(plan)) for jpeg in chunk]
            write_bin(folder / f"{name}.bin", jpegs, plan.same)
            write_people(folder / f"{name}.bin", plan.person.tolist())
            write_text(folder / f"{name}.txt", self._recipe(name))

    def _plan(self, name: str) -> PairPlan:
        rng = np.random.default_rng([PROTOCOL_STREAM, self.seed, list(PROTOCOLS).index(name)])
        return protocol_pairs(name, self.pairs, self.folds, rng)

    def _recipe(self, name: str) -> str:
        size = f"{self.pairs} pairs, {self.folds} folds"
        return f"{name}: {size}, seed {self.seed}, {self.space}, JPEG quality {JPEG_QUALITY}\n"

    def _written(self, folder: Path, name: str) -> bool:
        recipe = folder / f"{name}.txt"
        return (folder / f"{name}.bin").exists() and recipe.exists() and recipe.read_text() == self._recipe(name)


class Files:
    """Verification sets that are there already, such as `lfw.bin`: linked into the run.

    Args:
        folder: Where the `.bin` files are.
    Raises:
        ValueError: If there is none.
    """

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).resolve().glob("*.bin"))
        if not self.files:
            raise ValueError(f"folder: expected verification sets named *.bin, got none in {folder}")

    def prepare(self, folder: Path, runner: Runner) -> None:
        """Links every file that `folder` lacks, with its people where they are known."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*self.files, *(people_path(file) for file in self.files if people_path(file).exists())]:
            if not (folder / file.name).exists():
                os.symlink(file, folder / file.name)
                say(f"verify: {file.name} is {file}")


def _chunk_count(plan: PairPlan) -> int:
    return -(-len(plan.seeds) // PICTURES_PER_CHUNK)


def _chunks(plans: Sequence[PairPlan]) -> Iterator[Chunk]:
    """The photographs of the protocols, in file order, numbered throughout."""
    numbers = itertools.count()
    for plan in plans:
        for start in range(0, len(plan.seeds), PICTURES_PER_CHUNK):
            yield _chunk(next(numbers), plan, range(start, min(start + PICTURES_PER_CHUNK, len(plan.seeds))))


def _chunk(index: int, plan: PairPlan, rows: range) -> Chunk:
    """Some rows of a protocol, and the people that they show."""
    nobody = np.zeros(0, np.float32)  # nobody is judged here
    shown = sorted({int(plan.person[row]) for row in rows})
    people = tuple(Identity(person, plan.people[person], nobody) for person in shown)
    photographs = (
        Variation(f"{row:08d}", int(plan.person[row]), int(plan.seeds[row]), plan.attributes[row]) for row in rows
    )
    return Chunk(index, people, tuple(photographs))
