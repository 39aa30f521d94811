"""Every runner keeps the same promises: the belt's bytes, in whatever order, under whatever weather."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.runners import Builder, GaveUpError, Runner, StallError, StationError
from pipeline.runners.local import Local
from pipeline.runners.ray import Pool, Ray
from tests.pipeline.toys import (
    DiesAlways,
    DiesOnce,
    DiesWhileBuilt,
    Noise,
    Refuses,
    Sleeps,
    Total,
    Unbuildable,
    chunk,
)

BELT = ["generate", "measure"]
CHUNKS = [chunk(index) for index in range(7)]


pytestmark = pytest.mark.usefixtures("ray_session")


def fused(actors: int, **kwargs: float) -> Ray:
    return Ray({"belt": Pool(BELT, actors=actors)}, **kwargs)


def split() -> Ray:
    return Ray({"makers": Pool(["generate"], actors=2), "measurers": Pool(["measure"])})


def totals(runner: Runner, generator: Builder = Noise) -> dict[int, list[int]]:
    return {done.index: done.result for done in runner.run(iter(CHUNKS), {"generate": generator, "measure": Total})}


@pytest.fixture(scope="module")
def reference() -> dict[int, list[int]]:
    return totals(Local())


@pytest.mark.parametrize("runner", [fused(1), fused(3), split()], ids=["one actor", "three actors", "a split belt"])
def test_ray_gives_what_the_local_runner_gives(runner: Ray, reference: dict[int, list[int]]) -> None:
    assert totals(runner) == reference


def test_the_local_runner_keeps_the_order_and_times_every_station() -> None:
    done = list(Local().run(CHUNKS, {"generate": Noise, "measure": Total}))
    assert [d.index for d in done] == list(range(7))
    assert all(list(d.seconds) == BELT and d.attempt == 1 for d in done)


def test_a_killed_worker_costs_a_second_attempt_and_nothing_else(
    tmp_path: Path, reference: dict[int, list[int]]
) -> None:
    stations = {"generate": partial(DiesOnce, on=3, memory=str(tmp_path / "died")), "measure": Total}
    done = {d.index: d for d in fused(2).run(CHUNKS, stations)}
    assert {index: d.result for index, d in done.items()} == reference
    assert done[3].attempt == 2
    assert all(d.attempt == 1 for index, d in done.items() if index != 3)  # its neighbour in the queue is not to blame


def test_giving_up_names_the_chunk_and_the_attempts() -> None:
    with pytest.raises(
        GaveUpError, match=r"chunk 4 was given up: 2 workers died with it in hand; the last time: .*died"
    ):
        totals(fused(1, max_attempts=2), partial(DiesAlways, on=4))


def test_a_worker_that_dies_while_it_is_built_is_not_replaced_for_ever() -> None:
    with pytest.raises(GaveUpError, match=r"worker belt-0 died 2 times while it built \['generate', 'measure'\]"):
        totals(fused(1, max_attempts=2), partial(DiesWhileBuilt))


def test_a_stall_ends_with_what_each_actor_was_doing() -> None:
    runner = fused(1)
    done = runner.run(CHUNKS, {"generate": partial(Sleeps, on=1, seconds=600), "measure": Total})
    next(done)
    runner.stall_timeout_s = 1.0  # now that the worker is up, however long that took
    with pytest.raises(StallError, match=r"nothing finished for 1 s: .*belt-0@.* has chunk 1 in `generate` for \d+ s"):
        next(done)


@pytest.mark.parametrize("runner", [Local(), fused(2)], ids=["local", "ray"])
def test_a_station_that_raises_stops_the_run_at_once_with_its_own_words(runner: Runner) -> None:
    words = "station `generate` failed on chunk 5: ValueError: expected any chunk but 5"
    with pytest.raises(StationError, match=words):
        totals(runner, partial(Refuses, on=5))


@pytest.mark.parametrize("runner", [Local(), fused(1)], ids=["local", "ray"])
def test_a_station_that_cannot_be_built_stops_the_run_with_its_own_words(runner: Runner) -> None:
    with pytest.raises(
        StationError, match="station `generate` could not be built: ValueError: expected weights, got none"
    ):
        totals(runner, partial(Unbuildable))


def test_no_more_chunks_are_taken_in_than_the_actors_can_hold() -> None:
    taken: list[int] = []

    def stream() -> Iterator:
        for each in CHUNKS:
            taken.append(each.index)
            yield each

    done = fused(1).run(stream(), {"generate": Noise, "measure": Total})
    next(done)
    assert len(taken) <= 3  # two in flight, and the one that is done
    done.close()


def test_a_run_that_is_left_gives_back_what_it_held() -> None:
    everything = Ray({"belt": Pool(BELT, num_cpus=3.0)})
    done = everything.run(CHUNKS, {"generate": Noise, "measure": Total})
    next(done)
    done.close()
    assert len(totals(everything)) == 7  # would wait for ever if the first run still held its pools


def test_a_station_without_a_pool_or_with_two_is_refused() -> None:
    with pytest.raises(ValueError, match=r"station `measure` in exactly one of runner.pools, found it in none"):
        totals(Ray({"belt": Pool(["generate"])}))
    with pytest.raises(ValueError, match=r"`generate` in exactly one of runner.pools, found it in \['a', 'b'\]"):
        totals(Ray({"a": Pool(BELT), "b": Pool(["generate"])}))


def test_a_pool_whose_stations_are_not_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neighbours on the belt \['a', 'b', 'c'\]"):
        Ray({"ends": Pool(["a", "c"]), "middle": Pool(["b"])}).check(["a", "b", "c"])


def test_the_address_of_a_dashboard_is_refused() -> None:
    with pytest.raises(ValueError, match=r"http://127.0.0.1:8265"):
        Ray({"belt": Pool(BELT)}, address="http://127.0.0.1:8265")
