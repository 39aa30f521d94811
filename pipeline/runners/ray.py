"""The Ray runner: long-lived actors, bounded work in flight, and chunks that outlive their worker.

Pools say which stations share an actor. All pools are claimed as one placement group, all or nothing, so that runs
which share a cluster queue for it instead of each holding half of what it needs. A chunk whose worker died is carried
again from the start, which is safe because a picture depends on its row alone and a shard is written atomically
(laws 2 and 4).
"""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.runners import Builder, Done, GaveUpError, StallError, StationError, build, carry, threads_held_at
from stages.records import Chunk

log = logging.getLogger(__name__)

WEATHER = (RayActorError, WorkerCrashedError, ObjectLostError, OutOfMemoryError)  # a worker is gone; nobody's mistake
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pool:
    """Actors that hold the same stations.

    Args:
        stations: Names of the stations that share an actor. Those that a run does not use are left out.
        actors: How many actors, at least 1.
        num_cpus: CPU cores that each holds, which is also the number of its threads.
        num_gpus: GPUs that each holds; a fraction shares one.
    Raises:
        ValueError: If a number is out of its range.
    """

    stations: list[str]
    actors: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 1 or self.num_cpus < 0 or self.num_gpus < 0:
            raise ValueError(
                f"expected actors >= 1, num_cpus >= 0 and num_gpus >= 0, "
                f"got {self.actors}, {self.num_cpus} and {self.num_gpus}"
            )

    @property
    def threads(self) -> int:
        return max(1, int(self.num_cpus))


class Ray:
    """Carries chunks on Ray actors.

    Args:
        pools: The actors, by pool name. Each station of a run is in exactly one; a pool's stations are neighbours.
        address: A running cluster ("auto", "host:6379", "ray://host:10001"), or None: a Ray on this machine alone.
        in_flight: Chunks that an actor has at most, the one in hand included; 2 keep it busy.
        max_attempts: Workers that may die under one chunk, or at one seat while they start, before the run gives up.
        stall_timeout_s: Seconds in which something must finish, or the run stops and says what each actor was doing.
        claim_timeout_s: Seconds to wait for the pools to be free in a shared cluster.
        object_store_mb: Shared memory of a Ray that is started here, MiB.
    Raises:
        ValueError: If a number is out of its range or the address is that of a dashboard.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        address: str | None = None,
        in_flight: int = 2,
        max_attempts: int = 3,
        stall_timeout_s: float = 900.0,
        claim_timeout_s: float = 3600.0,
        object_store_mb: int = 512,
    ) -> None:
        if not pools:
            raise ValueError("expected at least one pool, got none")
        if address is not None and address.startswith("http"):  # Ray would start a second cluster, silently
            raise ValueError(f"expected a cluster's address such as host:6379 or ray://host:10001, got {address}")
        if in_flight < 1 or max_attempts < 1 or stall_timeout_s <= 0 or claim_timeout_s <= 0:
            raise ValueError(
                "expected in_flight >= 1, max_attempts >= 1, stall_timeout_s > 0 and claim_timeout_s > 0, "
                f"got {in_flight}, {max_attempts}, {stall_timeout_s} and {claim_timeout_s}"
            )
        self.pools, self.address, self.in_flight, self.max_attempts = dict(pools), address, in_flight, max_attempts
        self.stall_timeout_s, self.claim_timeout_s, self.object_store_mb = (
            stall_timeout_s,
            claim_timeout_s,
            object_store_mb,
        )

    def check(self, stations: Sequence[str]) -> None:
        """ValueError unless every station is in exactly one pool, and a pool's stations are neighbours."""
        _homes(self.pools, stations)

    def run(self, chunks: Iterable[Chunk], stations: Mapping[str, Builder]) -> Iterator[Done]:
        """Yields the chunks as they finish.

        Raises:
            ValueError: If a station is in no pool or in two, or the machine has less than the pools hold.
            StationError: If a station could not be built, or raised on a chunk.
            GaveUpError: If workers died `max_attempts` times under one chunk, or while they started.
            StallError: If nothing finished for `stall_timeout_s`.
            TimeoutError: If the pools were not free for `claim_timeout_s`.
        """
        legs = _legs(self.pools, stations)
        self._start(legs)
        group = self._claim(legs)
        crew = _Crew(self, legs, group)
        try:
            yield from crew.carry_all(iter(chunks))
        finally:
            crew.dismiss()
            remove_placement_group(group)

    def _start(self, legs: list[_Leg]) -> None:
        if ray.is_initialized():  # a sweep's controller, or an earlier step of this run
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of its own future otherwise
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address is not None:
            ray.init(address=self.address, **quiet)
            return
        cpus = sum(leg.pool.actors * leg.pool.num_cpus for leg in legs)
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
            object_store_memory=self.object_store_mb * 2**20,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )

    def _claim(self, legs: list[_Leg]) -> PlacementGroup:
        bundles = [
            {name: amount for name, amount in (("CPU", leg.pool.num_cpus), ("GPU", leg.pool.num_gpus)) if amount}
            for leg in legs
            for _ in range(leg.pool.actors)
        ]
        needed = {name: sum(bundle.get(name, 0) for bundle in bundles) for name in ("CPU", "GPU")}
        present = ray.cluster_resources()
        if self.address is None and any(present.get(name, 0) < amount for name, amount in needed.items()):
            have = {name: present.get(name, 0) for name in needed}
            raise ValueError(f"expected a machine with what runner.pools holds, {needed}; this one has {have}")
        group = placement_group([bundle or {"CPU": 0.001} for bundle in bundles], strategy="PACK")
        started = time.monotonic()
        while not group.wait(min(30, self.claim_timeout_s)):
            waited_s = time.monotonic() - started
            if waited_s >= self.claim_timeout_s:
                remove_placement_group(group)
                raise TimeoutError(
                    f"{needed} were not free for {waited_s:.0f} s; free now: {ray.available_resources()}"
                )
            log.info("waiting for %s in the cluster, %.0f s so far", needed, waited_s)
        return group


@dataclass(frozen=True)
class _Leg:
    """A pool's part of the belt: the stations of this run that it holds."""

    name: str
    pool: Pool
    builders: dict[str, Builder]


def _homes(pools: Mapping[str, Pool], stations: Sequence[str]) -> dict[str, str]:
    """The pool of every station."""
    homes = {}
    for station in stations:
        holders = [name for name, pool in pools.items() if station in pool.stations]
        if len(holders) != 1:
            raise ValueError(
                f"expected station `{station}` in exactly one of runner.pools, found it in {holders or 'none'}"
            )
        homes[station] = holders[0]
    together = sorted(stations, key=lambda station: list(homes.values()).index(homes[station]))
    if together != list(stations):
        raise ValueError(f"expected the stations of a pool to be neighbours on the belt {list(stations)}, got {homes}")
    return homes


def _legs(pools: Mapping[str, Pool], stations: Mapping[str, Builder]) -> list[_Leg]:
    """The pools of this run, in belt order."""
    homes = _homes(pools, list(stations))
    return [
        _Leg(name, pools[name], {station: builder for station, builder in stations.items() if homes[station] == name})
        for name in dict.fromkeys(homes.values())
    ]


class _Worker:
    """The actor: builds its stations once, then carries what it is given. `status` answers from a thread of its own.

    Which chunk it begins it notes in the cluster's store, where the note outlives it.
    """

    def __init__(self, seat: str, note: str, threads: int) -> None:
        self.name = f"{seat}@{os.uname().nodename}:{os.getpid()}"
        self.note, self.threads = note, threads
        self.doing, self.since = "has not been asked for anything", time.monotonic()

    def build(self, builders: dict[str, Builder]) -> str:
        with threads_held_at(self.threads):
            self.stations = build(builders, lambda station: self._begin(f"is building `{station}`"))
        self._begin("waits for a chunk")
        return self.name

    def carry(self, index: int, item: Any) -> tuple[Any, tuple[str, dict[str, float]]]:
        _internal_kv_put(self.note, str(index), overwrite=True)
        with threads_held_at(self.threads):
            result, seconds = carry(index, item, self.stations, lambda s: self._begin(f"has chunk {index} in `{s}`"))
        self._begin("waits for a chunk")
        return result, (self.name, seconds)

    def status(self) -> str:
        return f"{self.name} {self.doing} for {time.monotonic() - self.since:.0f} s"

    def _begin(self, doing: str) -> None:
        self.doing, self.since = doing, time.monotonic()


@dataclass(eq=False)
class _Trip:
    """A chunk on its way down the belt."""

    chunk: Chunk
    item: Any = None  # what the next leg gets: the chunk, or a reference to what the leg before made of it
    leg: int = 0
    attempt: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    record: Any = None  # reference to (worker, seconds) of the leg it is on
    result: Any = None  # reference to what that leg makes

    def restart(self) -> None:
        self.item, self.leg, self.seconds = self.chunk, 0, {}


@dataclass(eq=False)
class _Seat:
    """A place in the placement group and the actor that sits there now."""

    name: str
    leg: int
    bundle: int
    note: str  # key under which its actor notes the chunk that it begins
    actor: Any = None
    building: Any = None  # reference to the end of the build, while it lasts
    deaths: int = 0  # in a row, while building
    trips: list[_Trip] = field(default_factory=list)  # in the order in which the actor takes them


class _Crew:
    """The actors of one run, and the driver's loop over them."""

    def __init__(self, runner: Ray, legs: list[_Leg], group: PlacementGroup) -> None:
        self.runner, self.legs, self.group = runner, legs, group
        self.waiting: list[deque[_Trip]] = [deque() for _ in legs]
        self.seats: list[_Seat] = []
        self.finished: deque[Done] = deque()
        for number, leg in enumerate(legs):
            for k in range(leg.pool.actors):
                name = f"{leg.name}-{k}"
                self.seats.append(_Seat(name, number, len(self.seats), f"facemint/{group.id.hex()}/{name}"))
        for seat in self.seats:
            self._fill(seat)

    def carry_all(self, chunks: Iterator[Chunk]) -> Iterator[Done]:
        moved = time.monotonic()
        while True:
            self._admit(chunks)
            self._hand_out()
            refs = [trip.record for seat in self.seats for trip in seat.trips]
            if not refs and not any(self.waiting):
                return
            refs += [seat.building for seat in self.seats if seat.building is not None]
            ready, _ = ray.wait(refs, num_returns=1, timeout=min(5.0, self.runner.stall_timeout_s), fetch_local=False)
            if ready:
                self._settle(ready[0])
                while self.finished:
                    yield self.finished.popleft()
                moved = time.monotonic()  # the time that the caller took is not held against the actors
            elif time.monotonic() - moved >= self.runner.stall_timeout_s:
                raise StallError(
                    f"nothing finished for {self.runner.stall_timeout_s:g} s: {'; '.join(self._statuses())}"
                )

    def dismiss(self) -> None:
        for seat in self.seats:
            ray.kill(seat.actor)
            _internal_kv_del(seat.note)

    def _admit(self, chunks: Iterator[Chunk]) -> None:
        """Takes in new chunks until every actor could have its fill."""
        aboard = sum(map(len, self.waiting)) + sum(len(seat.trips) for seat in self.seats)
        for _ in range(len(self.seats) * self.runner.in_flight - aboard):
            chunk = next(chunks, None)
            if chunk is None:
                return
            self.waiting[0].append(_Trip(chunk, item=chunk))

    def _hand_out(self) -> None:
        for number, queue in enumerate(self.waiting):
            while queue:
                free = [
                    s for s in self.seats if s.leg == number and not s.building and len(s.trips) < self.runner.in_flight
                ]
                if not free:
                    break
                seat, trip = min(free, key=lambda s: len(s.trips)), queue.popleft()
                trip.result, trip.record = seat.actor.carry.options(num_returns=2).remote(trip.chunk.index, trip.item)
                seat.trips.append(trip)

    def _settle(self, ref: Any) -> None:
        """Takes note of a build or a trip that ended, well or not."""
        seat = next(s for s in self.seats if ref == s.building or any(ref == t.record for t in s.trips))
        if ref == seat.building:
            self._settle_build(seat)
            return
        trip = next(t for t in seat.trips if t.record == ref)
        death = self._arrive(seat, trip)
        if death is not None:
            self._mourn(seat, death)

    def _arrive(self, seat: _Seat, trip: _Trip) -> Exception | None:
        """Sends a trip that came through on to its next leg, or out; returns what killed its worker otherwise."""
        try:
            worker, seconds = ray.get(trip.record)
            last = trip.leg + 1 == len(self.legs)
            trip.item = ray.get(trip.result) if last else trip.result
        except StationError as failure:
            raise _original(failure) from None
        except WEATHER as death:
            return death
        seat.trips.remove(trip)
        trip.seconds.update(seconds)
        trip.leg, trip.record, trip.result = trip.leg + 1, None, None
        if last:
            self.finished.append(Done(trip.chunk.index, trip.item, trip.seconds, worker, trip.attempt))
        else:
            self.waiting[trip.leg].append(trip)
        return None

    def _settle_build(self, seat: _Seat) -> None:
        try:
            ray.get(seat.building)
        except StationError as failure:
            raise _original(failure) from None
        except WEATHER as death:
            seat.deaths += 1
            if seat.deaths >= self.runner.max_attempts:
                raise GaveUpError(
                    f"worker {seat.name} died {seat.deaths} times while it built {list(self.legs[seat.leg].builders)}; "
                    f"the last time: {_one_line(death)}"
                ) from death
            self._fill(seat)
            return
        seat.building, seat.deaths = None, 0

    def _mourn(self, seat: _Seat, death: Exception) -> None:
        """Replaces a dead worker and sends its chunks on their way again.

        Ray reports the death on any of them first. The one that the worker began last was in hand, and it alone is
        counted against: not its neighbours in the queue, nor one that was done, but whose word was lost with the
        worker. The oldest, where it had begun none of them.
        """
        ray.kill(seat.actor)  # a worker out of reach is dead to us, and must not go on writing
        lost = [trip for trip in list(seat.trips) if self._arrive(seat, trip) is not None]
        begun = int(_internal_kv_get(seat.note) or -1)
        victim = next((trip for trip in lost if trip.chunk.index == begun), lost[0])
        if victim.attempt >= self.runner.max_attempts:
            raise GaveUpError(
                f"chunk {victim.chunk.index} was given up: {victim.attempt} workers died with it in hand; "
                f"the last time: {_one_line(death)}"
            ) from death
        log.warning("worker %s died with chunk %d in hand; it is carried again", seat.name, victim.chunk.index)
        victim.attempt += 1
        for trip in reversed(lost):
            trip.restart()
            self.waiting[0].appendleft(trip)
        seat.trips.clear()
        self._fill(seat)

    def _fill(self, seat: _Seat) -> None:
        """Puts a new actor on the seat and has it build its stations."""
        leg = self.legs[seat.leg]
        seat.actor = (
            _actor_class()
            .options(
                num_cpus=leg.pool.num_cpus,
                num_gpus=leg.pool.num_gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self.group, placement_group_bundle_index=seat.bundle
                ),
                runtime_env={"env_vars": environment(leg.pool.threads)},
            )
            .remote(seat.name, seat.note, leg.pool.threads)
        )
        seat.building = seat.actor.build.remote(leg.builders)

    def _statuses(self) -> list[str]:
        asked = {seat.name: seat.actor.status.options(concurrency_group="status").remote() for seat in self.seats}
        answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=5)
        told = []
        for seat in self.seats:
            given = ", ".join(str(trip.chunk.index) for trip in seat.trips) or "none"
            silent = f"{seat.name} does not answer (chunks given to it: {given})"
            told.append(_answer(asked[seat.name]) if asked[seat.name] in answered else silent)
        return told


@functools.cache
def _actor_class() -> Any:
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"status": 1})(_Worker)  # type: ignore[call-overload]


def _answer(ref: Any) -> str:
    try:
        return ray.get(ref)
    except WEATHER as death:
        return f"a worker is dead: {_one_line(death)}"


def environment(threads: int) -> dict[str, str]:
    """Workers find our packages as this process does, a checkout included, and keep to their threads."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    one = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **one}


def _original(failure: StationError) -> StationError:
    cause = getattr(failure, "cause", failure)
    return StationError(cause.chunk, cause.station, cause.problem)


def _one_line(error: Exception, length: int = 300) -> str:
    return " ".join(str(error).split())[:length]
