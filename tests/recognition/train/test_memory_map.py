"""A set decoded once: whole or not there, of its source and no other, with room on the disk or not begun."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from recognition import decoding
from recognition.formats.sample import LabelledSet, Sample, decode_crop
from recognition.train import memory_map
from recognition.train.memory_map import CROPS, INDEX, decoded, opened
from tests.recognition.train.conftest import faces


def encoded(crop: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=90)
    return file.getvalue()


def samples_of(people: int, each: int, seed: int = 0) -> list[Sample]:
    """Of identities 10, 20, 30 ..."""
    images, labels = faces(people, each, seed)
    told = zip(images, labels, strict=True)
    return [Sample(f"p{row:03d}", encoded(crop), 10 * (int(y) + 1), {"row": row}) for row, (crop, y) in enumerate(told)]


@pytest.fixture(scope="module")
def samples():
    return samples_of(3, 7)


@pytest.fixture(scope="module")
def source(samples):
    return LabelledSet.of(samples)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_map_holds_what_the_decoder_gives(samples, source, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(memory_map, "_PIECE", 4)
    done = []
    mapped = decoded(source, tmp_path, workers, done.append)
    assert done[-1] == 21
    for crop, sample in zip(mapped.images, samples, strict=True):
        np.testing.assert_array_equal(crop, decode_crop(sample))
    assert mapped.labels.tolist() == [row % 3 for row in range(21)]
    assert mapped.keys == source.keys
    assert sorted(path.name for path in tmp_path.iterdir()) == [CROPS, INDEX]
    assert (tmp_path / CROPS).stat().st_size == 21 * 37_632


def test_an_unchanged_source_is_not_decoded_again(source, tmp_path):
    decoded(source, tmp_path, 1)
    before = (tmp_path / CROPS).stat().st_mtime_ns
    again = decoded(source, tmp_path, 1)
    assert (tmp_path / CROPS).stat().st_mtime_ns == before
    assert again.identity_ids.tolist() == source.identity_ids.tolist()


def test_another_source_replaces_it(source, tmp_path):
    decoded(source, tmp_path, 1)
    other = LabelledSet.of(samples_of(3, 7, seed=1))
    assert decoded(other, tmp_path, 1).sha256 == other.sha256 != source.sha256
    np.testing.assert_array_equal(opened(tmp_path).images[0], decode_crop(next(iter(other))))


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("moment", ["decoding", "replace", "index"])
def test_what_a_crash_leaves_is_made_again(source, tmp_path, monkeypatch, moment):
    def power_cut(*_):
        raise PowerCutError

    with monkeypatch.context() as patch:
        if moment == "decoding":
            patch.setattr(memory_map, "decode_into", power_cut)
        elif moment == "replace":
            patch.setattr(os, "replace", power_cut)
        else:
            patch.setattr(memory_map, "whole_file", power_cut)
        with pytest.raises(PowerCutError):
            decoded(source, tmp_path, 1)
    assert opened(tmp_path) is None
    assert (decoded(source, tmp_path, 1).images[5] == decode_crop(list(source)[5])).all()


def test_crops_that_are_cut_off_or_an_index_that_is_damaged_count_as_none(source, tmp_path):
    decoded(source, tmp_path, 1)
    whole = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(whole[:50])
    assert opened(tmp_path) is None
    (tmp_path / INDEX).write_bytes(whole)
    os.truncate(tmp_path / CROPS, 37_632)
    assert opened(tmp_path) is None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_picture_names_its_key_and_leaves_nothing(samples, tmp_path, workers):
    broken = LabelledSet.of([*samples[:4], Sample("bad", samples[4].jpeg[:200], 10, {}), *samples[5:]])
    with pytest.raises(ValueError, match="picture bad: "):
        decoded(broken, tmp_path, workers)
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_said_with_both_numbers_before_anything_is_decoded(source, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_map.shutil, "disk_usage", lambda folder: Usage)
    monkeypatch.setattr(memory_map, "decode_into", None)
    with pytest.raises(ValueError, match=r"expected 0.0 GB free for 21 decoded pictures of 37.6 kB each, found 0.0 GB"):
        decoded(source, tmp_path / "crops", 1)


class Usage:
    free = 1000


def test_some_of_the_crops_have_people_numbered_anew(source, tmp_path):
    mapped = decoded(source, tmp_path, 1)
    rows = np.array([1, 2, 4, 5])  # of identities 20 and 30
    pictures = mapped.pictures(rows)
    assert pictures.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(pictures.read(np.array([2])), mapped.images[4:5])


def test_the_index_is_plain_json_with_keys_and_people(source, tmp_path):
    decoded(source, tmp_path, 1)
    told = json.loads((tmp_path / INDEX).read_text())
    assert (told["keys"][20], told["identity_ids"][20], told["sha256"]) == ("p020", 30, source.sha256)


def test_no_workers_at_all_are_refused():
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        decoding.Workers(0)
