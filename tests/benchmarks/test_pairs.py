"""Lists of pairs in the four layouts."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.pairs import Pair, interleaved, people_of, read_pairs

TWO_FOLDS = "2\t1\nAbel\t1\t4\nAbel\t1\tBea\t2\nCy\t3\t1\nCy\t12\tDee\t1\n"


def test_pairs_come_in_file_order_with_their_paths(tmp_path):
    (tmp_path / "pairs.txt").write_text(TWO_FOLDS)
    assert read_pairs(tmp_path / "pairs.txt") == [
        Pair("Abel/Abel_0001.jpg", "Abel/Abel_0004.jpg", True),
        Pair("Abel/Abel_0001.jpg", "Bea/Bea_0002.jpg", False),
        Pair("Cy/Cy_0003.jpg", "Cy/Cy_0001.jpg", True),
        Pair("Cy/Cy_0012.jpg", "Dee/Dee_0001.jpg", False),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected a list of 1 to"),
        ("ten\t300\n", "found none of these forms in line 1"),
        (TWO_FOLDS + "Eve\t1\t2\n", "expected 4 pairs after line 1, got 5"),
        (TWO_FOLDS.replace("Cy\t3\t1", "Cy\t3\tDee\t1"), "expected 'name, i, j' in line 4"),
        (TWO_FOLDS.replace("Bea\t2", "Bea\ttwo"), "or 'name, i, other name, j' between tabs or spaces in line 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, fault):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"pairs\.txt: .*{fault}"):
        read_pairs(tmp_path / "pairs.txt")


def written(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    return tmp_path / "list.txt"


def test_rfw_is_lfw_without_a_first_line(tmp_path):
    assert read_pairs(written(tmp_path, "m.01\t1\t2\nm.01\t3\tm.02\t1\n")) == [
        Pair("m.01/m.01_0001.jpg", "m.01/m.01_0002.jpg", True),
        Pair("m.01/m.01_0003.jpg", "m.02/m.02_0001.jpg", False),
    ]


def test_calfw_has_two_lines_for_a_pair_and_any_label_but_0_is_one_person(tmp_path):
    text = "Al_0001.jpg 3\nAl_0002.jpg 3\nAl_0001.jpg 0\nBo_0001.jpg 0\n"
    assert read_pairs(written(tmp_path, text)) == [
        Pair("Al_0001.jpg", "Al_0002.jpg", True),
        Pair("Al_0001.jpg", "Bo_0001.jpg", False),
    ]


def test_opensphere_has_the_label_first(tmp_path):
    text = "1 a/1.jpg a/2.jpg\n0 a/1.jpg b/1.jpg\n-1 b/1.jpg a/1.jpg\n"
    assert [pair.same for pair in read_pairs(written(tmp_path, text))] == [True, False, False]


def test_three_thousand_genuine_pairs_first_become_300_and_300_of_every_fold():
    pairs = [Pair(f"{i}", f"{i}", i < 3000) for i in range(6000)]
    ordered, changed = interleaved(pairs, 10)
    assert changed
    for f in range(10):
        block = ordered[600 * f : 600 * f + 600]
        assert [pair.first for pair in block] == [
            *(str(300 * f + i) for i in range(300)),
            *(str(3000 + 300 * f + i) for i in range(300)),
        ]


def test_a_list_that_is_interleaved_already_stays_as_it_is():
    pairs = [Pair("a", "b", i % 2 == 0) for i in range(20)]
    assert interleaved(pairs, 10) == (pairs, False)


@given(genuine=st.integers(1, 40), impostor=st.integers(1, 40), folds=st.integers(2, 5))
def test_interleaving_loses_no_pair_and_keeps_the_order_of_each_kind(genuine, impostor, folds):
    pairs = [Pair(str(i), str(i), i < genuine) for i in range(genuine + impostor)]
    ordered, _ = interleaved(pairs, folds)
    for same in (True, False):
        assert [p for p in ordered if p.same == same] == [p for p in pairs if p.same == same]


@pytest.mark.parametrize(
    ("pairs", "people", "by"),
    [
        ([("a/1.jpg", "a/2.jpg", True), ("a/1.jpg", "b/1.jpg", False)], [[0, 0], [0, 1]], "folder"),
        ([("Al_01.jpg", "Al_02.jpg", True), ("Al_01.jpg", "Bo_01.jpg", False)], [[0, 0], [0, 1]], "file name"),
        ([("x/Al_01.jpg", "x/Al_02.jpg", True), ("x/Al_01.jpg", "x/Bo_1.jpg", False)], [[0, 0], [0, 1]], "file name"),
    ],
)
def test_paths_tell_people_where_they_agree_with_every_label(pairs, people, by):
    found = people_of([Pair(*pair) for pair in pairs])
    np.testing.assert_array_equal(found[0], people)
    assert found[1] == by


@pytest.mark.parametrize(
    "pairs",
    [
        [("1.jpg", "2.jpg", True), ("1.jpg", "3.jpg", False)],  # names without people
        [("a/1.jpg", "a/2.jpg", True), ("a/1.jpg", "a/3.jpg", False)],  # a folder of several people
        [("a/1.jpg", "b/2.jpg", True), ("a/1.jpg", "c/3.jpg", False)],  # one person in two folders
        [("1/1.jpg", "2/2.jpg", False), ("3/1.jpg", "4/3.jpg", False)],  # a folder per picture
    ],
)
def test_paths_that_do_not_tell_people_are_not_believed(pairs):
    assert people_of([Pair(*pair) for pair in pairs]) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("one two three four five\n", "found none of these forms"),
        ("\n\n", "expected pairs, got blank lines"),
        ("a.jpg 1\nb.jpg 0\n", "both or neither of lines 1 and 2, a pair, labelled 0, got 1 and 0"),
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\n", "two lines for each pair, got 3 lines"),
        ("a.jpg 1\nb.jpg x\n", "expected 'picture label' in line 2"),
        ("1 a.jpg b.jpg\n2 a.jpg b.jpg\n", "in line 2"),
        ("1 ../../etc/passwd b.jpg\n", "a path below the pictures' folder in line 1"),
        ("1 /etc/passwd b.jpg\n", "a path below the pictures' folder in line 1"),
        ("m.01\t1\t2\nm.01\t3\n", "in line 2"),
        ("m.01\t1\t" + "9" * 5000 + "\n", "found none of these forms"),
        ("2\t" + "9" * 5000 + "\n", "found none of these forms"),
    ],
)
def test_a_wrong_line_of_any_kind_is_named(tmp_path, text, fault):
    with pytest.raises(ValueError, match=rf"list\.txt: .*{re.escape(fault)}"):
        read_pairs(written(tmp_path, text))


def test_a_kind_that_is_named_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match="'name, i, j' or 'name, i, other name, j'"):
        read_pairs(written(tmp_path, "1 a.jpg b.jpg\n"), "rfw")
    with pytest.raises(ValueError, match="kind: expected one of lfw, rfw, two_lines, label_first, got 'cfp'"):
        read_pairs(written(tmp_path, "1 a.jpg b.jpg\n"), "cfp")


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list\.txt: expected text in UTF-8"):
        read_pairs(tmp_path / "list.txt")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.lists(st.sampled_from(["a", "a.jpg", "1", "0", "-1", "2", "..", "/x", "", "é", "9" * 30]), max_size=5).map(
            lambda fields: "\t".join(fields)
        ),
        max_size=6,
    ),
    kind=st.sampled_from([None, "lfw", "rfw", "two_lines", "label_first"]),
)
def test_no_list_raises_anything_but_a_value_error_or_names_a_place_outside(tmp_path, lines, kind):
    path = written(tmp_path, "\n".join(lines))
    try:
        pairs = read_pairs(path, kind)
    except ValueError as fault:
        assert "list.txt" in str(fault)  # noqa: PT017
    else:
        assert pairs
        for pair in pairs:
            for photograph in pair[:2]:
                assert (tmp_path / photograph).resolve().is_relative_to(tmp_path.resolve())
