"""The dataset card, and many runs in one table."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from benchmarks.report import compare, facts, write_card
from tests.benchmarks.small_run import build_run, files_of, with_seeds


def card_of(run, licence="CC0-1.0", name="Demo: 6 people"):
    files = {key: path for key, path in files_of(run).items() if key in ("ledger", "scores", "config", "identities")}
    write_card(run / "DATASET_CARD.md", name=name, licence=licence, **files)
    front, _, body = (run / "DATASET_CARD.md").read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(front), body


def test_the_card_opens_with_what_the_hub_reads(run):
    front, _ = card_of(run)
    assert front["pretty_name"] == "Demo: 6 people"
    assert front["license"] == "cc0-1.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "shards/*.tar"}]


def test_a_licence_that_the_hub_does_not_know_keeps_its_name(run):
    front, body = card_of(run, licence="S-Lab License 1.0")
    assert (front["license"], front["license_name"]) == ("other", "S-Lab License 1.0")
    assert "| licence | S-Lab License 1.0 |" in body


def test_the_card_counts_what_the_ledger_counts_and_keeps_the_config_as_it_is(run):
    (run / ".hydra" / "config.yaml").write_text("who: 'a & b <c>'\n")
    _, body = card_of(run)
    made = facts.read_yield(run / "ledger")
    assert f"{made.kept} of 48 made" in body
    for reason, count in made.reasons:
        assert f"| {reason} | {count} |" in body
    assert "who: 'a & b <c>'" in body


def test_a_card_of_an_unscored_dataset_says_so(run):
    (run / "scores.json").unlink()
    _, body = card_of(run)
    assert "Not measured: no recogniser has been trained and verified." in body
    assert "A second embedder has not looked at it." in body


def test_the_card_says_where_the_people_come_from_and_marks_the_authentic_ones(run):
    _, body = card_of(run)
    assert "| source of the people | world: traits drawn in the procedural face world |" in body
    assert "not sampled" not in body
    people = pq.read_table(run / "identities.parquet")
    said = {"space": "bundled-a-2", "source": "authentic: embeddings of renders"}
    pq.write_table(people.replace_schema_metadata(said), run / "identities.parquet")
    _, body = card_of(run)
    assert "| source of the people | authentic: embeddings of renders |" in body
    assert "**These identities were not sampled.** They are embeddings of authentic pictures, here of renders" in body
    assert "trained on renders of a procedural world and on nothing else" in body
    assert "generator trained on photographs" not in body


def test_there_is_no_card_without_a_dataset(tmp_path):
    with pytest.raises(ValueError, match="expected a ledger with pictures kept, got none"):
        card_of(tmp_path)


def test_runs_stand_side_by_side_in_the_order_given(tmp_path):
    one, other = build_run(tmp_path / "one"), build_run(tmp_path / "other")
    said = json.loads((other / "scores.json").read_text())
    del said["control"], said["recogniser"]["protocols"]["wild"]
    (other / "scores.json").write_text(json.dumps(said))
    runs = {"one|1": one / "scores.json", "other": other / "scores.json", "third": tmp_path / "scores.json"}
    lines = compare(runs).markdown().splitlines()
    assert lines[0].startswith("| run | photographs | people | cross_age |")
    assert lines[2].startswith("| one\\|1 | ")
    assert [cell.strip() for cell in lines[3].split("|")[-5:-1]] == ["not run", "not run", "not run", "0.9981"]
    assert lines[4].count("not run") == 11
    assert lines[2].count(" one seed ") == 1
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(compare(runs).table())
    assert "one|1" in console.export_text()


@pytest.mark.parametrize(("shift", "side"), [(-0.05, "below"), (0.05, "above"), (0.0, "not distinguishable")])
def test_a_comparison_tells_what_the_seeds_of_a_run_say_of_its_gap(run, shift, side):
    said = with_seeds(json.loads((run / "scores.json").read_text()), shift)
    (run / "scores.json").write_text(json.dumps(said))
    low, high = (100 * end for end in said["verdict"]["interval95"])
    row = compare({"run": run / "scores.json"}).rows[0]
    assert row[-3:-1] == [f"{100 * said['verdict']['gap']:+.2f}", f"{low:+.2f} to {high:+.2f}, 3 seeds: {side}"]


def test_a_card_of_several_seeds_has_the_verdict_and_what_it_covers(run):
    said = with_seeds(json.loads((run / "scores.json").read_text()), -0.05)
    (run / "scores.json").write_text(json.dumps(said))
    _, body = card_of(run)
    assert f"Paired over 3 seeds: **{said['verdict']['said']}**. The interval (95 %) covers trainings" in body
    assert "not another draw of the dataset" in body
    assert "Means of 3 trainings" in body


def test_comparing_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="expected runs to compare, got none"):
        compare({})
