"""Pieces of the steps whose arithmetic can be said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.progress import Watch, say
from pipeline.runners import Done
from pipeline.steps import Size, stream
from pipeline.steps.make import _note
from pipeline.steps.sample import _nearest_before
from pipeline.steps.train import evenly


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70))
def test_a_truncated_set_is_as_even_over_people_as_can_be(whose: list[int], limit: int) -> None:
    labels = np.array(whose, np.int64)
    rows = evenly(labels, limit)
    taken, there = np.bincount(labels[rows], minlength=6), np.bincount(labels, minlength=6)
    assert len(rows) == min(limit, len(labels))
    assert (np.diff(rows) > 0).all()
    short = taken < there  # whoever has pictures left
    if short.any():
        assert taken.max() - taken[short].min() <= 1


def test_everybody_gives_the_first_pictures_first() -> None:
    labels = np.array([4, 4, 4, 9, 9, 7], np.int64)
    assert evenly(labels, 4).tolist() == [0, 1, 3, 5]
    assert evenly(labels, None).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_control_is_planned_a_tenth_larger_than_what_was_kept() -> None:
    assert Size(people=100, pictures=1000).for_control == 11


def test_the_nearest_is_looked_for_among_those_before() -> None:
    east, north, both = np.array([1, 0], np.float32), np.array([0, 1], np.float32), np.array([0.6, 0.8], np.float32)
    assert _nearest_before(np.stack([east, north, both])) == [None, 0.0, pytest.approx(0.8)]


def test_streams_of_a_run_differ_by_purpose_and_by_seed() -> None:
    seeds = {stream(seed, purpose) for seed in (0, 1) for purpose in ("people", "portraits", "control")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_line_after_a_torn_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text('{"chunk": 0')
    _note(path, Done(1, {"chunk": 1, "rows": 2, "kept": 2, "reasons": {}}, {"generate": 0.25}, "me", 1))
    assert json.loads(path.read_text().splitlines()[1])["seconds"] == {"generate": 0.25}


def test_the_name_of_a_file_that_is_no_text_is_said_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    say("export: left out .\udcff")
    assert capsys.readouterr().out == "export: left out .\\udcff\n"


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch("make", 10, "pictures") as watch:
        watch.advance(4)
        watch.reach(10)
    told = capsys.readouterr().out
    assert told.startswith("make: 10 of 10 pictures in ")
    assert "\x1b" not in told
