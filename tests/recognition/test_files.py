"""Whole or not at all: a fault at every step of every writer."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recognition.files import files_in, sha256_of, whole_file, whole_folder, whole_path
from recognition.formats import write_dataset, write_folder, write_records, write_train_shards
from tests.recognition.formats.making import people

WRITERS: dict[str, Callable[[Path], None]] = {
    "rec": lambda folder: write_records(folder, people({1: 2, 5: 1})),
    "folder": lambda folder: write_folder(folder, people({1: 2, 5: 1})),
    "hf": lambda folder: write_dataset(folder, people({1: 2, 5: 1}), "a set"),
    "train-shards": lambda folder: write_train_shards(folder, people({1: 2, 5: 1}), 2),
}
STEPS = ("open", "fsync", "replace", "rename", "unlink", "mkdir")


class Disk:
    """Counts what is asked of the disk, and fails at one of the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int = -1) -> None:
        self.calls, self.fails_at = 0, fails_at
        for name in STEPS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(io, "open", self.counted(io.open))

    def counted(self, call: Callable) -> Callable:
        def asked(*words, **more):
            self.calls += 1
            if self.calls - 1 == self.fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*words, **more)

        return asked


@pytest.mark.parametrize("kind", WRITERS)
def test_a_fault_at_any_step_leaves_nothing_that_looks_whole(tmp_path, kind):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        with whole_folder(tmp_path / "whole") as folder:
            WRITERS[kind](folder)
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*"))
    assert disk.calls > 4
    for step in range(disk.calls):
        place = tmp_path / f"step{step}"
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, fails_at=step)
            with pytest.raises(OSError, match="No space left"), whole_folder(place / "out") as folder:
                WRITERS[kind](folder)
        if (place / "out").exists():  # all was there, and only the last wait for the disk, open and fsync, failed
            assert sorted(path.relative_to(place / "out") for path in (place / "out").rglob("*")) == files
            assert step >= disk.calls - 2
        with whole_folder(place / "again") as folder:
            WRITERS[kind](folder)


def test_an_error_while_writing_leaves_neither_file_nor_folder(tmp_path):
    for place in (whole_file(tmp_path / "a"), whole_folder(tmp_path / "b")):
        with pytest.raises(KeyError, match="stop"), place:
            raise KeyError("stop")
    assert not list(tmp_path.iterdir())


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new folder" / "file"

    def begin() -> None:
        with whole_path(path) as part:
            part.write_bytes(b"half")
            raise KeyError("stop")

    for kept in (b"old", b"new"):
        with pytest.raises(KeyError, match="stop"):
            begin()
        assert not path.exists() or path.read_bytes() == b"old"
        with whole_file(path) as file:
            file.write(kept)
        assert path.read_bytes() == kept
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_the_files_of_a_folder_are_alike_before_and_after_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "a") as folder:
        (folder / "b").mkdir()
        for name in ("b/.unfinished", "b/c", "a"):
            (folder / name).touch()
        before = [path.relative_to(folder) for path in files_in(folder)]
    assert before == [path.relative_to(tmp_path / "a") for path in files_in(tmp_path / "a")]
    assert list(map(str, before)) == ["a", "b/.unfinished", "b/c"]


def test_a_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 500_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 500_000).hexdigest()


def test_what_a_killed_process_has_left_is_cleared_away_but_nothing_else(tmp_path):
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "precious").touch()
    with (
        pytest.raises(ValueError, match=r"a\.part: expected the unfinished folder of an earlier try"),
        whole_folder(tmp_path / "a"),
    ):
        pass
    (tmp_path / "a.part" / ".unfinished").touch()
    with whole_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_a_folder_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="a: expected no such folder yet"), whole_folder(tmp_path / "a"):
        pass
