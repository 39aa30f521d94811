"""Runners: they carry chunks down the belt. What happens to a chunk is the stations' business; where is the runner's.

A runner takes chunks and the *builders* of the stations (so that a station is built where it works), and gives back
what the last station returned, chunk by chunk, in the order in which chunks finish. The same chunks and builders give
the same results in every runner, byte for byte (law 6); `local` is the reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from stages.records import Chunk

Station = Callable[[Any], Any]
Builder = Callable[[], Station]


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk that has left the belt.

    Attributes:
        index: Number of the chunk.
        result: What the last station returned.
        seconds: Wall time that each station took for the chunk, in belt order.
        worker: Who carried it: `<seat>@<host>:<pid>`; of a split belt, the last one.
        attempt: 1, and one more for each worker that died under the chunk.
    """

    index: int
    result: Any
    seconds: Mapping[str, float]
    worker: str
    attempt: int


@runtime_checkable
class Runner(Protocol):
    def check(self, stations: Sequence[str]) -> None:
        """Raises ValueError where the runner has no place for one of these stations."""
        ...

    def run(self, chunks: Iterable[Chunk], stations: Mapping[str, Builder]) -> Iterator[Done]:
        """Carries every chunk through the stations, in the order of the mapping."""
        ...


class StationError(RuntimeError):
    """A station raised: a mistake in the config, the code or a file, so the run stops. Not tried again.

    Attributes:
        chunk: Number of the chunk, or None while the station was being built.
        station: Name of the station.
        problem: The original error, in words.
    """

    def __init__(self, chunk: int | None, station: str, problem: str) -> None:
        super().__init__(chunk, station, problem)
        self.chunk, self.station, self.problem = chunk, station, problem

    def __str__(self) -> str:
        where = "could not be built" if self.chunk is None else f"failed on chunk {self.chunk}"
        return f"station `{self.station}` {where}: {self.problem}"


class GaveUpError(RuntimeError):
    """Workers died too often under the same chunk, or while they were being started."""


class StallError(RuntimeError):
    """Nothing finished for too long. The message says what every worker was doing."""


def build(builders: Mapping[str, Builder], begin: Callable[[str], None] = lambda station: None) -> dict[str, Station]:
    """Builds the stations, in order; `begin` hears the name of each before it is built."""
    built = {}
    for station, builder in builders.items():
        begin(station)
        try:
            built[station] = builder()
        except Exception as error:
            raise StationError(None, station, _in_words(error)) from error
    return built


def carry(
    index: int, item: Any, stations: Mapping[str, Station], begin: Callable[[str], None] = lambda station: None
) -> tuple[Any, dict[str, float]]:
    """Passes one chunk, or what earlier stations made of it, through the stations; also returns the seconds of each."""
    seconds = {}
    for name, station in stations.items():
        begin(name)
        started = time.perf_counter()
        try:
            item = station(item)
        except Exception as error:
            raise StationError(index, name, _in_words(error)) from error
        seconds[name] = time.perf_counter() - started
    return item, seconds


@contextmanager
def threads_held_at(threads: int) -> Iterator[None]:
    """Holds the numerical libraries at so many threads: a sum that is split otherwise may round otherwise."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    before_torch, before_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before_torch)
        cv2.setNumThreads(before_cv2)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
