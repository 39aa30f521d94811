"""`facemint export`: what of a run goes out, that it is unchanged, and what stops it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import export as module
from pipeline.export import FORMATS, Form, export, source_of
from pipeline.rundir import RunDir
from recognition.formats import LabelledSet, Sample, open_set, write_folder, write_shard
from recognition.formats.shards import read_shards
from tests.benchmarks.small_run import blots, build_run, jpeg_of
from tests.pipeline.conftest import facemint


@pytest.fixture(scope="module")
def one_run(tmp_path_factory) -> Path:
    """A finished run: 6 people, a plan of two row groups, some pictures turned away."""
    root = build_run(tmp_path_factory.mktemp("runs") / "small", people=6, photographs=4)
    plan = pq.read_table(root / "plan.parquet")
    pq.write_table(plan, root / "plan.parquet", row_group_size=len(plan) // 2)  # a row group is a chunk
    (root / "DATASET_CARD.md").write_text(
        "---\npretty_name: Small\nlicense: mit\ntags:\n- webdataset\n- synthetic\n---\n\n# x\n"
    )
    return root


@pytest.fixture
def run(one_run, tmp_path) -> Path:
    return Path(shutil.copytree(one_run, tmp_path / "small"))


def kept(run: Path) -> list[Sample]:
    return list(read_shards(sorted((run / "shards").glob("*.tar"))))


@pytest.mark.parametrize("to", FORMATS)
def test_the_kept_pictures_go_out_byte_for_byte_with_their_people(run, to):
    result = facemint("export", f"run={run}", "--to", to)
    assert result.exit_code == 0, result.output
    out, samples = run / "export" / to, kept(run)
    assert 0 < len(samples) < 24
    opened = open_set(out)
    people = sorted({sample.identity_id for sample in samples})
    assert sorted((sample.jpeg, int(opened.labels[row])) for row, sample in enumerate(opened)) == sorted(
        (sample.jpeg, people.index(sample.identity_id)) for sample in samples
    )
    said = json.loads((out / "export.json").read_text())
    assert (said["pictures"], said["identities"]) == (len(samples), len(people))
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "export.json"}
    assert said["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert said["bytes"] == sum(map(len, files.values()))
    assert said["source"]["plan_sha256"] == hashlib.sha256((run / "plan.parquet").read_bytes()).hexdigest()
    assert f"{len(samples):,}" in result.stdout
    assert not list(run.rglob("*.part"))


def test_the_same_command_says_that_all_is_up_to_date_and_writes_nothing(run):
    export(run, Form("rec"))
    before = {path: path.stat().st_mtime_ns for path in (run / "export").rglob("*")}
    result = facemint("export", f"run={run}", "--to", "rec")
    assert result.exit_code == 0
    assert "rec is up to date" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in (run / "export").rglob("*")} == before


def test_two_exports_of_one_run_are_the_same_bytes(run, tmp_path):
    for to in FORMATS:
        for name in ("a", "b"):
            export(run, Form(to), tmp_path / name / to)
    trees = []
    for name in "ab":
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        trees.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert trees[0] == trees[1]


def test_a_dataset_knows_what_ledger_and_plan_know(run):
    export(run, Form("hf"))
    samples = list(open_set(run / "export" / "hf"))
    plan = {row["key"]: row for row in pq.read_table(run / "plan.parquet").to_pylist()}
    ledger = {row["key"]: row for path in (run / "ledger").iterdir() for row in pq.read_table(path).to_pylist()}
    for sample in samples:
        assert sample.about["yaw_deg"] == plan[sample.key]["yaw_deg"]
        assert sample.about["own_identity"] == ledger[sample.key]["own_identity"]
        assert sample.about["seed"] == ledger[sample.key]["seed"]
        assert sample.about["landmarks"] == ledger[sample.key]["landmarks"]
        assert not {"kept", "reason"} & {*sample.about}
    front = yaml.safe_load((run / "export" / "hf" / "README.md").read_text().split("---\n")[1])
    assert (front["pretty_name"], front["license"], front["tags"]) == ("Small", "mit", ["synthetic"])


def test_any_set_can_be_exported_and_taken_apart_again(tmp_path):
    samples = [Sample(f"a/{k}", jpeg_of(blots(k, k)), 5 + k % 2, {}) for k in range(5)]
    (tmp_path / "faces").mkdir()
    write_folder(tmp_path / "faces", LabelledSet.of(samples))
    (tmp_path / "faces" / ".DS_Store").touch()
    said = export(tmp_path / "faces", Form("rec", layout="headerless"), tmp_path / "rec")
    assert said["left_out"] == [".DS_Store"]
    result = facemint("export", str(tmp_path / "rec" / "train.rec"), "--to", "folder", "--out", str(tmp_path / "again"))
    assert result.exit_code == 0, result.output
    jpegs = [[sample.jpeg for sample in open_set(tmp_path / name)] for name in ("faces", "again")]
    assert jpegs[0] == jpegs[1]


def test_the_options_of_training_shards_are_honoured(run):
    words = ["export", f"run={run}", "--to", "train-shards", "--shards", "3", "--seed", "4"]
    assert facemint(*words).exit_code == 0
    sizes = json.loads((run / "export" / "train-shards" / "sizes.json").read_text())
    assert len(sizes) == 3
    assert facemint(*words[:-1], "5").exit_code == 1  # another export lies there


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--to", "zip"], "to: expected one of rec, folder, hf, train-shards, got 'zip'"),
        (["--to", "rec", "--layout", "mxnet"], "layout: expected insightface or headerless, got 'mxnet'"),
        (["--to", "hf", "--layout", "headerless"], "layout: expected with --to rec only"),
        (["--to", "rec", "--shards", "3"], "shards, seed: expected with --to train-shards only"),
        (["--to", "train-shards", "--shards", "0"], "shards, seed: expected at least 1 and at least 0, got 0, 0"),
        (["--to", "train-shards", "--shards", "99"], "shards: expected 1 to"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, words, fault):
    result = facemint("export", f"run={run}", *words)
    assert result.exit_code == 1
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not [path for path in run.rglob("*") if "export" in path.parts and path.is_file()]


def break_picture(run: Path) -> None:
    """Makes one picture of chunk 0 half a JPEG; the ledger part vouches for the tar all the same."""
    samples = list(read_shards([run / "shards" / "000000.tar"]))
    samples[1] = Sample(samples[1].key, samples[1].jpeg[:-300], samples[1].identity_id, samples[1].about)
    digest = write_shard(run / "shards" / "000000.tar", samples)
    part = run / "ledger" / "000000.parquet"
    table = pq.read_table(part)
    metadata = {**table.schema.metadata, b"tar_sha256": digest.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), part)


def forget_picture(run: Path) -> None:
    samples = list(read_shards([run / "shards" / "000000.tar"]))
    digest = write_shard(run / "shards" / "000000.tar", samples[1:])
    part = run / "ledger" / "000000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"tar_sha256": digest.encode()}), part)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda run: (run / "ledger" / "000001.parquet").unlink(), r"expected all chunks of .* 1 are missing \(1\)"),
        (lambda run: (run / "plan.parquet").unlink(), "plan.parquet, which the step plan writes"),
        (lambda run: (run / "shards" / "000001.tar").write_bytes(b""), "found others in chunk 1"),
        (lambda run: (run / "shards" / "000002.tar.part").write_bytes(b""), "the run is not finished"),
        (break_picture, "picture 00000._00.: .*truncated"),
        (forget_picture, r"expected the [0-9]+ pictures that the ledger keeps, found"),
    ],
)
def test_an_unfinished_or_damaged_run_is_refused(run, change, fault):
    change(run)
    with pytest.raises(ValueError, match=fault):
        export(run, Form("rec"))
    assert not (run / "export" / "rec").exists()
    assert not list(run.rglob("*.rec*"))


def test_what_lies_at_the_target_is_not_touched(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="mine: expected nothing there or this very export, found something else"):
        export(run, Form("rec"), tmp_path / "mine")
    export(run, Form("rec"), tmp_path / "out")
    with pytest.raises(ValueError, match="out: expected nothing there or this very export, found another export"):
        export(run, Form("rec", layout="headerless"), tmp_path / "out")
    (tmp_path / "out" / "train.lst").write_text("x")
    with pytest.raises(ValueError, match=r"that its export\.json lists, found another or no train\.lst"):
        export(run, Form("rec"), tmp_path / "out")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_set_that_is_no_run_says_where_it_goes_and_not_into_itself(run, tmp_path):
    with pytest.raises(ValueError, match="out: expected --out FOLDER for a set that is not a run"):
        export(run / "shards", Form("rec"))
    with pytest.raises(ValueError, match=f"out: expected a folder outside {run / 'shards'}"):
        export(run / "shards", Form("folder"), run / "shards" / "x")


def test_a_name_is_looked_for_in_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / "demo")
    assert source_of("run=demo") == source_of("demo") == Path("runs/demo")
    assert source_of("run=runs/demo") == Path("runs/demo")
    with pytest.raises(ValueError, match="other: expected a run directory or a labelled set, found nothing"):
        source_of("run=other")


def test_more_shards_are_made_of_more_pictures(run, monkeypatch):
    monkeypatch.setattr(module, "PICTURES_PER_SHARD", 5)
    export(run, Form("train-shards"))
    sizes = json.loads((run / "export" / "train-shards" / "sizes.json").read_text())
    assert len(sizes) == int(np.ceil(len(kept(run)) / 5))


def test_attributes_that_share_a_name_with_a_rule_are_refused(run):
    plan = pq.read_table(RunDir(run).plan)
    names = [name if name != "smile" else "own_identity" for name in plan.column_names]
    pq.write_table(plan.rename_columns(names), RunDir(run).plan, row_group_size=len(plan) // 2)
    with pytest.raises(ValueError, match=r"of other names than the ledger's columns, found \['own_identity'\]"):
        export(run, Form("hf"))
