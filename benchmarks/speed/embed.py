"""Detect, align and embed, each alone on one thread: `python -m benchmarks.speed.embed`. Prints Markdown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from generation.weights import bundled
from generation.world import attribute_table, render, sample_people
from generation.world.scenes import wild_attributes
from stages.embed.align import crop
from stages.embed.bundled import Bundled
from stages.embed.detector import Detector

ROWS, RUNS = 128, 7


def rate(work: Callable[[], object]) -> tuple[float, float, float]:
    """Median, slowest and fastest pictures per second over RUNS runs, after one that warms up."""
    work()
    rates = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        rates.append(ROWS / (time.perf_counter() - start))
    return statistics.median(rates), min(rates), max(rates)


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    people, attributes = sample_people(ROWS, rng), attribute_table(wild_attributes(ROWS, rng))
    drawn = render(people, attributes, np.arange(ROWS))
    crops = crop(drawn.pixels, drawn.landmarks)
    detector = Detector(bundled("detector").verify(), threads=1)
    works: dict[str, Callable[[], object]] = {
        "detect": lambda: detector(drawn.pixels),
        "align": lambda: crop(drawn.pixels, drawn.landmarks),
    }
    for space in ("bundled-a-2", "bundled-b-2"):
        embedder = Bundled(space=space, threads=1)
        works[f"embed, {space}"] = lambda embedder=embedder: embedder.embed_crops(crops)  # type: ignore[misc]
    print(f"{ROWS} photographs in the wild, one thread, median of {RUNS} runs.\n")
    print("| | pictures/s | slowest | fastest |\n|---|---:|---:|---:|")
    for name, work in works.items():
        print("| {} | {:.0f} | {:.0f} | {:.0f} |".format(name, *rate(work)))


if __name__ == "__main__":
    main()
