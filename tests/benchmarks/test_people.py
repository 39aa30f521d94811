"""The sidecar of a `.bin`: who is on its pictures."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.bins import write_bin
from benchmarks.people import (
    FORMAT,
    check_labels,
    numbered,
    people_path,
    read_people,
    shared_between_folds,
    write_people,
)

SAME = np.array([True, False, False])
PEOPLE = ["ann", "ann", "bea", "cy", "cy", "ann"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lfw.bin"
    write_bin(path, [b"a picture of %d" % i for i in range(6)], SAME)
    return path


def test_people_come_back_as_numbers_in_the_order_of_the_pictures(path):
    write_people(path, PEOPLE)
    assert people_path(path).name == "lfw.people.json"
    np.testing.assert_array_equal(read_people(path, SAME), [0, 0, 1, 2, 2, 0])
    assert sorted(each.name for each in path.parent.iterdir()) == ["lfw.bin", "lfw.people.json"]


def test_a_set_without_a_sidecar_has_no_people(path):
    assert read_people(path, SAME) is None


def test_people_of_another_file_are_refused_naming_both(path):
    write_people(path, PEOPLE)
    write_bin(path, [b"another %d" % i for i in range(6)], SAME)
    with pytest.raises(ValueError, match=r"lfw\.people\.json: expected the people of [0-9a-f]{64}, got those of"):
        read_people(path, SAME)


def test_people_that_contradict_a_label_are_refused_naming_the_pair(path):
    write_people(path, ["ann", "ann", "bea", "bea", "cy", "ann"])
    with pytest.raises(ValueError, match="1 pairs that do not, the first of them pair 1, labelled as two people"):
        read_people(path, SAME)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda said: said[:20], "expected JSON"),
        (lambda said: "", "expected JSON"),
        (lambda said: "[" * 100_000, "expected JSON"),
        (lambda said: "[]", "expected an object of format"),
        (lambda said: said.replace(FORMAT, "other"), "expected an object of format"),
        (lambda said: said.replace('"ann", "ann", ', '"ann", '), "expected 6 people, one per picture, got 5"),
        (lambda said: said.replace('"bea"', "7"), "as whole numbers, or as words, got int, str"),
        (lambda said: said.replace('"bea"', "[1]"), "as whole numbers, or as words, got list, str"),
        (lambda said: said.replace('"bea"', "NaN"), "as whole numbers, or as words, got float, str"),
    ],
)
def test_a_damaged_sidecar_is_named_with_its_fault(path, change, fault):
    write_people(path, PEOPLE)
    people_path(path).write_text(change(people_path(path).read_text()))
    with pytest.raises(ValueError, match=rf"lfw\.people\.json: .*{fault}"):
        read_people(path, SAME)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_raise_nothing_but_a_value_error_that_names_the_file(path, data):
    write_people(path, PEOPLE)
    content = bytearray(people_path(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    people_path(path).write_bytes(content)
    try:
        people = read_people(path, SAME)
    except ValueError as fault:
        assert "lfw.people.json" in str(fault)  # noqa: PT017
    else:
        assert len(people) == 6


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_fault_while_writing_leaves_the_old_people(path, step, monkeypatch):
    write_people(path, PEOPLE)
    before = people_path(path).read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_people(path, [1, 1, 2, 3, 3, 1])
    assert people_path(path).read_bytes() == before
    assert json.loads(before)["person"] == PEOPLE


def test_numbers_and_words_are_not_mixed(path):
    with pytest.raises(ValueError, match="as whole numbers, or as words, got int, str"):
        write_people(path, [1, 1, "bea", 3, 3, 1])


def test_people_in_more_than_one_fold_are_counted_once_each():
    people = np.array([[0, 0], [1, 2], [0, 3], [2, 2], [2, 4]])
    assert shared_between_folds(people, np.array([0, 0, 0, 1, 2])) == 1  # 2 is in all three
    assert shared_between_folds(people, np.array([0, 0, 1, 1, 1])) == 2
    assert shared_between_folds(people, np.zeros(5, np.int64)) == 0


def test_names_are_numbered_as_they_occur_and_labels_are_checked():
    np.testing.assert_array_equal(numbered(["x", "y", "x"]), [0, 1, 0])
    check_labels("here", np.array([[0, 0], [0, 1]]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"here: .* pair 0, labelled as one person"):
        check_labels("here", np.array([[0, 1], [0, 1]]), np.array([True, False]))
