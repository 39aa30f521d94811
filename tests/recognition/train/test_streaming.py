"""A set that is read again in every epoch: each picture once, the same for the same seed, shared out exactly."""

from dataclasses import replace

import numpy as np
import pytest

from recognition.formats.sample import LabelledSet, Sample, decode_crop
from recognition.train import train
from recognition.train.batches import Share
from recognition.train.streaming import Stream, mixed
from tests.recognition.train.conftest import RECIPE
from tests.recognition.train.test_memory_map import samples_of

SMALL = {"buffer": 8, "block": 5, "workers": 1}


@pytest.fixture(scope="module")
def samples():
    return samples_of(4, 12)


@pytest.fixture(scope="module")
def stream(samples):
    return Stream(LabelledSet.of(samples), **SMALL)


def crops_of(units):
    return [crop.tobytes() for images, _ in units for crop in images]


def test_every_picture_comes_once_with_its_label(samples, stream):
    known = {decode_crop(sample).tobytes(): sample.identity_id // 10 - 1 for sample in samples}
    seen = {}
    for images, labels in stream.epoch(RECIPE, 0, Share()).units(0):
        assert images.shape == (16, 112, 112, 3)
        seen |= {crop.tobytes(): label for crop, label in zip(images, labels, strict=True)}
    assert seen == known


def test_an_epoch_repeats_and_the_next_one_is_another(stream):
    first, again, second = (crops_of(stream.epoch(RECIPE, n, Share()).units(0)) for n in (0, 0, 1))
    assert first == again
    assert first != second
    assert sorted(first) == sorted(second)


def test_two_processes_see_every_picture_once_between_them(samples, stream):
    parts = [crops_of(stream.epoch(RECIPE, 0, Share(rank, 2)).units(0)) for rank in (0, 1)]
    assert [len(part) for part in parts] == [24, 24]
    assert sorted(parts[0] + parts[1]) == sorted(decode_crop(sample).tobytes() for sample in samples)


def test_the_rest_that_fills_no_batch_is_left_out_alike_by_all(stream):
    recipe = replace(RECIPE, batch_size=20)
    parts = [crops_of(stream.epoch(recipe, 0, Share(rank, 2)).units(0)) for rank in (0, 1)]
    assert [len(part) for part in parts] == [20, 20]
    assert len(set(parts[0] + parts[1])) == 40


def test_an_epoch_goes_on_in_the_middle(stream):
    whole = crops_of(stream.epoch(RECIPE, 0, Share(accumulate=2)).units(0))
    assert crops_of(stream.epoch(RECIPE, 0, Share(accumulate=2)).units(2)) == whole[32:]


def test_pictures_of_a_block_are_spread(samples):
    blocks = Stream(LabelledSet.of(samples), buffer=24, block=24, workers=1)
    order = blocks.order(0, 0).tolist()
    keys = [sample.key for sample in mixed(blocks.source.read(order), 24, np.random.default_rng(0))]
    assert keys != [samples[row].key for row in order]
    assert sorted(keys) == [sample.key for sample in samples]


def test_worker_processes_decode_to_the_same_training(samples, stream, tmp_path):
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0.0)
    other = Stream(LabelledSet.of(samples), **SMALL | {"workers": 2})
    two = train(other, recipe, tmp_path / "two")
    other.close()
    assert train(stream, recipe, tmp_path / "one").weights_sha256 == two.weights_sha256


def test_a_broken_picture_names_its_key_where_it_comes(samples, tmp_path):
    broken = [*samples[:-1], Sample("bad", samples[-1].jpeg[:300], 40, {})]
    with pytest.raises(ValueError, match="picture bad: "):
        train(Stream(LabelledSet.of(broken), **SMALL), RECIPE, tmp_path)


def test_a_stream_cannot_choose_its_pictures(stream, tmp_path):
    with pytest.raises(ValueError, match="expected shuffled, as a stream cannot choose"):
        train(stream, replace(RECIPE, batches="pk"), tmp_path)
    with pytest.raises(ValueError, match="buffer: expected at least 1, got 0"):
        Stream(stream.source, buffer=0)
