"""`facemint compare --over`: what stands in the configs of the runs, beside their scores; mistakes in a line."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pipeline.rundir import RunDir
from pipeline.sweep import value_of
from tests.benchmarks.small_run import build_run
from tests.pipeline.conftest import facemint


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two runs that differ in a number, a name, and what refers to them."""
    places = []
    for number, name in ((2, "sphere"), (3, "population")):
        run = RunDir(build_run(tmp_path / name, seed=number))
        run.config.write_text(
            f"seed: 7\nsampler:\n  kind: {name}\n  again: ${{sampler.kind}}\n  none: null\nguidance: {number}.5\n"
            "broken: ${nowhere}\n"
        )
        places.append(str(run.root))
    return places


def test_runs_stand_over_what_their_configs_say(runs: list[str], tmp_path: Path) -> None:
    result = facemint("compare", *runs, "--over", "guidance", "--page", f"{tmp_path}/over.svg", "--markdown")
    assert result.exit_code == 0, result.output
    assert "| run | guidance | photographs |" in result.stdout
    assert f"| {runs[1]} | 3.5 | " in result.stdout
    assert f"compare: wrote {tmp_path}/over.svg" in result.stdout
    svg = ElementTree.parse(tmp_path / "over.svg").getroot()
    assert len([group for group in svg.iter() if group.get("class") == "mark"]) == 2 * 3


def test_a_page_of_names_that_refer_to_others(runs: list[str], tmp_path: Path) -> None:
    result = facemint("compare", *runs, "--over", "sampler.again", "--page", f"{tmp_path}/over.html")
    assert result.exit_code == 0, result.output
    assert "population" in (tmp_path / "over.html").read_text()


def test_a_key_that_is_none_is_there(runs: list[str]) -> None:
    assert value_of(RunDir(Path(runs[0])), "sampler.none") is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--over", "generator.steps"],
            "over: expected generator.steps in the config of every run, found none in {0}/",
        ),
        (["--over", "seed"], "over: expected runs that differ in seed, got 7 in all of them"),
        (["--over", "sampler"], "over: expected a key with one value, got sampler, which has kind, again, none"),
        (
            ["--over", "broken"],
            "config.yaml: expected broken in it, got: Interpolation key 'nowhere' not found",
        ),
        (["--page", "over.svg"], "page: expected --over KEY, which over.svg is drawn over, got none"),
        (
            ["--over", "guidance", "--page", "over.pdf"],
            "page: expected a file that ends in .html or .svg, got over.pdf",
        ),
        (["--over", "guidance", "--page", "{0}/scores.json/over.svg"], "File exists: '{0}/scores.json'"),
    ],
)
def test_a_mistake_is_one_line(runs: list[str], words: list[str], told: str) -> None:
    result = facemint("compare", *runs, *(word.format(*runs) for word in words))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert told.format(*runs) in result.stderr


def test_runs_without_config_or_scores_are_refused_in_a_line(runs: list[str], tmp_path: Path) -> None:
    for run in runs:
        (Path(run) / "scores.json").unlink()
    result = facemint("compare", *runs, "--over", "guidance", "--page", f"{tmp_path}/over.html")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "expected scores.json, which the step verify writes, in some of 2 runs, found none" in result.stderr
    RunDir(Path(runs[0])).config.unlink()
    result = facemint("compare", *runs, "--over", "guidance")
    assert f"expected a run directory, with {runs[0]}/.hydra/config.yaml, found no such file" in result.stderr


def test_a_folder_that_is_no_run_is_refused(runs: list[str], tmp_path: Path) -> None:
    result = facemint("compare", *runs, str(tmp_path))
    assert result.exit_code == 2
    assert f"expected a run directory, with {tmp_path}/.hydra/config.yaml, found no such file" in result.stderr
