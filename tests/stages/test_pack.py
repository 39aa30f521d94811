import errno
import hashlib
import json
import os
import tarfile

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from recognition.formats.shards import load_training_set
from stages import pack
from stages.ledger import damaged_chunks, finished_chunks, read_ledger, read_part_metadata
from stages.pack import Pack, encode_jpeg
from tests.stages.cast import person, photographs_of, verdicts_of

REASONS = ["", "own_identity", "", ""]


def verdicts(index=30, reasons=REASONS):
    return verdicts_of(photographs_of([person(2), person(3)], 2, index), reasons)


def packer(folder):
    return Pack(folder / "shards", folder / "ledger", made_from="fingerprint")


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_the_survivors_are_in_the_tar_and_every_row_is_in_the_ledger(tmp_path):
    summary = packer(tmp_path)(verdicts())
    assert summary == {"chunk": 30, "rows": 4, "kept": 3, "reasons": {"own_identity": 1}}
    kept = ("000002_000", "000003_000", "000003_001")
    assert sorted(members(tmp_path / "shards/000030.tar")) == sorted(
        f"{key}.{kind}" for key in kept for kind in ("cls", "jpg", "json")
    )
    rows = read_ledger(tmp_path / "ledger")
    assert rows["key"].to_pylist() == ["000002_000", "000002_001", "000003_000", "000003_001"]
    assert rows["reason"].to_pylist() == REASONS
    assert rows["kept"].to_pylist() == [True, False, True, True]


def test_a_sample_says_who_it_is_and_what_was_asked_for(tmp_path):
    made = verdicts()
    packer(tmp_path)(made)
    sample = members(tmp_path / "shards/000030.tar")
    about = json.loads(sample["000003_001.json"])
    assert sample["000003_001.cls"] == b"3"
    assert (about["identity_id"], about["seed"], about["attributes"]) == (3, 3001, {"yaw_deg": 1.0})
    assert np.array_equal(np.array(about["landmarks"], dtype=np.float32), made.faces.landmarks[3])


def test_the_picture_in_the_tar_is_rgb():
    red = np.zeros((112, 112, 3), dtype=np.uint8)
    red[..., 0] = 255
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(red, 95), np.uint8), cv2.IMREAD_COLOR)  # BGR
    assert decoded[56, 56, 2] > 250
    assert decoded[56, 56, 0] < 5


def test_webdataset_reads_the_shard(tmp_path):
    packer(tmp_path)(verdicts())
    samples = list(webdataset.WebDataset(str(tmp_path / "shards/000030.tar"), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ["000002_000", "000003_000", "000003_001"]
    assert [sample["cls"] for sample in samples] == [2, 3, 3]
    assert all(sample["jpg"].shape == (112, 112, 3) for sample in samples)


def test_training_reads_the_shard_back_with_the_persons_as_classes(tmp_path):
    made = verdicts()
    packer(tmp_path)(made)
    learnt = load_training_set([tmp_path / "shards/000030.tar"])
    assert learnt.identity_ids.tolist() == [2, 3]
    assert learnt.labels.tolist() == [0, 1, 1]
    assert learnt.keys == ("000002_000", "000003_000", "000003_001")


def test_the_ledger_part_vouches_for_the_tar(tmp_path):
    packer(tmp_path)(verdicts())
    metadata = read_part_metadata(tmp_path / "ledger/000030.parquet")
    sha256 = hashlib.sha256((tmp_path / "shards/000030.tar").read_bytes()).hexdigest()
    assert metadata == {"shard": "000030.tar", "tar_sha256": sha256, "made_from": "fingerprint"}


def test_a_shard_that_was_damaged_or_lost_later_is_named(tmp_path):
    for chunk in (1, 2, 3):
        packer(tmp_path)(verdicts(chunk))
    assert damaged_chunks(tmp_path / "ledger", tmp_path / "shards") == []
    (tmp_path / "shards/000001.tar").unlink()
    with (tmp_path / "shards/000003.tar").open("r+b") as tar:
        tar.seek(700)
        tar.write(b"x")
    assert damaged_chunks(tmp_path / "ledger", tmp_path / "shards") == [1, 3]


def test_the_same_chunk_gives_the_same_bytes_at_any_time_and_place(tmp_path, monkeypatch):
    packer(tmp_path / "a")(verdicts())
    monkeypatch.setattr("time.time", lambda: 1e9)
    packer(tmp_path / "b")(verdicts())
    for name in ("shards/000030.tar", "ledger/000030.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_chunk_of_which_nothing_is_kept_is_an_empty_shard_and_a_full_ledger_part(tmp_path):
    assert packer(tmp_path)(verdicts(reasons=["face_found"] * 4))["kept"] == 0
    assert members(tmp_path / "shards/000030.tar") == {}
    assert len(read_ledger(tmp_path / "ledger")) == 4


# The steps of pack's writing, in order, each with what it calls and the number of that call.
STEPS = {
    "open the tar": (pack, "write_shard", 1),
    "write the tar": (tarfile.TarFile, "addfile", 5),
    "fsync the tar": (os, "fsync", 1),
    "rename the tar": (os, "replace", 1),
    "fsync the folder of shards": (os, "fsync", 2),
    "write the ledger part": (pq, "write_table", 1),
    "fsync the ledger part": (os, "fsync", 3),
    "rename the ledger part": (os, "replace", 2),
}


def failing_at_call(function, number, error):
    calls = iter(range(1, 100))

    def wrapped(*args, **kwargs):
        if next(calls) == number:
            raise error
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [False, True], ids=["first time", "made again"])
def test_a_ledger_part_exists_only_if_its_shard_is_whole_wherever_writing_stops(tmp_path, monkeypatch, step, again):
    clean, run = packer(tmp_path / "clean"), packer(tmp_path / "run")
    clean(verdicts())
    module, name, number = STEPS[step]
    if again:  # another judge's chunk lies there; first of all the removal of its part is put on the disk
        run(verdicts(reasons=[""] * 4))
        number += name == "fsync"
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing_at_call(getattr(module, name), number, full))
        with pytest.raises(OSError, match="No space left on device"):
            run(verdicts())
    assert finished_chunks(tmp_path / "run/ledger") == set()
    run(verdicts())
    for path in ("shards/000030.tar", "ledger/000030.parquet"):
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "clean" / path).read_bytes()
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_part_that_is_there_has_a_tar_with_its_sha256_at_every_moment(tmp_path, monkeypatch):
    """Looks at the disk before every fsync and rename of two rounds, as a crash at that moment would leave it."""
    run, looks = packer(tmp_path), []

    def looking(function):
        def wrapped(*args, **kwargs):
            for chunk in finished_chunks(tmp_path / "ledger"):
                tar = (tmp_path / f"shards/{chunk:06d}.tar").read_bytes()
                said = read_part_metadata(tmp_path / f"ledger/{chunk:06d}.parquet")["tar_sha256"]
                looks.append(said == hashlib.sha256(tar).hexdigest())
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    for chunk in (29, 30, 30):
        run(verdicts(chunk))
    run(verdicts(30, reasons=["face_found"] * 4))
    assert len(looks) > 10
    assert all(looks)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("shards"))  # root may write anywhere
    with pytest.raises(ValueError, match=r"shards: expected a folder that can be written to, got .*shards"):
        packer(tmp_path)


def test_mistakes_name_value_and_expectation(tmp_path):
    with pytest.raises(ValueError, match="jpeg_quality: expected 1 to 100, got 0"):
        Pack(tmp_path, tmp_path, "x", jpeg_quality=0)
    with pytest.raises(ValueError, match="made_from"):
        Pack(tmp_path, tmp_path, "")
