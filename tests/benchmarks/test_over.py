"""A sweep as a picture: a mark for every run in every panel, what is missing in words, nothing loaded."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.report import Swept, charts, compare, write_over
from benchmarks.report.charts import SVG
from benchmarks.seeds import over_seeds_and_pairs
from tests.benchmarks.small_run import scores_json, with_seeds

KEY = "judge.rules.own_identity.min_cosine"


def scored(folder: Path, said: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps(said or scores_json(6, 40)))
    return folder / "scores.json"


def swept(runs: Mapping[str, Path], *values: Any) -> Swept:
    return Swept(KEY, dict(zip(runs, values, strict=True)))


def drawn(runs: Mapping[str, Path], over: Swept) -> ElementTree.Element:
    out = next(iter(runs.values())).with_name("over.svg")
    write_over(out, runs, over)
    return ElementTree.parse(out).getroot()


def marks(svg: ElementTree.Element) -> list[tuple[str, list[float], list[float]]]:
    """Of each run in each panel: what it says, and where its dots stand, in pixels."""
    return [
        (
            mark.findtext(f"{{{SVG}}}title") or "",
            [float(dot.get("cx", "nan")) for dot in mark.findall(f"{{{SVG}}}circle")],
            [float(dot.get("cy", "nan")) for dot in mark.findall(f"{{{SVG}}}circle")],
        )
        for mark in svg.findall(f"{{{SVG}}}g[@class='mark']")
    ]


def texts(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{{{SVG}}}text")]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Three runs, of three trainings each, of which the later are better and hold a person closer together."""
    found = {}
    for number in range(3):
        said = with_seeds(scores_json(6, 40), shift=0.02 * number)
        said["witness"] |= {"genuine_mean": 0.5 + 0.1 * number, "impostor_mean": 0.1}
        found[f"run {number}"] = scored(tmp_path / f"run_{number}", said)
    return found


def test_the_legend_names_what_is_drawn(tmp_path, runs):
    assert {"dataset", "control"} <= set(texts(drawn(runs, swept(runs, 0.2, 0.6, 0.3))))
    without = scores_json(6, 40) | {"control": None, "verdict": None}
    two = {name: scored(tmp_path / name, without) for name in ("one", "other")}
    told = texts(drawn(two, swept(two, 0.2, 0.6)))
    assert "dataset" in told
    assert "control" not in told


def test_every_run_has_a_mark_in_every_panel_at_its_number(runs):
    found = marks(drawn(runs, swept(runs, 0.2, 0.6, 0.3)))
    assert [told.split(":")[0] for told, _, _ in found] == ["run 0", "run 1", "run 2"] * 3
    assert [len(across) for _, across, _ in found] == [2] * 3 + [1] * 6  # of the control accuracies alone are known
    first, second, third = (across[0] for _, across, _ in found[3:6])
    assert (third - first) / (second - first) == pytest.approx(0.25, abs=0.01)
    heights = [up[0] for _, _, up in found[3:6]]
    assert heights == sorted(heights, reverse=True)  # pixels count downwards


def test_accuracies_are_means_over_protocols_with_the_interval_of_seeds_and_pairs(runs):
    said = json.loads(runs["run 1"].read_text())
    wanted = {}
    for side in ("recogniser", "control"):
        seeds = [one["protocols"] for one in said[side]["seeds"]]
        whole = over_seeds_and_pairs([np.array([one[name]["folds"] for one in seeds]) for name in seeds[0]])
        wanted[side] = [100 * value for value in (whole.mean, whole.low, whole.high)]
    told = marks(drawn(runs, swept(runs, 1, 2, 3)))[1][0]
    numbers = [float(number) for number in re.findall(r"[\d.]+", told.removeprefix("run 1: "))]
    assert numbers == pytest.approx([*wanted["recogniser"], *wanted["control"]], abs=0.01)


def test_people_are_told_by_the_witness_mean_and_spread(runs):
    found = [told for told, _, _ in marks(drawn(runs, swept(runs, 1, 2, 3)))]
    assert found[4] == "run 1: 0.6 [0.46, 0.74]"
    assert found[7] == "run 1: 0.9 [0.78, 1.02]"


def test_one_training_has_a_dot_and_no_interval(tmp_path):
    runs = {"one": scored(tmp_path / "one"), "other": scored(tmp_path / "other")}
    svg = drawn(runs, swept(runs, 1, 2))
    accuracies = svg.findall(f"{{{SVG}}}g[@class='mark']")[:2]
    assert [len(mark.findall(f"{{{SVG}}}circle")) for mark in accuracies] == [2, 2]
    assert not [line for mark in accuracies for line in mark.findall(f"{{{SVG}}}line")]


def test_names_stand_in_the_order_of_the_runs_and_what_they_share_is_told_once(runs):
    values = ["stages.sample.sphere.Sphere", "stages.sample.world.World", "stages.sample.sphere.Sphere"]
    svg = drawn(runs, swept(runs, *values))
    assert [text for text in texts(svg) if text.endswith(("Sphere", "World"))] == ["sphere.Sphere", "world.World"]
    assert f"{KEY}: stages.sample.…" in texts(svg)
    first, second, third = (across[0] for _, across, _ in marks(svg)[3:6])
    assert first == third < second
    assert not svg.findall(f"{{{SVG}}}polyline")  # between names there is nothing


def test_paths_are_cut_at_a_slash_and_never_within_a_number():
    assert [label for _, label in charts.axis_of_names(["a/p0.25", "a/p0.255"], "x").ticks] == ["p0.25", "p0.255"]


def test_long_names_are_cut_to_their_ends():
    ticks = charts.axis_of_names([f"somewhere/{'a' * 60}_{number}" for number in range(9)], "x").ticks
    assert all(label.startswith("…a") and label.endswith(f"_{number}") for number, label in ticks)


def test_a_mixture_of_numbers_and_none_is_named(runs):
    svg = drawn(runs, swept(runs, 0.2, None, True))
    assert {"0.2", "null", "true"} <= set(texts(svg))


@pytest.mark.parametrize("gone", ["genuine_mean", "genuine_std"])
def test_what_a_run_lacks_is_not_guessed(runs, gone):
    said = json.loads(runs["run 1"].read_text())
    del said["witness"][gone]
    runs["run 1"].write_text(json.dumps(said))
    svg = drawn(runs, swept(runs, 1, 2, 3))
    assert [told for told, _, _ in marks(svg) if "not measured" in told] == ["run 1: not measured"]
    assert texts(svg).count("not measured") == 1


def test_a_run_without_scores_is_not_measured_in_any_panel_and_named_on_the_page(runs, tmp_path):
    runs["run 2"].unlink()
    svg = drawn(runs, swept(runs, 1, 2, 3))
    assert texts(svg).count("not measured") == 3
    write_over(tmp_path / "over.html", runs, swept(runs, 1, 2, 3))
    assert "Not verified yet: run 2." in (tmp_path / "over.html").read_text()


def test_a_mean_over_fewer_protocols_is_no_mean(runs):
    said = json.loads(runs["run 0"].read_text())
    del said["recogniser"]["protocols"]["wild"]
    runs["run 0"].write_text(json.dumps(said))
    assert [len(across) for _, across, _ in marks(drawn(runs, swept(runs, 1, 2, 3)))[:3]] == [1, 2, 2]


def test_witnesses_of_different_spaces_are_not_compared_in_silence(runs):
    assert "Cosine of two photographs of one person, by bundled-b-2" in " ".join(
        texts(drawn(runs, swept(runs, 1, 2, 3)))
    )
    said = json.loads(runs["run 0"].read_text())
    said["witness"]["space"] = "other"
    runs["run 0"].write_text(json.dumps(said))
    assert " ".join(texts(drawn(runs, swept(runs, 1, 2, 3)))).count("by witnesses that DO NOT COMPARE") == 2


def test_the_page_loads_nothing_has_the_table_and_escapes_what_comes_from_outside(runs, tmp_path):
    evil = "<script>alert(1)</script>"
    over = Swept(evil, dict(zip(runs, (evil, "b", "c"), strict=True)))
    write_over(tmp_path / "over.html", runs, over)
    page = (tmp_path / "over.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert page.count("&lt;script&gt;") >= 4  # title, heading, table, axis
    assert page.count("<th>") == len(compare(runs, over).header)
    assert not list(tmp_path.glob("*.part"))
    svg = drawn(runs, over)
    assert any(evil in text for text in texts(svg))


def test_the_picture_alone_has_its_colours_written_out(runs):
    drawn(runs, swept(runs, 1, 2, 3))
    text = runs["run 0"].with_name("over.svg").read_text()
    assert "var(" not in text
    assert "svg circle.accent { fill: #0b6e63; }" in text


def test_the_table_has_the_key_after_the_run_only_where_it_is_asked_for(runs):
    over = swept(runs, 0.2, 0.3, 0.4)
    assert compare(runs, over).header[:3] == ["run", KEY, "photographs"]
    assert [row[:2] for row in compare(runs, over).rows] == [["run 0", "0.2"], ["run 1", "0.3"], ["run 2", "0.4"]]
    assert [[row[0], *row[2:]] for row in compare(runs, over).rows] == compare(runs).rows


def test_what_cannot_be_drawn_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=f"over: expected runs that differ in {KEY}, got 0.3 in all of them"):
        swept(runs, 0.3, 0.3, 0.3)
    over = swept(runs, 1, 2, 3)
    with pytest.raises(ValueError, match=r"page: expected a file that ends in \.html or \.svg, got .*over\.pdf"):
        write_over(tmp_path / "over.pdf", runs, over)
    nothing = dict.fromkeys(runs, tmp_path / "nowhere" / "scores.json")
    with pytest.raises(ValueError, match=r"expected scores\.json, .* in some of 3 runs, found none"):
        write_over(tmp_path / "over.svg", nothing, over)


def test_numbers_are_ticks_where_there_is_room_and_round_ones_where_there_is_none():
    assert [tick for tick, _ in charts.axis_of_numbers([0.0, 0.5, 0.25], "x").ticks] == [0.0, 0.25, 0.5]
    crowded = charts.axis_of_numbers([*np.linspace(0, 1, 101)], "x")
    assert 4 <= len(crowded.ticks) <= 12
    assert crowded.low < 0 < 1 < crowded.high
