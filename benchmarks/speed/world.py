"""How many pictures a second the face world makes: `python -m benchmarks.speed.world`."""

import statistics
import time

import numpy as np
import torch

from generation.world import attribute_table, render, sample_people
from generation.world.scenes import wild_attributes

ROWS, RUNS = 64, 5


def rate(size_px: int, threads: int) -> float:
    """Median pictures per second over RUNS runs of ROWS photographs in the wild, after one that warms up."""
    rng = np.random.default_rng(0)
    rows = sample_people(ROWS, rng), attribute_table(wild_attributes(ROWS, rng)), np.arange(ROWS)
    torch.set_num_threads(threads)
    render(*rows, size_px=size_px)
    rates = []
    for _ in range(RUNS):
        start = time.perf_counter()
        render(*rows, size_px=size_px)
        rates.append(ROWS / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    print(f"Photographs in the wild, {ROWS} at a time, median of {RUNS} runs.\n")
    print("| size (px) | threads | pictures/s |\n|---:|---:|---:|")
    for size_px in (112, 224):
        for threads in (1, 2):
            print(f"| {size_px} | {threads} | {rate(size_px, threads):.0f} |")


if __name__ == "__main__":
    main()
