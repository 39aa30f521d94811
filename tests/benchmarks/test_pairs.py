"""LFW's list of pairs."""

from __future__ import annotations

import pytest

from benchmarks.pairs import Pair, read_pairs

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
