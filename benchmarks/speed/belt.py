"""The belt as a share of the bare generator, both under Ray, and each station: `python -m benchmarks.speed.belt`.

Both are measured in turns in one run. A rate counts the chunks that finished after as many as there are
workers, so that starting actors and loading models is not part of it. Results are printed as Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from pipeline import factory, steps
from pipeline.rundir import RunDir
from pipeline.runners import Builder, Done, Runner
from stages.pack import Pack
from stages.records import Images

CONF = Path(__file__).parents[2] / "conf"
STATIONS = ("generate", "embed", "judge", "pack")


class Count:
    """Ends a belt that only generates: pixels stay where they were made, as they do on the whole belt."""

    def __call__(self, images: Images) -> dict[str, int]:
        return {"rows": len(images.pixels)}


@dataclass(frozen=True)
class Timed:
    """One run of a belt: pictures per second, and seconds per picture of each station."""

    images_per_s: float
    seconds: Mapping[str, float]


def timed(runner: Runner, plan: steps.Plan, belt: Mapping[str, Builder]) -> Timed:
    finished: list[tuple[float, Done]] = []
    for done in runner.run(map(plan.chunk, range(plan.chunks)), belt):
        finished.append((time.perf_counter(), done))
    warm = len({done.worker for _, done in finished})  # each worker's first chunk pays for imports
    rows = sum(done.result["rows"] for _, done in finished[warm:])
    rate = rows / (finished[-1][0] - finished[warm - 1][0])
    seconds = {name: sum(done.seconds[name] for _, done in finished[warm:]) / rows for name in belt}
    return Timed(rate, seconds)


def belts(order: steps.Order, run: RunDir) -> dict[str, dict[str, Any]]:
    pack = partial(Pack, str(run.shards), str(run.ledger), order.made_from, order.jpeg_quality)
    whole = {"generate": order.generator, "embed": order.embedder, "judge": order.judge, "pack": pack}
    return {"bare": {"generate": order.generator, "pack": Count}, "belt": whole}


def table(results: Mapping[str, Sequence[Timed]], settings: str) -> str:
    rates = {name: statistics.median(run.images_per_s for run in runs) for name, runs in results.items()}
    seconds = {name: statistics.median(run.seconds[name] for run in results["belt"]) for name in STATIONS}
    shares = [
        belt.images_per_s / bare.images_per_s for belt, bare in zip(results["belt"], results["bare"], strict=True)
    ]
    lines = [
        f"{settings}\n",
        "| | images/s, median | each repeat |\n|---|---|---|",
        *(
            f"| {title} | {rates[name]:.1f} | {', '.join(f'{run.images_per_s:.1f}' for run in results[name])} |"
            for name, title in (("bare", "generator alone, under Ray"), ("belt", "whole belt, under Ray"))
        ),
        f"| share | {statistics.median(shares):.1%} | {', '.join(f'{share:.1%}' for share in shares)} |\n",
        "| station of the belt | ms a picture, on one core | pictures/s, on one core |\n|---|---|---|",
        *(f"| {name} | {1e3 * seconds[name]:.2f} | {1 / seconds[name]:.0f} |" for name in STATIONS),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("words", nargs="*", help="Hydra overrides, such as runner.pools.belt.actors=4")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [f"run={folder}", f"people={asked.people}", *asked.words])
        order, runner = factory.order_of(cfg), factory.builder(cfg.runner)()
        steps.sample(run, order, runner)
        steps.plan(run, order)
        plan = steps.Plan(run.identities, run.plan)
        pictures = f"{plan.chunks} chunks of {plan.pictures(0)} pictures"
        results: dict[str, list[Timed]] = {"bare": [], "belt": []}
        for _ in range(asked.repeats):
            for name, belt in belts(order, run).items():
                results[name].append(timed(runner, plan, belt))
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(table(results, f"{date.today()}, {machine}; {pictures}, {asked.repeats} repeats in turns"))


if __name__ == "__main__":
    main()
