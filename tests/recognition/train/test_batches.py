"""Who is in which batch: every picture once, or exactly P people with K pictures each."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.train import Pictures
from recognition.train.batches import Share, epoch_order, pk_order, steps_of
from tests.recognition.train.conftest import RECIPE, faces

PK = replace(RECIPE, batches="pk", batch_size=6, pictures_per_person=2)
COUNTS = st.lists(st.integers(1, 9), min_size=3, max_size=12)


def labels_of(counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own():
    labels = labels_of([4] * 8)
    first, second = (epoch_order(labels, RECIPE, epoch) for epoch in (0, 1))
    assert sorted(first.ravel()) == sorted(second.ravel()) == list(range(32))
    assert (first != second).any()
    assert (first == epoch_order(labels, RECIPE, 0)).all()
    assert (first != epoch_order(labels, replace(RECIPE, seed=1), 0)).any()


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_processes_and_micro_batches_share_a_batch_exactly(ranks, accumulate):
    batch = np.random.default_rng(0).permutation(100)[:16]
    parts = [Share(rank, ranks, accumulate).rows(batch, micro) for rank in range(ranks) for micro in range(accumulate)]
    assert {len(part) for part in parts} == {16 // (ranks * accumulate)}
    assert sorted(np.concatenate(parts)) == sorted(batch)


def test_two_processes_take_the_micro_batches_of_one():
    batch = np.arange(16)
    one = Share(accumulate=2)
    for unit in (0, 1):
        assert (Share(rank=unit, ranks=2).rows(batch, 0) == one.rows(batch, unit)).all()


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match=r"expected a multiple of 3 processes x 2 micro-batches, got 16"):
        Share(0, 3, 2).check(RECIPE, 100)
    with pytest.raises(ValueError, match=r"expected a multiple of 3 processes x 1 micro-batches, got 16"):
        Share(0, 3, 1).check(replace(RECIPE, batches="pk"), 10)  # whose batches never shrink


def test_a_set_smaller_than_a_batch_is_shared_out_as_far_as_it_goes():
    Share(0, 3, 1).check(RECIPE, 10)


def test_a_single_picture_is_no_batch_to_normalise_by():
    with pytest.raises(ValueError, match=r"at least 2 pictures for each of 8 processes x 1 micro-batches, got 8 of 15"):
        Share(0, 8, 1).check(RECIPE, 15)
    Share(0, 8, 1).check(RECIPE, 16)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(0, 3))
def test_every_batch_has_p_people_and_k_pictures_of_each(counts, epoch):
    labels = labels_of(counts)
    order, report = pk_order(labels, PK, epoch)
    people = labels[order].reshape(len(order), 3, 2)
    assert (people == people[:, :, :1]).all()
    assert all(len(set(row)) == 3 for row in people[:, :, 0])
    assert report.short == sum(count < 2 for count in counts)
    groups = sum(-(-count // 2) for count in counts)
    assert len(order) * 3 + report.left_out == groups
    assert len(order) <= steps_of(labels, PK)


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_no_picture_repeats_before_all_of_that_person_were_there(counts):
    labels = labels_of(counts)
    shown = pk_order(labels, PK, 0)[0].ravel()
    for person, count in enumerate(counts):
        own = shown[labels[shown] == person]
        assert len(set(own[:count])) == len(own[:count])
        if count >= 2:
            assert all(len(set(group)) == 2 for group in own.reshape(-1, 2))


def test_equal_people_are_all_shown_and_batches_differ_by_seed_and_epoch():
    labels = labels_of([4] * 6)
    order, report = pk_order(labels, PK, 0)
    assert sorted(order.ravel()) == list(range(24))
    assert (report.short, report.left_out) == (0, 0)
    assert (order != pk_order(labels, PK, 1)[0]).any()
    assert (order == pk_order(labels, PK, 0)[0]).all()


def test_people_of_too_few_pictures_are_told_or_refused():
    counts = [4, 4, 1, 1]
    pictures = Pictures(faces(1, 10)[0], labels_of(counts))
    assert pictures.notes(PK) == [
        "batches: 2 of 4 people have fewer pictures than a batch shows of a person: some repeat"
    ]
    with pytest.raises(ValueError, match="expected at least 2 pictures of everybody, got fewer of 2 people"):
        pk_order(labels_of(counts), replace(PK, few_pictures="refuse"), 0)


def test_fewer_people_than_a_batch_shows_are_refused():
    with pytest.raises(ValueError, match="expected at least 3 people for batches of 3 x 2 pictures, got 2"):
        pk_order(labels_of([5, 5]), PK, 0)
