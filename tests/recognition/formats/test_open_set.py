"""Which format a path is, and what every opened set can do; shards as a set."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.formats import (
    LabelledSet,
    Sample,
    open_set,
    read_shards,
    write_dataset,
    write_folder,
    write_records,
    write_shard,
    write_train_shards,
)
from tests.recognition.formats.making import contents, damaged, people, picture, same_people_or_refused


def write_run(folder: Path, source: LabelledSet) -> None:
    (folder / "shards").mkdir()
    (folder / "ledger").mkdir()
    (folder / "plan.parquet").write_bytes(b"")
    samples = list(source)
    write_shard(folder / "shards" / "000000.tar", samples[:2])
    write_shard(folder / "shards" / "000001.tar", samples[2:])


WRITERS = {
    "run": write_run,
    "shards": lambda folder, source: write_shard(folder / "a.tar", source),
    "train-shards": lambda folder, source: write_train_shards(folder, source, 2),
    "recordio": write_records,
    "folder": write_folder,
    "huggingface": lambda folder, source: write_dataset(folder, source, "a set"),
}
KINDS = {**dict.fromkeys(WRITERS), "run": "shards", "train-shards": "shards"}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_format_is_recognised_by_what_is_there(tmp_path, kind):
    source = people({4: 3, 2: 2})
    WRITERS[kind](tmp_path, source)
    opened = open_set(tmp_path)
    assert opened.kind == (KINDS[kind] or kind)
    assert opened.place.startswith(str(tmp_path))
    assert (len(opened), len(opened.classes)) == (5, 2)
    assert sorted(jpeg for _, jpeg in contents(opened)) == sorted(sample.jpeg for sample in source)
    assert [sample.key for sample in opened] == list(opened.keys)
    assert [sample.identity_id for sample in opened] == opened.identity_ids.tolist()
    assert list(opened.read([4, 1])) == [list(opened)[4], list(opened)[1]]
    assert opened.left_out == ()
    assert contents(pickle.loads(pickle.dumps(opened))) == contents(opened)  # noqa: S301  to a loader's worker and back


@pytest.mark.parametrize("name", ["a.tar", "train.rec"])
def test_a_file_is_recognised_by_its_ending(tmp_path, name):
    WRITERS["shards" if name == "a.tar" else "recordio"](tmp_path, people({4: 2}))
    assert len(open_set(str(tmp_path / name))) == 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "found none of these"),
        (["notes.txt"], "found none of these"),
        (["Abel/notes.txt"], "found none of these"),
        (["a.tar", "train.rec"], r"found tars \(a.tar\) and train.rec"),
        (["a.rec", "b.rec"], "found a.rec and b.rec"),
        (["a.tar", "Abel/a.jpg"], r"found tars \(a.tar\) and a subfolder with pictures \(Abel\)"),
        (["data/a.parquet", "train.rec"], "found train.rec and Parquet files"),
    ],
)
def test_a_folder_of_nothing_or_of_two_things_is_refused(tmp_path, content, found):
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a run directory or a folder of tars, .*{found}"):
        open_set(tmp_path)


def test_nothing_and_another_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found nothing"):
        open_set(tmp_path / "gone")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="found another file"):
        open_set(tmp_path / "a.zip")


def test_a_run_that_was_killed_is_no_set(tmp_path):
    write_run(tmp_path, people({4: 3}))
    (tmp_path / "shards" / "000002.tar.part").write_bytes(b"")
    with pytest.raises(ValueError, match=r"shards: expected finished shards, found 000002\.tar\.part"):
        open_set(tmp_path)


def test_what_else_lies_beside_shards_is_told_of(tmp_path):
    write_shard(tmp_path / "a.tar", people({4: 3}))
    for name in ("notes.txt", ".DS_Store", "export.json"):
        (tmp_path / name).write_bytes(b"")
    assert open_set(tmp_path).left_out == (".DS_Store", "notes.txt")


def test_a_key_in_two_shards_is_refused(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, people({4: 1}))
    with pytest.raises(ValueError, match=f"{tmp_path}: expected each key once, found '000004_000' twice"):
        open_set(tmp_path)


def test_labels_are_places_among_the_identities(tmp_path):
    source = people({900: 1, 7: 1, 12: 2})
    assert source.identity_ids.tolist() == [900, 7, 12, 12]
    assert source.classes.tolist() == [7, 12, 900]
    assert source.labels.tolist() == [2, 0, 1, 1]
    assert source.labels.dtype == np.int64


def test_the_hash_of_a_set_is_that_of_keys_people_and_bytes_wherever_it_lies(tmp_path):
    source = people({4: 2, 9: 1})
    for name in ("shards", "huggingface"):
        (tmp_path / name).mkdir()
        WRITERS[name](tmp_path / name, source)
        assert open_set(tmp_path / name).sha256 == source.sha256
    samples = list(source)
    others = [
        [samples[1], samples[0], samples[2]],
        [*samples[:2], Sample(samples[2].key, samples[2].jpeg + b"1", 4, {})],
        [*samples[:2], Sample(samples[2].key, samples[2].jpeg, 5, {})],
        [*samples[:2], Sample("other", samples[2].jpeg, samples[2].identity_id, {})],
        samples[:2],
    ]
    assert len({source.sha256, *(LabelledSet.of(other).sha256 for other in others)}) == 6


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        ([], "memory: expected at least 1 picture, found 0"),
        ([Sample("a", b"", 1, {}), Sample("a", b"", 1, {})], "memory: expected each key once, found 'a' twice"),
        ([Sample("a", b"", -1, {})], "memory: expected an identity of at least 0"),
    ],
)
def test_a_set_has_pictures_keys_and_people(samples, fault):
    with pytest.raises(ValueError, match=fault):
        LabelledSet.of(samples)


def test_a_picture_that_has_gone_since_is_not_passed_over(tmp_path):
    write_shard(tmp_path / "a.tar", people({4: 2}))
    opened = open_set(tmp_path)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.tar: expected [0-9]+ bytes at byte 512, found 488"):
        list(opened)


# --- tars of strangers -----------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_tar_is_refused_or_names_and_people_are_as_they_were(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    write_shard(path, [Sample(f"k{k}", b"\xff\xd8\xff" + bytes([k]) * 9, 7 * k, {}) for k in range(3)])
    before = contents(open_set(path))
    raw = path.read_bytes()
    end = 9 * 1024 + 1024  # nine members and the two zero blocks; what follows is padding
    path.write_bytes(damaged(raw[:end], data, ends=2048) + raw[end : data.draw(st.sampled_from([end, len(raw)]))])
    same_people_or_refused(lambda: open_set(path), before, path, guarded=False)  # nothing guards what .cls says


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path, kind):
    header = tarfile.TarInfo("a.jpg")
    header.type, header.size = kind, 2**33 - 1
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(2048))
    for read in (lambda: open_set(tmp_path), lambda: list(read_shards([tmp_path / "a.tar"]))):
        with pytest.raises(ValueError, match=r"a\.tar: expected a whole tar: a header claims"):
            read()


def test_tars_as_webdataset_itself_writes_them_are_read(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", "jpg": picture(), "cls": 7, "json": {"x": 1}})
    (sample,) = open_set(tmp_path)
    assert sample == Sample("a", picture(), 7, {"x": 1})
