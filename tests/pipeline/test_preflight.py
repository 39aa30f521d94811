"""What is wrong with a config is said before any work, a line for each fault, with the value and the expectation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from generation.weights import FOLDER, bundled
from pipeline.rundir import RunDir
from stages.generate.bundled import Bundled
from tests.pipeline.conftest import facemint
from tests.pipeline.tiny import write_weights

FAULTS = {
    "a missing target": (
        ["generator._target_=stages.generate.nowhere.Nothing"],
        "generator: expected a _target_ that can be imported, got stages.generate.nowhere.Nothing",
    ),
    "an argument that the part does not take": (
        ["+generator.sizepx=64"],
        "generator: expected arguments of stages.generate.rendered.Rendered (space, size_px, device, threads), "
        "got space, size_px, device, threads, sizepx: got an unexpected keyword argument 'sizepx'",
    ),
    "an argument that is missing": (["~sampler.space"], "missing a required argument: 'space'"),
    "a wrong argument deep in a part": (
        ["+judge.rules.own_identity.threshold=0.3"],
        "judge.rules.own_identity: expected",
    ),
    "an attribute that the generator does not honour": (
        ["+planner.attributes.beard={_target_: stages.plan.Fixed, value: 1.0}"],
        "low_resolution_px), got beard",
    ),
    "an attribute out of the generator's range": (
        ["planner.attributes.yaw_deg.low=-120.0"],
        "planner.attributes.yaw_deg: expected values that stages.generate.rendered.Rendered honours, -75 to 75, "
        "got -120 to 75",
    ),
    "two spaces": (
        ["sampler=sphere"],
        "sampler: expected people in the space of the generator, 'world-1', got 'bundled-a-2'",
    ),
    "two-stage people of another generator": (
        ["sampler=two_stage"],
        "sampler: expected people in the space of the sampler.generator, 'world-1', got 'bundled-a-2'",
    ),
    "two-stage people of a generator that needs to be told whom": (
        ["sampler=two_stage"],
        "sampler.generator: expected one that makes unconditional pictures (strangers), got stages.generate.rendered",
    ),
    "authentic people of another embedder": (
        ["sampler=authentic", "sampler.space=bundled-b-2"],
        "sampler.embedder: expected that of the sampler's space, 'bundled-b-2', got 'bundled-a-2'",
    ),
    "authentic people who are photographed as nobody can be": (
        ["sampler=authentic", "sampler.planner.attributes.yaw_deg.high=120"],
        "sampler.planner.attributes.yaw_deg: expected values that stages.generate.rendered.Rendered honours, -75 to 75",
    ),
    "a witness that is the judge": (
        ["witness.space=bundled-a-2"],
        "witness: expected another space than the embedder's",
    ),
    "nobody enrolled and two spaces": (["enrol=null"], "enrol: expected portraits"),
    "an unknown step": (
        ["steps=[sampel]"],
        "steps: expected some of sample, plan, make, control, train, verify, report, got sampel",
    ),
    "a number out of range": (["people=1"], "people: expected a whole number from 2 to 1000000, got 1"),
    "no recogniser": (["recognisers=0"], "recognisers: expected a whole number from 1 to 100, got 0"),
    "a word where a number belongs": (["seed=soon"], "seed: expected a whole number from 0 to 4294967295, got 'soon'"),
    "a range that a constructor knows": (["trainer.epochs=0"], "trainer: Recipe.epochs: expected at least 1, got 0"),
    "a station without a pool": (
        ["runner=ray", "runner.pools.belt.stations=[generate,embed,judge]"],
        "runner: expected station `enrol` in exactly one of runner.pools, found it in none",
    ),
    "no steps of the bundled generator": (
        ["generator=bundled", "generator.steps=0"],
        "generator: steps: expected 1 to 1000 with scheduler 'dpm', got 0",
    ),
    "a word where the bundled generator's number belongs": (
        ["generator=bundled", "generator.batch_size=many"],
        "generator: batch_size: expected a whole number, got 'many'",
    ),
    "a GPU that the workers do not hold": (
        ["generator=bundled", "generator.device=cuda", "runner=ray"],
        "runner.pools.belt.num_gpus: expected more than 0 for generator.device=cuda, got 0",
    ),
    "batches that are larger than the memory": (
        ["generator=bundled", "generator.batch_size=1000000"],
        "of free memory for 1 workers with batches of 1000000, got",
    ),
    "an attribute that the bundled generator does not honour": (
        ["generator=bundled", "+planner.attributes.beard={_target_: stages.plan.Fixed, value: 1.0}"],
        f"planner: expected attributes that stages.generate.bundled.Bundled honours ({', '.join(Bundled.controls)}), "
        "got beard",
    ),
    "an attribute out of the bundled generator's range": (
        ["generator=bundled", "planner.attributes.yaw_deg.low=-120.0"],
        "planner.attributes.yaw_deg: expected values that stages.generate.bundled.Bundled honours, -75 to 75, "
        "got -120 to 75",
    ),
    "people in a space that the bundled generator does not know": (
        ["generator=bundled"],
        "sampler: expected people in the space of the generator, 'bundled-a-2', got 'world-1'",
    ),
    "a disk that is too small": (["people=1000000", "images_per_identity=1000"], "GB free for"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a CUDA device")
@pytest.mark.parametrize(
    ("address", "here"), [([], True), (["runner.address=host:6379"], False)], ids=["this machine", "a cluster"]
)
def test_a_gpu_is_looked_for_where_the_workers_are(
    address: list[str], here: bool, words: list[str], tmp_path: Path
) -> None:
    told = facemint("run", *words, f"run={tmp_path}/run", "generator.device=cuda", "runner=ray", *address, "people=1")
    assert ("generator.device: expected cpu where torch sees no CUDA device, got cuda" in told.stderr) == here
    assert "people: expected" in told.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_refused_in_one_line_that_names_value_and_expectation(
    fault: str, words: list[str], tmp_path: Path
) -> None:
    wrong, told = FAULTS[fault]
    result = facemint("run", *words, f"run={tmp_path / 'run'}", *wrong)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if told in line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("facemint: ")
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_all_faults_are_told_at_once(words: list[str], tmp_path: Path) -> None:
    result = facemint("check", *words, f"run={tmp_path}/run", "people=1", "seed=-1", "steps=[mkae]", "+embedder.size=3")
    assert result.exit_code == 2
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()] == [
        "seed",
        "people",
        "steps",
        "embedder",
    ]


def test_weights_of_another_hash_are_refused(words: list[str], tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "weights")
    with (folder / "embedder_b.onnx").open("ab") as file:
        file.write(b"!")
    result = facemint("check", *words, f"run={tmp_path}/run", f"witness.weights={folder}")
    assert result.exit_code == 2
    assert "facemint: witness: expected embedder_b.onnx with sha256" in result.stderr


def other_training(folder: Path, *names: str) -> Path:
    """The bundled weights, of which some say that they have learnt from another embedder's vectors."""
    folder.mkdir()
    for path in FOLDER.iterdir():
        (folder / path.name).symlink_to(path)
    listing = json.loads((FOLDER / "weights.json").read_text())
    for name in names:
        listing[name]["vectors_of"] = "ab" * 32
    (folder / "weights.json").unlink()
    (folder / "weights.json").write_text(json.dumps(listing))
    return folder


@pytest.mark.parametrize(("part", "name"), [("generator", "generator"), ("sampler", "population")])
def test_one_name_of_a_space_is_no_leave_to_mix_two_trainings(part: str, name: str, tmp_path: Path) -> None:
    folder = other_training(tmp_path / "other", name)
    words = ["check", "experiment=demo", f"run={tmp_path}/run"]
    assert facemint(*words).exit_code == 0
    result = facemint(*words, f"{part}.weights={folder}")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    embedder = bundled("embedder_a").sha256[:12]
    assert line.startswith(f"facemint: {part}: expected weights that have learnt from the embedder's vectors (bundled-")
    assert embedder in line
    assert "abababababab" in line


def test_weights_of_one_s_own_are_named_once_for_all_parts(tmp_path: Path) -> None:
    folder = other_training(tmp_path / "own")
    listing = json.loads((folder / "weights.json").read_text())
    result = facemint("check", "experiment=demo", f"run={tmp_path}/run", f"weights={folder}")
    assert result.exit_code == 0, result.output
    for name in ("detector", "embedder_a", "embedder_b", "generator", "population"):
        (folder / listing[name]["file"]).unlink()
    result = facemint("check", "experiment=demo", f"run={tmp_path}/run", f"weights={folder}")
    refused = {line.split(":")[1].strip() for line in result.stderr.splitlines()}
    assert refused == {"sampler", "generator", "embedder", "witness"}


def test_a_sound_config_passes_and_leaves_no_trace(words: list[str], tmp_path: Path) -> None:
    result = facemint("check", *words, f"run={tmp_path}/run")
    assert result.exit_code == 0, result.output
    assert f"the run can begin in {tmp_path}/run" in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_place_that_is_a_file_is_refused(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = facemint("check", *words, f"run={tmp_path}/file/run")
    assert result.exit_code != 0
    assert len(result.stderr.splitlines()) == 1
    assert "Not a directory" in result.stderr


def test_a_run_directory_of_another_plan_is_refused_with_what_differs(words: list[str], tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert facemint("run", *words, f"run={run.root}", "steps=[sample,plan]").exit_code == 0
    before = run.config.read_text()
    result = facemint("run", *words, f"run={run.root}", "seed=9", "planner.attributes.yaw_deg.std=5", "runner=ray")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"facemint: run: expected the config that {run.root} was begun with, or another run=DIR, got changes: "
        "planner.attributes.yaw_deg.std was 35, now 5; seed was 0, now 9"
    ]
    assert run.config.read_text() == before
