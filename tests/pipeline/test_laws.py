"""The laws of the belt, held on a small dataset that is made for real."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tarfile
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.rundir import RunDir
from pipeline.runners.local import Local
from pipeline.runners.ray import Pool, Ray
from pipeline.steps.files import metadata
from stages.embed.bundled import Bundled
from stages.generate.rendered import Rendered
from stages.ledger import counts_by_reason, read_ledger, read_part_metadata
from stages.sample.authentic import Authentic
from stages.sample.world import WorldPeople
from tests.pipeline.conftest import PEOPLE, PHOTOGRAPHS, made, make_whole, order_for
from tests.pipeline.toys import KilledOnce, planner

STATIONS = ["generate", "embed", "judge", "pack", "enrol"]


def pictures(run: RunDir) -> dict[str, bytes]:
    """Every member of every shard."""
    members = {}
    for path in sorted(run.shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    return members


def copy(run: RunDir, to: Path) -> RunDir:
    return RunDir(shutil.copytree(run.root, to))


def test_law_1_the_ledger_has_every_row_of_the_plan_in_order(reference: RunDir) -> None:
    ledger, plan = read_ledger(reference.ledger), pq.read_table(reference.plan)
    assert ledger["key"].to_pylist() == plan["key"].to_pylist()
    assert len(ledger) == PEOPLE * PHOTOGRAPHS


def test_law_1_only_kept_pictures_are_in_the_shards(reference: RunDir) -> None:
    ledger = read_ledger(reference.ledger)
    kept = {key for key, is_kept in zip(ledger["key"].to_pylist(), ledger["kept"].to_pylist(), strict=True) if is_kept}
    assert {name.split(".")[0] for name in pictures(reference)} == kept
    assert len(counts_by_reason(ledger)) > 1  # the case is not empty: some were turned away


def test_law_2_a_picture_does_not_depend_on_its_chunk(reference: RunDir, tmp_path: Path, weights: Path) -> None:
    other = RunDir(tmp_path)
    make_whole(other, order_for(other, weights, chunk_people=3), Local())
    assert pictures(other) == pictures(reference)


def test_law_3_a_chunk_holds_whole_people(reference: RunDir) -> None:
    plan = pq.read_table(reference.plan).to_pylist()
    chunks_of = {
        row["identity_id"]: {r["chunk"] for r in plan if r["identity_id"] == row["identity_id"]} for row in plan
    }
    assert all(len(chunks) == 1 for chunks in chunks_of.values())


def test_law_4_a_ledger_part_vouches_for_its_shard(reference: RunDir) -> None:
    for part in sorted(reference.ledger.glob("*.parquet")):
        about = read_part_metadata(part)
        assert about["tar_sha256"] == hashlib.sha256((reference.shards / about["shard"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("lost", ["ledger/000001.parquet", "shards/000001.tar"])
def test_law_4_a_chunk_whose_part_or_shard_is_gone_is_made_again_alone(
    lost: str, reference: RunDir, tmp_path: Path, weights: Path
) -> None:
    run = copy(reference, tmp_path / "run")
    (run.root / lost).unlink()
    untouched = {path: path.stat().st_mtime_ns for path in run.shards.glob("*.tar") if path.name != "000001.tar"}
    make_whole(run, order_for(run, weights), Local())
    assert made(run) == made(reference)
    assert untouched == {path: path.stat().st_mtime_ns for path in untouched}
    assert [json.loads(line)["chunk"] for line in run.progress.read_text().splitlines()] == [0, 1, 2, 1]


def test_leftovers_of_a_killed_run_are_swept_away(reference: RunDir, tmp_path: Path, weights: Path) -> None:
    run = copy(reference, tmp_path / "run")
    (run.shards / "000002.tar.part").write_bytes(b"half a tar")
    (run.ledger / "000002.parquet.part").write_bytes(b"half a part")
    with run.progress.open("a") as file:
        file.write('{"chunk": 2, "ro')  # the driver died in the middle of the line
    (run.ledger / "000002.parquet").unlink()
    make_whole(run, order_for(run, weights), Local())
    assert made(run) == made(reference)
    assert json.loads(run.progress.read_text().splitlines()[-1])["chunk"] == 2


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("actors", [1, 2, 3])
def test_law_6_any_number_of_ray_workers_gives_the_bytes_of_the_local_runner(
    actors: int, reference: RunDir, tmp_path: Path, weights: Path
) -> None:
    run = RunDir(tmp_path / "run")
    if actors != 2:  # two also enrol; starting workers is most of what this test costs
        shutil.copytree(reference.enrolled, run.enrolled)
    make_whole(run, order_for(run, weights), Ray({"belt": Pool(STATIONS, actors=actors)}))
    assert made(run) == made(reference)


@pytest.mark.usefixtures("ray_session")
def test_law_6_a_split_belt_gives_the_same_bytes_though_a_worker_is_killed(
    reference: RunDir, tmp_path: Path, weights: Path
) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(reference.enrolled, run.enrolled)
    order = order_for(run, weights)
    deadly = dataclasses.replace(order, generator=partial(KilledOnce, 1, str(tmp_path / "killed")))
    runner = Ray({"makers": Pool(["generate"]), "judges": Pool(["embed", "judge", "pack"])})
    steps.sample(run, order, runner)
    steps.plan(run, order)
    steps.make(run, deadly, runner)
    assert (tmp_path / "killed").exists()
    assert made(run) == made(reference)
    attempts = {line["chunk"]: line["attempt"] for line in map(json.loads, run.progress.read_text().splitlines())}
    assert attempts == {0: 1, 1: 2, 2: 1}


def test_enrolment_goes_on_where_it_stopped(reference: RunDir, tmp_path: Path, weights: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(reference.enrolled, run.enrolled)
    (run.enrolled / "000000.parquet").unlink()
    before = (run.enrolled / "000001.parquet").stat().st_mtime_ns
    steps.sample(run, order_for(run, weights), Local())
    assert run.identities.read_bytes() == reference.identities.read_bytes()
    assert (run.enrolled / "000001.parquet").stat().st_mtime_ns == before


def test_what_people_are_is_written_with_them_and_said_at_once_and_again(
    reference: RunDir, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metadata(reference.identities)["source"] == WorldPeople.source
    run = RunDir(tmp_path)
    eyes = Bundled("bundled-a-2", weights=str(weights))
    sampler = partial(Authentic, WorldPeople("world-1"), Rendered("world-1"), planner(1), eyes, "bundled-a-2")
    order = dataclasses.replace(order_for(run, weights), sampler=sampler, portraits=None)
    for beginning in ("sample: authentic: ", "sample: people are there, authentic: "):
        steps.sample(run, order, Local())
        assert beginning in capsys.readouterr().out
    assert metadata(run.identities)["source"] == Authentic.source


def test_too_few_people_unlike_each_other_is_said_with_the_figures(tmp_path: Path, weights: Path) -> None:
    run = RunDir(tmp_path)
    order = order_for(run, weights)
    strict = dataclasses.replace(order, portraits=dataclasses.replace(order.portraits, max_cosine=-0.9))
    with pytest.raises(
        ValueError, match=r"expected 6 people no closer than enrol.max_cosine=-0.9, got 1 from 9 candid"
    ):
        steps.sample(run, strict, Local())
