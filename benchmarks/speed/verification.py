"""Verification beside the ways it is done elsewhere: `python -m benchmarks.speed.verification`. Prints Markdown.

Three questions. The protocol on 6,000 pairs, against loops over folds and thresholds as insightface's are (written
anew here). A set of 12,000 slots with LFW's 7,701 different pictures, each embedded once, against each slot embedded.
And how much memory verifying that set takes beside the model, in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bins import read_bin, write_bin
from benchmarks.intervals import Draws, intervals95
from benchmarks.models import Settings, load_model
from benchmarks.protocols import load_protocol, measure
from benchmarks.verify import fold_of_pairs, fuse_flips, squared_distances, verify
from generation.weights import bundled

PAIRS, FOLDS, DIFFERENT, RUNS = 6000, 10, 7701, 5  # LFW's


def by_loops(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Accuracy per fold, TAR and FAR, threshold by threshold and fold by fold, as insightface's `evaluate`."""
    fold, coarse, fine = fold_of_pairs(len(same), FOLDS), np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
    accuracy, tar, far = np.zeros(FOLDS), np.zeros(FOLDS), np.zeros(FOLDS)
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        right = [(same[train] == (distance[train] < threshold)).mean() for threshold in coarse]
        for threshold in coarse:  # the ROC of the held-out fold, which it computes as well
            np.logical_and(distance[test] < threshold, same[test]).sum()
            np.logical_and(distance[test] < threshold, ~same[test]).sum()
        accuracy[f] = (same[test] == (distance[test] < coarse[int(np.argmax(right))])).mean()
        rates = [np.logical_and(distance[train] < t, ~same[train]).sum() / (~same[train]).sum() for t in fine]
        chosen = np.interp(1e-3, rates, fine) if max(rates) >= 1e-3 else 0.0
        tar[f] = np.logical_and(distance[test] < chosen, same[test]).sum() / same[test].sum()
        far[f] = np.logical_and(distance[test] < chosen, ~same[test]).sum() / (~same[test]).sum()
    return accuracy, float(tar.mean()), float(far.mean())


def median_s(work: Callable[[], object], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def write_set(path: Path, pairs: int) -> None:
    """A `.bin` of noise whose slots repeat pictures as often as LFW's do."""
    rng = np.random.default_rng(0)
    different = max(2, round(DIFFERENT * pairs / PAIRS))
    jpegs = []
    for _ in range(different):
        buffer = io.BytesIO()
        rough = Image.fromarray(rng.integers(0, 255, (28, 28, 3), np.uint8)).resize((112, 112))
        rough.save(buffer, "JPEG", quality=95)
        jpegs.append(buffer.getvalue())
    slots = np.append(np.arange(different), rng.integers(0, different, 2 * pairs - different))
    rng.shuffle(slots)
    write_bin(path, [jpegs[slot] for slot in slots], np.arange(pairs) % 2 == 0)


def memory_beside_the_model(path: str, batch: int) -> tuple[float, float]:
    """GB at the peak of this process, with the model loaded and warm, and after the set is verified."""
    model = load_model(bundled("embedder_a").path, Settings(device="cpu", threads=1, batch=batch))
    model(np.zeros((batch, 112, 112, 3), np.uint8))
    before = peak_gb()
    measure(load_protocol(path), model)
    return before, peak_gb()


def peak_gb() -> float:
    """Most memory that this program has had, in GB, as Linux tells it; rusage would count the parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the set that is embedded")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--memory-of", help="measure the memory of verifying this set, and nothing else")
    words = parser.parse_args()
    if words.memory_of:
        print(*memory_beside_the_model(words.memory_of, 64))
        return
    rng = np.random.default_rng(0)
    same = np.arange(PAIRS) % 2 == 0
    distance = 2 - 2 * np.where(same, rng.normal(0.5, 0.2, PAIRS), rng.normal(0, 0.1, PAIRS)).clip(-1, 1)
    ours, theirs = verify(distance, same), by_loops(distance, same)
    assert (ours.accuracy == theirs[0]).all(), (ours.accuracy, theirs[0])
    assert np.allclose([ours.tar, ours.far], theirs[1:], rtol=0, atol=1e-12), (ours.tar, ours.far, theirs[1:])
    fast = median_s(lambda: verify(distance, same), 20 * words.runs)
    slow = median_s(lambda: by_loops(distance, same), words.runs)
    bootstrap = median_s(lambda: intervals95(distance, fold_of_pairs(PAIRS, FOLDS), Draws(same)), words.runs)
    print(f"| protocol on {PAIRS:,} pairs | ms | |\n|---|---:|---|")
    print(
        f"| loops | {1000 * slow:.0f} | |\n| ours | {1000 * fast:.2f} | {slow / fast:.0f} times as fast, same numbers |"
    )
    print(f"| 1,000 draws of a bootstrap, all scores | {1000 * bootstrap:.0f} | |\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.bin"
        write_set(path, words.pairs)
        model = load_model(bundled("embedder_a").path, Settings(device="cpu", threads=1))

        def each_slot() -> np.ndarray:
            images, _ = read_bin(path)
            batches = [images[start : start + 64] for start in range(0, len(images), 64)]
            raw = np.concatenate([model(batch) for batch in batches])
            mirrored = np.concatenate([model(np.ascontiguousarray(batch[:, :, ::-1])) for batch in batches])
            return squared_distances(fuse_flips(raw, mirrored))

        assert np.allclose(each_slot(), measure(load_protocol(path), model).distance, atol=1e-4)
        every, once = [], []
        for _ in range(words.runs):  # in turn, so that a busy machine is as busy for both
            every.append(median_s(each_slot, 1))
            once.append(median_s(lambda: measure(load_protocol(path), model), 1))
        print(f"| a set of {2 * words.pairs:,} slots, one thread | s | |\n|---|---:|---|")
        print(f"| each slot | {statistics.median(every):.1f} | |")
        ratio = statistics.median(a / b for a, b in zip(every, once, strict=True))
        print(f"| each picture once | {statistics.median(once):.1f} | {ratio:.2f} times as fast |\n")
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.verification", "--memory-of", str(path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    before, after = (float(word) for word in told.split())
    print(f"| memory, GB | |\n|---|---:|\n| model, warm | {before:.2f} |\n| at the peak | {after:.2f} |")
    print(f"| beside the model | {after - before:.2f} |")


if __name__ == "__main__":
    main()
