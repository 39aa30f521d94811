"""How many pictures a second the bundled generator makes: `python -m benchmarks.speed.generate`.

Every setting is measured in turns in one run, by as many processes of one thread as there are cores, as the runners
use them. The slow loop of IDiff-Face, a thousand ancestral steps in single precision, is measured on fewer pictures.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

from generation.world.scenes import wild_attributes
from stages.generate.bundled import Bundled
from stages.records import Chunk, Identity, Variation

SPACE, DIMENSIONS = "bundled-a-2", 128
SLOW = {"scheduler": "ddpm", "steps": 1000, "precision": "fp32", "guidance_identity": 1.0, "guidance_attributes": 1.0}
_barrier: Barrier


def chunk_of(rows: int, seed: int) -> Chunk:
    """One photograph in the wild of each of so many people, whose vectors point anywhere."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = tuple(Identity(i, vector, vector) for i, vector in enumerate(vectors))
    photographs = tuple(Variation(f"{i:06d}_000", i, i, row) for i, row in enumerate(wild_attributes(rows, rng)))
    return Chunk(0, people, photographs)


def _meet(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _timed(settings: Mapping[str, Any], rows: int, runs: int, seed: int) -> list[float]:
    """Seconds that each run took in this process, all processes at once, after one run that warms up."""
    generator = Bundled(SPACE, **settings)
    work = chunk_of(rows, seed)
    seconds = []
    for _ in range(runs + 1):
        _barrier.wait()
        start = time.perf_counter()
        generator(work)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def rate(settings: Mapping[str, Any], rows: int, runs: int, processes: int) -> float:
    """Pictures per second of all processes together: of each the median run."""
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _meet, (context.Barrier(processes),)) as pool:
        jobs = [pool.submit(_timed, settings, rows, runs, seed) for seed in range(processes)]
        return sum(rows / statistics.median(job.result()) for job in jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64, help="pictures a run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--slow", action="store_true", help="the thousand-step loop, too (a minute or more)")
    asked = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(
        f"{date.today()}, {machine}; {asked.processes} processes of one thread, {asked.rows} pictures a run, "
        f"median of {asked.runs}\n"
    )
    print("| scheduler | steps | pictures/s |\n|---|---:|---:|")
    for steps in asked.steps:
        print(f"| dpm | {steps} | {rate({'steps': steps}, asked.rows, asked.runs, asked.processes):.1f} |", flush=True)
    if asked.slow:
        print(f"| ddpm, fp32, batches of 16 | 1000 | {rate(SLOW, 16, 1, asked.processes):.2f} |")


if __name__ == "__main__":
    main()
