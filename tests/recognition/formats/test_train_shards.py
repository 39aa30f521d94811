"""Training shards: everybody in every shard, alike in size, read by WebDataset as its users read theirs."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.formats import decode_crop, open_set, write_train_shards
from recognition.formats.train_shards import dealt
from tests.recognition.formats.making import contents, people, sets


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=12), shards=st.integers(1, 9), seed=st.integers(0, 2**40)
)
@settings(max_examples=100, deadline=None)
def test_shards_are_alike_in_size_and_in_how_much_of_each_person_they_hold(counts, shards, seed):
    ids = np.repeat(np.arange(len(counts)) * 7, counts)
    shards = min(shards, len(ids))
    rows = dealt(ids, shards, seed)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(ids)))
    sizes = [len(mine) for mine in rows]
    assert max(sizes) - min(sizes) <= 1
    for person in np.unique(ids):
        each = [int((ids[mine] == person).sum()) for mine in rows]
        assert max(each) - min(each) <= 1


def test_neighbours_in_a_shard_are_seldom_of_one_person():
    ids = np.repeat(np.arange(50), 20)
    (rows,) = dealt(ids, 1, seed=0)
    together = (ids[rows][1:] == ids[rows][:-1]).mean()
    assert together < 0.06  # 19 of 999 by chance
    assert not np.array_equal(rows, dealt(ids, 1, seed=1)[0])


def test_webdataset_reads_classes_from_0_and_knows_from_sizes_json_how_many_there_are(tmp_path):
    source = people({900: 5, 12: 4})
    write_train_shards(tmp_path, source, 4, seed=3)
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    assert sizes == {"000000.tar": 3, "000001.tar": 2, "000002.tar": 2, "000003.tar": 2}
    loader = webdataset.WebDataset(str(tmp_path / "{000000..000003}.tar"), shardshuffle=False)
    read = list(loader.decode("pil").to_tuple("__key__", "jpg", "cls", "json"))
    assert len(read) == sum(sizes.values())
    assert Counter(label for _, _, label, _ in read) == {0: 4, 1: 5}
    assert {(label, about["identity_id"]) for _, _, label, about in read} == {(0, 12), (1, 900)}
    of_key = {sample.key: sample for sample in source}
    for key, image, _, about in read:
        np.testing.assert_array_equal(np.asarray(image), decode_crop(of_key[key]))
        assert about["seed"] == of_key[key].about["seed"]


@given(source=sets, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_set_comes_back_with_its_bytes_in_another_order(source, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_train_shards(folder, source, max(1, len(source) // 3), seed)
    expected = zip(source.labels.tolist(), (sample.jpeg for sample in source), strict=True)
    assert sorted(contents(open_set(folder))) == sorted(expected)


def test_the_same_set_and_seed_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        write_train_shards(tmp_path / name, people({1: 6, 2: 3}), 2, seed)
    read = [[path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"]
    assert read[0] == read[1] != read[2]


@pytest.mark.parametrize("shards", [0, 4])
def test_a_shard_has_a_picture(tmp_path, shards):
    with pytest.raises(ValueError, match=f"shards: expected 1 to 3, a picture each at least, got {shards}"):
        write_train_shards(tmp_path, people({1: 3}), shards)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"000000.tar": 2, "000001.tar": 2}', "000000.tar with 3, found 2"),
        ('{"000000.tar": 3}', "000001.tar with 2, found None"),
        ('{"000000.tar": 3, "000001.tar": 2, "000002.tar": 2}', "000002.tar with 0, found 2"),
        ("[]", "000000.tar with 3, found None"),
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
    ],
)
def test_sizes_that_lie_are_refused(tmp_path, text, fault):
    write_train_shards(tmp_path, people({1: 3, 2: 2}), 2)
    (tmp_path / "sizes.json").write_text(text)
    with pytest.raises(ValueError, match=rf"sizes\.json: .*{fault}"):
        open_set(tmp_path)
