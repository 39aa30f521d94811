"""Sets on disk: told by their form, never guessed; missing pictures are refused or counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.protocols import entry, measure
from benchmarks.sets import Opening, open_sets

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDS, EACH = 2, 3


def photograph(path, person, seed, side=112):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(person).integers(0, 255, 3)
    noise = np.random.default_rng(seed).integers(-30, 30, (side, side, 3))
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)


def pairs_of(fold):
    """Genuine and impostor pairs among people of a fold."""
    people = [f"P{fold}{i}" for i in range(EACH)]
    genuine = [(name, 1, name, 2) for name in people]
    return genuine + [(a, 1, b, 1) for a, b in zip(people, people[1:] + people[:1], strict=True)]


@pytest.fixture
def lfw(tmp_path):
    """LFW's layout with 2 folds of 3 and 3 pairs: `pairs.txt` and the crops beside it."""
    root = tmp_path / "lfw"
    lines = [f"{FOLDS}\t{EACH}"]
    for fold in range(FOLDS):
        for a, i, b, j in pairs_of(fold):
            lines.append(f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}")
            for name, k in ((a, i), (b, j)):
                photograph(root / name / f"{name}_{k:04d}.png", int(name[1:]), 7 * i + j)
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


def colour_of(crops):
    return crops.reshape(len(crops), -1, 3).mean(1) - 128.0


def test_a_list_of_pairs_is_a_protocol_with_people_and_its_own_folds(lfw):
    (protocol,) = open_sets(lfw / "pairs.txt")
    assert protocol.name == "pairs"
    assert (len(protocol.pictures), len(protocol.same)) == (12, 12)
    assert protocol.fold.tolist() == [0] * 6 + [1] * 6
    told = entry(measure(protocol, colour_of))
    assert told["people"] == {"known": True, "by": "folder", "count": 6, "in_several_folds": 0}
    assert told["coverage"] == 1.0
    assert len(told["folds"]) == 2
    assert open_sets(lfw)[0].about["sha256"] == protocol.about["sha256"]


def test_missing_pictures_are_refused_with_their_number_and_the_first_of_them(lfw):
    (lfw / "P00" / "P00_0002.png").unlink()
    (lfw / "P11" / "P11_0001.png").unlink()
    told = r"expected the 12 pictures of .*pairs\.txt, 2 are not there: P00/P00_0002\.jpg, P11/P11_0001\.jpg"
    with pytest.raises(ValueError, match=told):
        open_sets(lfw)


def test_missing_pictures_that_are_allowed_lower_the_coverage_and_leave_the_folds(lfw):
    (lfw / "P00" / "P00_0002.png").unlink()
    (lfw / "P11" / "P11_0001.png").unlink()
    (protocol,) = open_sets(lfw, Opening(allow_missing=True))
    assert protocol.coverage == 8 / 12  # a genuine pair of P00; three pairs of P11
    assert protocol.fold.tolist() == [0] * 5 + [1] * 3
    assert entry(measure(protocol, colour_of))["coverage"] == 8 / 12
    assert protocol.about["missing_pictures"] == 2


def test_a_fold_all_of_whose_pairs_are_missing_is_named(lfw):
    for person in {name for pair in pairs_of(1) for name in pair[::2]}:
        shutil.rmtree(lfw / person)
    with pytest.raises(ValueError, match=r"pairs\.txt: expected pairs in each of 2 folds, found none in fold 1"):
        open_sets(lfw, Opening(allow_missing=True))


def test_two_pictures_that_a_list_may_mean_are_not_chosen_from(lfw):
    photograph(lfw / "P00" / "P00_0001.jpeg", 1, 1)
    with pytest.raises(ValueError, match=r"P00_0001\.jpg: expected one picture .* P00_0001\.png, P00_0001\.jpeg"):
        open_sets(lfw)
    photograph(lfw / "P00" / "P00_0001.jpg", 1, 1)  # what the list says, to the letter
    assert open_sets(lfw)[0].pictures.sources[0].suffix == ".jpg"


def test_one_fold_is_none():
    with pytest.raises(ValueError, match="folds: expected at least 2, got 1"):
        Opening(folds=1)


def test_a_set_without_any_of_its_pictures_is_refused_even_so(lfw, tmp_path):
    with pytest.raises(ValueError, match="not one pair has both of them there"):
        open_sets(lfw / "pairs.txt", Opening(images=tmp_path, allow_missing=True))


def test_pictures_that_were_not_aligned_are_refused_instead_of_resized(lfw):
    photograph(lfw / "P00" / "P00_0001.png", 1, 1, side=250)
    (protocol,) = open_sets(lfw)
    with pytest.raises(ValueError, match=r"P00_0001\.png: expected an aligned crop of 112x112 pixels, got 250x250"):
        measure(protocol, colour_of)


def test_a_damaged_or_empty_picture_is_named(lfw):
    path = lfw / "P00" / "P00_0001.png"
    whole = path.read_bytes()
    damaged = {"truncated": whole[:500], "expected a picture of 1 to": b"", "cannot identify JPEG or": b"GIF89a"}
    for fault, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"P00_0001\.png: .*{fault}"):
            measure(open_sets(lfw)[0], colour_of)


def test_rfw_is_a_protocol_per_group(lfw, tmp_path):
    root = tmp_path / "rfw"
    for group in ("African", "Asian"):
        shutil.copytree(lfw, root / "data" / group)
        (root / "txts" / group).mkdir(parents=True)
        lines = (lfw / "pairs.txt").read_text().splitlines()[1:]
        (root / "txts" / group / f"{group}_pairs.txt").write_text("\n".join(lines))
    found = open_sets(root, Opening(folds=2))
    assert [protocol.name for protocol in found] == ["rfw_African", "rfw_Asian"]
    assert found[0].fold.tolist() == [0] * 6 + [1] * 6
    with pytest.raises(ValueError, match="images: expected none with RFW"):
        open_sets(root, Opening(folds=2, images=lfw))


def test_genuine_pairs_that_come_first_are_interleaved_and_it_is_told(lfw):
    lines = [(a, i, b, j) for fold in range(FOLDS) for a, i, b, j in pairs_of(fold)]
    lines.sort(key=lambda line: line[0] != line[2])
    text = "".join(f"{n}/{n}_{k:04d}.png {int(a == b)}\n" for a, i, b, j in lines for n, k in ((a, i), (b, j)))
    (lfw / "calfw.txt").write_text(text)
    (protocol,) = open_sets(lfw / "calfw.txt", Opening(folds=2))
    assert protocol.same.tolist() == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    assert protocol.about["order"] == "genuine pairs first in the list; interleaved by fold"


def test_bins_of_a_folder_come_by_name(tmp_path):
    for name in ("wild", "cross_age"):
        shutil.copy(GOLDEN / "lfw_bin" / "lfw_py3.bin", tmp_path / f"{name}.bin")
    assert [protocol.name for protocol in open_sets(tmp_path)] == ["cross_age", "wild"]
    assert [protocol.name for protocol in open_sets(tmp_path / "wild.bin")] == ["wild"]


def test_what_is_of_several_forms_or_of_none_is_refused_until_the_form_is_named(lfw, tmp_path):
    shutil.copy(GOLDEN / "lfw_bin" / "lfw_py3.bin", tmp_path / "a.bin")
    (tmp_path / "txts" / "G").mkdir(parents=True)
    (tmp_path / "txts" / "G" / "G_pairs.txt").write_text("A\t1\t2\n")
    with pytest.raises(ValueError, match="found signs of bin and rfw; name the form"):
        open_sets(tmp_path)
    assert [each.name for each in open_sets(tmp_path, Opening(form="bin"))] == ["a"]
    with pytest.raises(ValueError, match="found no sign of any"):
        open_sets(lfw / "P00")
    with pytest.raises(ValueError, match="expected a verification set, found nothing"):
        open_sets(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"got a file \.png"):
        open_sets(lfw / "P00" / "P00_0001.png")
    with pytest.raises(ValueError, match="form: expected one of bin, pairs, rfw, ijb, tinyface, got 'lfw'"):
        open_sets(lfw, Opening(form="lfw"))
    (lfw / "more.txt").write_text("x")
    with pytest.raises(ValueError, match="expected one list of pairs, got 2"):
        open_sets(lfw, Opening(form="pairs"))
