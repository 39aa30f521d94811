"""TinyFace's layout: lists, pictures, distractors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from benchmarks.identification import NOBODY
from benchmarks.matlab import read_mat
from benchmarks.tinyface import read_tinyface, score_tinyface


def blot(path, colour, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-8, 8, (112, 112, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def names(listed):
    cells = np.empty((len(listed), 1), object)
    cells[:, 0] = listed
    return cells


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "tiny" / "Testing_Set"
    colours = {1: (200, 40, 40), 2: (40, 200, 40), 3: (40, 40, 200)}
    for person, colour in colours.items():
        blot(root / "Probe" / f"{person}_1.png", colour, person)
        blot(root / "Gallery_Match" / f"{person}_2.png", colour, 10 + person)
    for i in range(5):
        blot(root / "Gallery_Distractor" / f"{i}.png", (100 + 20 * i, 150, 150), 20 + i)
    people = np.array([[1], [2], [3]])
    savemat(root / "probe_img_ID_pairs.mat", {"probe_set": names([f"{p}_1.png" for p in colours]), "probe_ids": people})
    savemat(
        root / "gallery_match_img_ID_pairs.mat",
        {"gallery_set": names([f"{p}_2.png" for p in colours]), "gallery_ids": people},
    )
    return tmp_path / "tiny"


def colour_of(crops):
    return crops.reshape(len(crops), -1, 3).mean(1) - 128.0


def test_probes_are_looked_for_among_gallery_and_distractors(folder):
    data = read_tinyface(folder)
    assert data.gallery_people.tolist() == [1, 2, 3] + [NOBODY] * 5
    seen = []
    told = score_tinyface(data, colour_of, batch=2, watch=seen.append)
    assert (told["rank_1"], told["rank_20"], told["gallery"], told["distractors"]) == (1.0, 1.0, 8, 5)
    assert sum(seen) == 11
    assert told["protocol"] == "tinyface-closed-set-v1"


def test_missing_pictures_are_counted_and_named(folder):
    (folder / "Testing_Set" / "Probe" / "2_1.png").unlink()
    with pytest.raises(ValueError, match=r"Probe: expected 3 pictures, 1 are not there: 2_1\.png"):
        read_tinyface(folder)


def test_a_gallery_without_distractors_is_not_tinyface(folder):
    for path in (folder / "Testing_Set" / "Gallery_Distractor").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="expected distractors, got none"):
        read_tinyface(folder)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"other": 1}, "expected names probe_set and numbers probe_ids, got "),
        ({"probe_set": names(["1_1.png"]), "probe_ids": np.array([[1], [2]])}, "got 1 and 2"),
        ({"probe_set": names(["../x.png"]), "probe_ids": np.array([[1]])}, "names of files without folders"),
        ({"probe_set": np.array([[1]]), "probe_ids": np.array([[1]])}, "expected names probe_set"),
        ({"probe_set": names(["1_1.png"]), "probe_ids": np.array([[-4]])}, "people from 0"),
    ],
)
def test_a_wrong_list_is_named(folder, content, fault):
    savemat(folder / "Testing_Set" / "probe_img_ID_pairs.mat", content)
    with pytest.raises(ValueError, match=rf"probe_img_ID_pairs\.mat: .*{fault}"):
        read_tinyface(folder)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_is_read_as_scipy_reads_it(tmp_path, compressed):
    listed = [f"{i}_1.jpg" for i in range(70)] + ["x", "", "a name of more than a few letters.png"]
    numbers = {"small": np.array([[7]]), "long": np.arange(300)[:, None], "real": np.array([[1.5, -2]])}
    savemat(tmp_path / "a.mat", {"words": names(listed), "one": "word", **numbers}, do_compression=compressed)
    ours, theirs = read_mat(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")
    assert ours["words"] == [each[0].item() if each[0].size else "" for each in theirs["words"]] == listed
    assert ours["one"] == ["word"]
    for name in numbers:
        np.testing.assert_array_equal(ours[name], theirs[name].reshape(-1, order="F"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_of_a_list_raise_nothing_but_value_errors(folder, data):
    path = folder / "Testing_Set" / "probe_img_ID_pairs.mat"
    before = path.read_bytes()
    content = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        read_tinyface(folder)
    except ValueError as fault:
        assert "Probe" in str(fault) or "probe" in str(fault)  # noqa: PT017
    finally:
        path.write_bytes(before)
