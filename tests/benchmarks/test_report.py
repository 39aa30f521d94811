"""The page: every figure from the files of the run, what is missing named, nothing loaded, everything escaped."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.report import charts, facts, write_report
from benchmarks.report.charts import Series
from recognition.formats.shards import read_shards
from tests.benchmarks.small_run import blots, build_run, files_of, with_seeds


class Elements(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: Path, **other) -> str:
    write_report(run / "report.html", **{**files_of(run), **other})
    return (run / "report.html").read_text(encoding="utf-8")


def edit_scores(run: Path, edit) -> None:
    said = json.loads((run / "scores.json").read_text())
    edit(said)
    (run / "scores.json").write_text(json.dumps(said))


def test_the_page_tells_the_run_in_a_sentence_and_counts_every_reason(run):
    made = facts.read_yield(run / "ledger")
    text = Elements(page_of(run)).text
    assert f"{made.kept} of 48 photographs of {made.people} people who do not exist were kept" in text
    assert "points below the same recipe on the control." in text
    assert made.kept + sum(count for _, count in made.reasons) == 48
    for reason, count in made.reasons:
        assert f"{reason} {count} {100 * count / 48:.1f} %" in text


def test_the_page_is_one_small_file_that_loads_nothing(run):
    html = page_of(run)
    assert len(html) < 2_000_000
    tags = Elements(html).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    assert all(a["src"].startswith("data:image/jpeg;base64,") for _, a in tags if a.get("src"))
    assert not re.search(r"https?://|@import|url\(", html)
    assert not [a for _, a in tags if a.get("href")]


def test_the_same_files_give_the_same_page_and_leave_no_part(run):
    assert page_of(run) == page_of(run)
    assert not list(run.glob("*.part"))


def test_the_contact_sheet_shows_the_photographs_of_the_shards(run):
    (source,) = [a["src"] for tag, a in Elements(page_of(run)).tags if tag == "img"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))), int)
    first = next(read_shards([run / "shards" / "000000.tar"]))
    stored = np.asarray(Image.open(io.BytesIO(first.jpeg)), int)
    assert sheet.shape[0] == 6 * 116 - 4
    assert np.abs(sheet[:112, :112] - stored).mean() < 3  # it has been through JPEG once more
    assert np.abs(sheet[:112, 116:228] - stored).mean() > 10  # its neighbour is another photograph


def test_everything_that_comes_from_outside_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    run = build_run(tmp_path / "run")
    (run / ".hydra" / "config.yaml").write_text(f"name: {evil}\n")
    edit_scores(
        run, lambda said: said["recogniser"]["protocols"].update({evil: said["recogniser"]["protocols"]["wild"]})
    )
    for path in (run / "ledger").glob("*.parquet"):
        part = pq.read_table(path)
        reasons = pa.array([evil if reason else "" for reason in part["reason"].to_pylist()])
        pq.write_table(part.set_column(part.column_names.index("reason"), "reason", reasons), path)
    html = page_of(run, name=evil)
    assert evil not in html
    assert html.count("&lt;script&gt;") >= 5  # title, heading, reason, protocol in the table and in the chart, config


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("ledger", "Contact sheet: not run, no chunk has been made. "),
        ("ledger", "Nothing to report yet: no chunk has been made."),
        ("shards", "Contact sheet: not run, 2 of 2 shards are not there, 000000.tar first."),
        ("progress", "Speed: not run, no chunk has been timed."),
        ("scores", "Scores: not run, no recogniser has been trained and verified."),
        ("scores", "no recogniser has been trained on them and verified yet."),
        ("scores", "Witness: not run."),
        ("config", "there is no config.yaml"),
        ("identities", "People: not run, nobody has been sampled."),
        ("plan", "There is no plan to hold the ledger against."),
        ("plan", "Coverage: not run, there is no ledger or no plan."),
        ("weights", "no list of weights was given"),
    ],
)
def test_what_is_missing_is_named_where_it_would_stand(run, gone, said):
    path = files_of(run)[gone]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in Elements(page_of(run)).text + " "


def test_a_run_without_any_file_still_has_a_page(tmp_path):
    assert "Nothing to report yet" in page_of(tmp_path)


def test_a_run_without_a_control_says_so_in_the_verdict_the_table_and_a_warning(run):
    edit_scores(run, lambda said: said.update(control=None))
    text = Elements(page_of(run)).text
    assert "The control was not run, so there is nothing to compare that with." in text
    assert "Control: not run. Without it" in text
    assert text.count("not run –") == 5


def test_several_seeds_are_told_with_their_verdict_and_one_by_one(run):
    edit_scores(run, lambda said: said.update(with_seeds(said, shift=-0.03)))
    said = json.loads((run / "scores.json").read_text())
    text = Elements(page_of(run)).text
    verdict = said["verdict"]
    assert verdict["said"].startswith("control better than dataset by ")
    assert f"the mean of 3 trainings; {verdict['said']}." in text
    assert f"Paired over 3 seeds: {verdict['said']} . The interval (95 %) covers trainings with other seeds" in text
    low, high = verdict["protocols"]["wild"]["interval95"]
    assert f"−{-100 * low:.1f} … −{-100 * high:.1f}" in text
    for seed in said["recogniser"]["seeds"]:
        scores = " ".join(f"{100 * each['accuracy']:.2f}" for each in seed["protocols"].values())
        assert f"this dataset, {seed['seed']} {scores}" in text
    assert "One training each" not in text


def test_the_gap_of_a_protocol_is_that_of_the_seeds_where_there_are_several(run):
    edit_scores(run, lambda said: said.update(with_seeds(said, shift=0.0)))
    said = json.loads((run / "scores.json").read_text())
    scores = facts.read_scores(run / "scores.json")
    for row in scores.rows:
        told = said["verdict"]["protocols"][row.name]
        assert row.gap == pytest.approx([100 * value for value in (told["gap"], *told["interval95"])])
        assert row.gap[0] == pytest.approx(100 * (row.ours["accuracy"] - row.control["accuracy"]))
    assert scores.mean_gap == pytest.approx(100 * said["verdict"]["gap"])


def test_one_training_is_called_one(run):
    assert "One training each: how much another seed would move the figures" in Elements(page_of(run)).text
    assert facts.read_scores(run / "scores.json").trainings == 1


def test_a_witness_in_the_judges_space_is_no_witness(run):
    assert "certify nothing. The witness" in Elements(page_of(run)).text
    edit_scores(run, lambda said: said["witness"].update(space="bundled-a-2"))
    assert (
        "Judge and witness share the space bundled-a-2: the figures below certify nothing."
        in Elements(page_of(run)).text
    )


def test_a_witness_who_counted_no_histogram_is_told_without_one(run):
    keep = ("space", "images", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std", "auc_own_vs_other")
    edit_scores(run, lambda said: said.update(witness={key: said["witness"][key] for key in keep}))
    assert "a pair of one person is more alike" in Elements(page_of(run)).text


def test_a_far_target_that_cannot_be_measured_is_not_given_a_figure(run):
    edit_scores(run, lambda said: said["recogniser"]["protocols"]["wild"].update(resolvable=False))
    assert "too few impostor pairs for 0.001" in Elements(page_of(run)).text


def test_an_unfinished_belt_is_called_unfinished(run):
    (run / "ledger" / "000001.parquet").unlink()
    text = Elements(page_of(run)).text
    assert "The belt is not finished: the plan has 48 photographs, 24 have been made." in text


def test_a_run_that_kept_nothing_has_a_page(run):
    for path in (run / "ledger").glob("*.parquet"):
        part = pq.read_table(path)
        none = part.set_column(part.column_names.index("kept"), "kept", pa.array([False] * part.num_rows))
        pq.write_table(
            none.set_column(none.column_names.index("reason"), "reason", pa.array(["own_identity"] * 24)), path
        )
    assert "Contact sheet: not run, no photograph was kept." in Elements(page_of(run)).text


def test_chunks_of_different_runs_are_noticed(run):
    path = run / "ledger" / "000001.parquet"
    part = pq.read_table(path)
    pq.write_table(part.replace_schema_metadata({**part.schema.metadata, b"made_from": b"other"}), path)
    assert "chunks of different runs are mixed" in Elements(page_of(run)).text


def test_real_generators_are_not_called_procedural(run):
    people = pq.read_table(run / "identities.parquet")
    pq.write_table(people.replace_schema_metadata({"space": "arcface-wf42m"}), run / "identities.parquet")
    text = Elements(page_of(run)).text
    assert "procedural" not in text
    assert "somebody whom the generator was trained on is not measured" in text


def said_of_people(run, **said):
    people = pq.read_table(run / "identities.parquet")
    pq.write_table(people.replace_schema_metadata(said), run / "identities.parquet")
    return Elements(page_of(run)).text


def test_the_bundled_generators_people_are_not_said_to_come_from_photographs(run):
    text = said_of_people(run, space="bundled-a-2", source="sphere: directions")
    assert "trained on renders of the procedural world and on nothing else" in text
    assert "Everybody here is procedural" not in text
    assert "whom the generator was trained on is not measured" not in text


def test_the_page_says_where_the_people_come_from(run):
    text = Elements(page_of(run)).text
    assert text.count("world: traits drawn in the procedural face world") == 2
    assert "not sampled" not in text
    assert "Source of the people: not recorded." in said_of_people(run, space="world-1")


def test_authentic_people_are_marked_as_such(run):
    text = said_of_people(run, space="bundled-a-2", source="authentic: embeddings of renders")
    assert text.count("authentic: embeddings of renders") == 2
    assert "These identities were not sampled: they are embeddings of authentic pictures, here of renders." in text


def test_of_a_chunk_made_twice_the_last_line_counts_and_a_cut_off_line_is_said(run):
    lines = (run / "progress.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    slow = json.dumps({**first, "seconds": dict.fromkeys(first["seconds"], 1000)})
    (run / "progress.jsonl").write_text("\n".join([slow, *lines, lines[0][:30]]))
    speed = facts.read_speed(run / "progress.jsonl")
    assert (speed.rows, speed.chunks, speed.repeated, speed.torn) == (48, 2, 1, True)
    assert max(station.seconds for station in speed.stations) < 10
    assert sum(station.share for station in speed.stations) == pytest.approx(1)
    text = Elements(page_of(run)).text
    assert (
        "1 older lines about chunks that were made again are left out. The last line of the progress file is cut off"
        in text
    )


def test_a_broken_line_within_the_progress_is_named(run):
    lines = (run / "progress.jsonl").read_text().splitlines()
    (run / "progress.jsonl").write_text("\n".join(["{}", *lines]))
    with pytest.raises(ValueError, match=r"progress\.jsonl: expected a progress line in line 1, got '\{\}'"):
        page_of(run)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"recogniser": {}}',
        '{"recogniser": {"protocols": {"wild": {}}, "control": 1}}',
        '{"recogniser": {"protocols": {}}, "verdict": {"said": "", "protocols": {}}}',
    ],
)
def test_scores_in_another_form_are_refused(run, text):
    (run / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=r"scores\.json: expected"):
        page_of(run)


def test_a_ledger_of_another_form_is_refused(run):
    pq.write_table(pa.table({"key": ["a"]}), run / "ledger" / "000001.parquet")
    with pytest.raises(ValueError, match=r"000001\.parquet: expected the columns of a ledger"):
        page_of(run)


def test_a_shard_that_lacks_a_kept_photograph_is_refused(tmp_path):
    one, other = build_run(tmp_path / "one"), build_run(tmp_path / "other", photographs=2, paint=blots)
    shutil.copy(other / "shards" / "000000.tar", one / "shards" / "000000.tar")
    with pytest.raises(ValueError, match="expected every kept photograph in its shard, got none named 00000"):
        page_of(one)


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=30),
    low=st.floats(-1e3, 1e3),
    span=st.floats(1e-3, 1e4),
)
@settings(max_examples=50, deadline=None)
def test_a_histogram_stays_inside_its_frame(counts, low, span):
    svg = charts.stacked_histogram([Series("a", counts, "x"), Series("b", counts, "y")], low, low + span, "m", 320)
    assert "nan" not in svg
    for x, y, width, height in re.findall(r'<rect class="." x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', svg):
        assert float(x) >= 36
        assert float(x) + float(width) <= 314.1
        assert float(y) >= 7.9
        assert float(y) + float(height) <= 104.1


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e5))
def test_ticks_are_few_and_lie_between_the_ends(low, span):
    ticks = charts._ticks(low, low + span)
    assert 1 <= len(ticks) <= 7
    assert low - span * 1e-3 <= ticks[0] <= ticks[-1] <= low + span * 1.001
