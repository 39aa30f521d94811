"""Processes that make parts side by side, each in memory of its own that it keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

Say = Callable[[str], None]

# Of glibc, which reads them when a process starts. By default it gives every large block back to the system as soon
# as it is free, and a training step, which frees and takes the same blocks again, spends most of its time on empty
# pages: with these, training on a CPU and attention are up to three times as fast.
KEEPS_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}


@contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, started anew, as CUDA wants it; what the user has set for malloc stays as it is.

    They end when this process does, however it does: what goes on after a killed `make weights` would be in the way of
    the one that goes on where it stopped.
    """
    added = {name: value for name, value in KEEPS_MEMORY.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as processes:
            yield processes
    finally:
        for name in added:
            del os.environ[name]


def _end_with_parent() -> None:
    Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def teller(name: str) -> Say:
    """Progress lines of a worker process, which cannot carry the parent's callable."""
    return lambda line: print(f"[{name}] {line}", flush=True)
