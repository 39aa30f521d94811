"""A small order, its words on the command line, and what the reference runner makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline import steps
from pipeline.cli import app
from pipeline.rundir import RunDir
from pipeline.runners.local import Local
from stages.embed.bundled import Bundled
from stages.generate.rendered import Rendered
from stages.sample.world import WorldPeople
from tests.pipeline.tiny import write_weights
from tests.pipeline.toys import judge, planner

PEOPLE, PHOTOGRAPHS = 6, 3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def words(weights: Path) -> list[str]:
    """Of the smoke experiment with tiny weights, whose cosines mean nothing."""
    return [
        "experiment=smoke",
        f"people={PEOPLE}",
        f"images_per_identity={PHOTOGRAPHS}",
        f"embedder.weights={weights}",
        f"witness.weights={weights}",
        "enrol.max_cosine=1.0",
        "protocols.pairs=20",
        "judge.rules.own_identity.min_cosine=-1.0",
        "judge.rules.own_identity.max_cosine=1.0",
        "judge.rules.nearest_other.max_cosine=1.0",
    ]


def facemint(*words: str) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(app, list(words))


def started(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own that can be stopped."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )


def _hear_ctrl_c() -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def order_for(run: RunDir, weights: Path, chunk_people: int = 2) -> steps.Order:
    return steps.Order(
        made_from="a test",
        space="world-1",
        reference_space="bundled-a-2",
        seed=7,
        people=PEOPLE,
        chunk_people=chunk_people,
        jpeg_quality=95,
        sampler=partial(WorldPeople, "world-1"),
        planner=partial(planner, PHOTOGRAPHS),
        generator=partial(Rendered, "world-1"),
        embedder=partial(Bundled, "bundled-a-2", weights=str(weights)),
        judge=partial(judge, str(run.identities)),
        portraits=steps.Portraits(partial(planner, 2), min_found=1, over_plan=1.5, max_cosine=1.0),
    )


def make_whole(run: RunDir, order: steps.Order, runner: object) -> None:
    steps.sample(run, order, runner)
    steps.plan(run, order)
    steps.make(run, order, runner)


def made(run: RunDir) -> dict[str, bytes]:
    """All that is promised byte for byte: people, plan, shards and ledger."""
    files = [run.identities, run.plan, *run.shards.glob("*"), *run.ledger.glob("*")]
    return {str(path.relative_to(run.root)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> RunDir:
    """The small order, made by the local runner. Not to be written to."""
    run = RunDir(tmp_path_factory.mktemp("reference"))
    make_whole(run, order_for(run, weights), Local())
    return run
