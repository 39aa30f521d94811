"""The reference runner: one process, one chunk after another, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.runners import Builder, Done, build, carry, threads_held_at
from stages.records import Chunk


class Local:
    """Builds every station here and carries the chunks through them one by one.

    Args:
        threads: Threads of the numerical libraries, at least 1. The bytes of a run are promised for one.
    Raises:
        ValueError: If `threads` is less than 1.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"expected threads >= 1, got {threads}")
        self.threads = threads

    def check(self, stations: Sequence[str]) -> None:
        """Any station finds its place in the one process."""

    def run(self, chunks: Iterable[Chunk], stations: Mapping[str, Builder]) -> Iterator[Done]:
        """Yields the chunks in the order in which they came.

        Raises:
            StationError: If a station could not be built, or raised on a chunk.
        """
        with threads_held_at(self.threads):
            built = build(stations)
            for chunk in chunks:
                result, seconds = carry(chunk.index, chunk, built)
                yield Done(chunk.index, result, seconds, worker=f"local@{os.uname().nodename}:{os.getpid()}", attempt=1)
