"""The command line: what a user types, and what stands there then."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import datasets
import pytest
import ray
import webdataset
import yaml

from pipeline.cli import _key
from pipeline.rundir import RunDir
from stages.ledger import read_ledger
from tests.pipeline.conftest import facemint, made, started


@pytest.fixture(scope="module")
def finished(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The smoke experiment, every step of it, as a user starts it. Not to be written to."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "smoke")
    result = facemint("run", *words, f"run={run.root}")
    assert result.exit_code == 0, result.output
    return run


def test_a_whole_run_leaves_the_files_that_the_design_lists(finished: RunDir) -> None:
    listed = {path.name for path in finished.root.iterdir()}
    assert listed >= {
        ".hydra", "identities.parquet", "plan.parquet", "shards", "ledger", "progress.jsonl", "control", "protocols",
        "model", "scores.json", "report.html", "DATASET_CARD.md",
    }  # fmt: skip
    assert not list(finished.root.rglob("*.part"))


def test_recogniser_control_and_witness_are_scored(finished: RunDir) -> None:
    scores = json.loads(finished.scores.read_text())
    kept = sum(read_ledger(finished.ledger)["kept"].to_pylist())
    protocols = ["cross_age", "cross_pose", "frontal_profile", "low_quality", "wild"]
    assert sorted(scores["recogniser"]["protocols"]) == sorted(scores["control"]["protocols"]) == protocols
    assert scores["recogniser"]["images"] == scores["control"]["images"] == kept
    assert scores["recogniser"]["recipe_sha256"] == scores["control"]["recipe_sha256"]
    assert scores["witness"]["space"] == "bundled-b-2"
    assert scores["witness"]["images"] == kept


def test_the_control_shows_other_people(finished: RunDir) -> None:
    ours, theirs = (read_ledger(run.ledger)["seed"].to_pylist() for run in (finished, finished.control))
    assert not set(ours) & set(theirs)


def test_the_same_words_again_change_nothing(finished: RunDir, words: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*.*") if path.suffix in (".tar", ".onnx")}
    result = facemint("run", *words, f"run={finished.root}")
    assert result.exit_code == 0, result.output
    assert "all 3 chunks are there" in result.stdout
    assert result.stdout.count("up to date") == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_step_alone_takes_the_words_of_the_run_and_is_done_again(finished: RunDir) -> None:
    scores = finished.scores.read_text()
    finished.scores.unlink()
    result = facemint("run", "steps=[verify,report]", f"run={finished.root}")
    assert result.exit_code == 0, result.output
    assert f"run {finished.root} goes on with the words that it was begun with: experiment=smoke" in result.stdout
    assert "up to date" not in result.stdout
    assert finished.scores.read_text() == scores
    assert "steps" not in "".join(yaml.safe_load(finished.overrides.read_text()))


def test_compare_puts_runs_side_by_side(finished: RunDir) -> None:
    result = facemint("compare", str(finished.root), "--markdown")
    assert result.exit_code == 0, result.output
    assert "| run | photographs | people | cross_age |" in result.stdout


def test_webdataset_reads_the_shards(finished: RunDir) -> None:
    tars = [str(path) for path in sorted(finished.shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    ledger = read_ledger(finished.ledger)
    assert [sample["__key__"] for sample in samples] == ledger.filter(ledger["kept"])["key"].to_pylist()
    assert all(sample["jpg"].shape == (112, 112, 3) for sample in samples)
    assert all(sample["cls"] == sample["json"]["identity_id"] for sample in samples)


def test_datasets_reads_the_shards(finished: RunDir, tmp_path: Path) -> None:
    tars = [str(path) for path in sorted(finished.shards.glob("*.tar"))]
    rows = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path))
    assert rows.num_rows == sum(read_ledger(finished.ledger)["kept"].to_pylist())
    assert rows[0]["jpg"].size == (112, 112)
    assert rows[0]["cls"] == rows[0]["json"]["identity_id"]


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_the_shards(finished: RunDir) -> None:
    rows = ray.data.read_webdataset(str(finished.shards)).take_all()
    ledger = read_ledger(finished.ledger)
    assert sorted(row["__key__"] for row in rows) == ledger.filter(ledger["kept"])["key"].to_pylist()


def test_a_sweep_names_its_runs_by_content(words: list[str], tmp_path: Path) -> None:
    rest = [word for word in words if not word.startswith("people=")]
    result = facemint(
        "run", "-m", "experiment=smoke", *rest[1:], "people=3,4", "steps=[sample,plan]", f"run={tmp_path}/sweep"
    )
    assert result.exit_code == 0, result.output
    names = [str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("plan.parquet")]  # words with paths nest
    assert [sum(f"people={n}" in name for name in names) for n in (3, 4)] == [1, 1]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("peeple=9", "facemint: Could not override 'peeple'. To append to your config use +peeple=9"),
        (
            "generator=rendred",
            "facemint: In 'config': Could not find 'generator/rendred' Available options in 'generator': bundled",
        ),
        ("people=[1", "facemint: "),
    ],
)
def test_a_mistyped_word_is_one_line(word: str, told: str, tmp_path: Path) -> None:
    result = facemint("run", "experiment=smoke", f"run={tmp_path}/run", word)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(told)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = facemint("run", "--debug", "experiment=smoke", f"run={tmp_path}/run", "peeple=9")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_a_step_before_its_time_names_the_one_that_is_missing(words: list[str], tmp_path: Path) -> None:
    result = facemint("run", *words, f"run={tmp_path}/run", "steps=[make]")
    assert result.exit_code == 1
    missing = f"expected {tmp_path}/run/plan.parquet, which the step plan writes"
    assert result.stderr == f"facemint: {missing}; ask for it first: steps=[plan,...]\n"


def test_help_names_the_verbs() -> None:
    assert all(verb in facemint("--help").stdout for verb in ("run", "check", "compare", "weights"))
    assert "Words are Hydra's" in facemint("run", "--help").stdout


def test_the_key_of_an_override() -> None:
    assert [_key(word) for word in ("a=1", "+a.b=c=d", "++a=1", "~a")] == ["a", "a.b", "a", "a"]


HALTING = ("generator._target_=tests.pipeline.toys.Halts", "steps=[sample,plan,make]", "chunk_people=1")


@pytest.fixture(scope="module")
def never_stopped(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What stands there after a run that nobody stopped. Not to be written to."""
    run = RunDir(tmp_path_factory.mktemp("whole") / "run")
    result = facemint("run", *words, *HALTING, f"run={run.root}")
    assert result.exit_code == 0, result.output
    assert made(run).keys() >= {"ledger/000005.parquet", "shards/000005.tar"}
    return run


@pytest.mark.parametrize(
    ("runner", "blow"), [("ray", signal.SIGKILL), ("ray", signal.SIGINT), ("local", signal.SIGINT)]
)
def test_a_driver_that_is_stopped_goes_on_to_the_same_bytes(
    runner: str, blow: signal.Signals, words: list[str], never_stopped: RunDir, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    driver = started("run", *words, *HALTING, f"runner={runner}", f"run={run.root}", HALTS_IN=str(run.root))
    while len(list(run.ledger.glob("*.parquet"))) < 3:
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.1)
    os.kill(driver.pid, blow)
    told, _ = driver.communicate(timeout=60)
    assert not (run.ledger / "000003.parquet").exists()  # it was stopped in the middle
    if blow == signal.SIGINT:
        assert driver.returncode == 130
        assert told.splitlines()[-1] == f"interrupted; facemint run run={run.root} goes on from here"
    begun = facemint("run", f"run={run.root}", "runner=local", "steps=[sample,plan,make]")
    assert begun.exit_code == 0, begun.output
    assert made(run) == made(never_stopped)
