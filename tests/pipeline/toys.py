"""Small real stations: a belt one can picture. Pixels come from the rows' seeds alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from generation.world import CONTROLS
from stages.generate.rendered import Rendered
from stages.judge import Judge
from stages.judge.rules import FaceFound, NearestOther, OwnIdentity
from stages.plan import Planner, Uniform
from stages.records import Chunk, Identity, Images, Variation


def chunk(index: int, people: int = 2, photographs: int = 3) -> Chunk:
    ids = range(index * people, (index + 1) * people)
    nobody = np.zeros(0, np.float32)
    rows = [
        Variation(f"{i:06d}_{k:03d}", i, seed=1000 * i + k, attributes={"yaw_deg": float(k)})
        for i in ids
        for k in range(photographs)
    ]
    return Chunk(index, tuple(Identity(i, nobody, nobody) for i in ids), tuple(rows))


class Noise:
    """A generator: noise from each row's own seed."""

    def __call__(self, chunk: Chunk) -> Images:
        rows = [np.random.default_rng(row.seed).integers(0, 256, (8, 8, 3), np.uint8) for row in chunk.variations]
        return Images(chunk, np.stack(rows))


class Total:
    """A last station: the sum of each picture."""

    def __call__(self, images: Images) -> list[int]:
        return [int(picture.sum()) for picture in images.pixels]


class DiesOnce(Noise):
    """Kills its own process, as the kernel would, the first time that it meets the chunk; a file remembers."""

    def __init__(self, on: int, memory: str) -> None:
        self.on, self.memory = on, Path(memory)

    def __call__(self, chunk: Chunk) -> Images:
        if chunk.index == self.on and not self.memory.exists():
            self.memory.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(chunk)


class DiesAlways(Noise):
    def __init__(self, on: int) -> None:
        self.on = on

    def __call__(self, chunk: Chunk) -> Images:
        if chunk.index == self.on:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(chunk)


class DiesWhileBuilt(Noise):
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeps(Noise):
    def __init__(self, on: int, seconds: float) -> None:
        self.on, self.seconds = on, seconds

    def __call__(self, chunk: Chunk) -> Images:
        if chunk.index == self.on:
            time.sleep(self.seconds)
        return super().__call__(chunk)


class Refuses(Noise):
    def __init__(self, on: int) -> None:
        self.on = on

    def __call__(self, chunk: Chunk) -> Images:
        if chunk.index == self.on:
            raise ValueError(f"expected any chunk but {self.on}")
        return super().__call__(chunk)


class Unbuildable(Noise):
    def __init__(self) -> None:
        raise ValueError("expected weights, got none")


def planner(photographs: int) -> Planner:
    """Turned heads of several ages."""
    return Planner(photographs, {"yaw_deg": Uniform(-40.0, 40.0), "age_years": Uniform(20.0, 60.0)})


def judge(identities: str) -> Judge:
    """A judge that turns some away: of random networks, cosines above the middle are as good as any."""
    return Judge(
        {"face_found": FaceFound(), "own_identity": OwnIdentity(0.5), "nearest_other": NearestOther(1.0, identities)}
    )


class Painted:
    """A generator that is conditioned on the judge's unit vectors: blots of the vector's own, surer in more steps."""

    controls = tuple(name for name in CONTROLS if name != "background")
    licence = "none"
    unit_vectors = True

    def __init__(self, space: str, steps: int) -> None:
        self.space, self.steps = space, steps

    def __call__(self, chunk: Chunk) -> Images:
        vector_of = {one.id: one.vector for one in chunk.identities}
        rows = [self._paint(vector_of[row.identity_id], row) for row in chunk.variations]
        return Images(chunk, np.stack(rows))

    def _paint(self, vector: np.ndarray, row: Variation) -> np.ndarray:
        if abs(np.linalg.norm(vector) - 1) > 1e-5:
            raise ValueError(f"expected a unit vector, got norm {np.linalg.norm(vector)}")
        own = np.random.default_rng(0).standard_normal((7 * 7 * 3, len(vector))) @ vector
        chance = np.random.default_rng(row.seed).standard_normal(own.shape)
        light = 140 + 60 * own + 30 / self.steps * chance + row.attributes.get("yaw_deg", 0.0) / 4
        return np.kron(light.reshape(7, 7, 3).clip(0, 255), np.ones((16, 16, 1))).astype(np.uint8)


class KilledOnce:
    """The world's renderer, whose process is killed the first time that it meets the chunk."""

    def __init__(self, on: int, memory: str) -> None:
        self.draw, self.on, self.memory = Rendered("world-1"), on, Path(memory)

    def __call__(self, chunk: Chunk) -> Images:
        if chunk.index == self.on and not self.memory.exists():
            self.memory.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.draw(chunk)


class Halts(Rendered):
    """The world's renderer; in the run that the environment names it never comes back from chunk 3 of the plan."""

    def __call__(self, chunk: Chunk) -> Images:
        run = os.environ.get("HALTS_IN")
        if run is not None and chunk.index == 3 and (Path(run) / "plan.parquet").exists():
            time.sleep(600)  # longer than any test may take
        return super().__call__(chunk)
