"""Protocols: a folder of `.bin` files and a callable in, the scores of insightface's own `test` out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bins import read_bin
from benchmarks.people import write_people
from benchmarks.protocols import entry, load_protocol, load_protocols, measure, of_images, score

GOLDEN = Path(__file__).parents[1] / "golden" / "lfw_bin"


@pytest.fixture(scope="module")
def recorded():
    return np.load(GOLDEN / "pipeline.npz")


@pytest.fixture(scope="module")
def toy(recorded):
    """The embedder of the recording: 16x16 means, a linear map, tanh."""

    def embed(crops: np.ndarray) -> np.ndarray:
        x = ((crops.astype(np.float32) / 255) - 0.5) / 0.5
        means = x.transpose(0, 3, 1, 2).reshape(len(x), 3, 7, 16, 7, 16).mean((3, 5)).reshape(len(x), 147)
        return 3 * np.tanh(means @ recorded["toy_weight"].T + recorded["toy_bias"])

    return embed


@pytest.fixture(scope="module")
def protocol():
    return load_protocol(GOLDEN / "lfw_py3.bin")


def test_a_set_goes_end_to_end_as_in_insightface(protocol, toy, recorded):
    result = score(protocol, toy, folds=int(recorded["nrof_folds"]))
    np.testing.assert_allclose(
        toy(protocol.pictures.crops(0, 24)[protocol.pairs.reshape(-1)]), recorded["embeddings_original"], atol=1e-5
    )
    assert result["accuracy"] == recorded["accuracy"]
    assert result["accuracy_std"] == recorded["std"]
    assert result["folds"] == recorded["accuracy_per_fold"].tolist()
    assert result["mean_norm"] == pytest.approx(float(recorded["xnorm"]), abs=1e-5)
    assert result["protocol"] == "insightface-v1"


def test_a_picture_in_many_pairs_is_embedded_once_each_way(protocol, toy, recorded):
    seen = []
    images, same = read_bin(GOLDEN / "lfw_py3.bin")
    thrice = of_images("thrice", np.concatenate([images] * 3), np.concatenate([same] * 3))
    result = score(thrice, lambda crops: (seen.append(len(crops)), toy(crops))[1], folds=3)
    assert sum(seen) == 2 * len(protocol.pictures) == 48
    assert result["pairs"] == 36
    assert result["mean_norm"] == pytest.approx(float(recorded["xnorm"]), abs=1e-5)


def test_protocols_of_a_folder_come_by_name(tmp_path):
    for name in ("wild", "cross_age"):
        shutil.copy(GOLDEN / "lfw_py3.bin", tmp_path / f"{name}.bin")
    assert [protocol.name for protocol in load_protocols(tmp_path)] == ["cross_age", "wild"]


def test_a_folder_without_protocols_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected verification sets named \*\.bin, got none"):
        load_protocols(tmp_path)


def test_a_model_that_collapsed_is_named_with_its_protocol(protocol):
    with pytest.raises(ValueError, match="lfw_py3: expected embeddings that are finite and not zero, got norm nan"):
        score(protocol, lambda crops: np.full((len(crops), 4), np.nan), folds=3)


def test_a_model_that_forgets_a_picture_is_refused(protocol):
    with pytest.raises(ValueError, match=r"lfw_py3: expected embeddings .* got shape"):
        score(protocol, lambda crops: np.ones((len(crops) - 1, 4)), folds=3)


def test_a_protocol_refuses_an_odd_number_of_pictures():
    images, same = read_bin(GOLDEN / "lfw_py3.bin")
    with pytest.raises(ValueError, match="lfw: expected two images for each of 12 pairs, got 23"):
        of_images("lfw", images[:-1], same)


def test_batches_make_no_difference_and_progress_counts_the_pictures_of_all_pairs(protocol, toy):
    told = []
    whole, small = measure(protocol, toy, folds=3), measure(protocol, toy, folds=3, batch=5, watch=told.append)
    np.testing.assert_allclose(whole.distance, small.distance, atol=1e-6)
    assert (sum(told), len(told)) == (24, 5)


def test_without_flips_a_picture_is_embedded_once(protocol, toy):
    seen = []
    measured = measure(protocol, lambda crops: (seen.append(len(crops)), toy(crops))[1], folds=3, flip=False)
    assert sum(seen) == 24
    raw = toy(read_bin(GOLDEN / "lfw_py3.bin")[0])
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(measured.distance, 2 - 2 * (unit[0::2] * unit[1::2]).sum(1), atol=1e-6)


def test_known_people_make_the_interval_one_over_people(tmp_path, toy):
    path = tmp_path / "lfw.bin"
    shutil.copy(GOLDEN / "lfw_py3.bin", path)
    same = load_protocol(path).same
    unknown = entry(measure(load_protocol(path), toy, folds=3))
    assert unknown["people"] == {"known": False}
    assert unknown["interval95_by"].startswith("bootstrap over pairs, as if independent")
    people = np.arange(24).reshape(-1, 2)
    people[same, 1] = people[same, 0]
    people[~same, 0] = people[0, 0]  # somebody of the first pair is in every impostor pair
    write_people(path, people.reshape(-1).tolist())
    known = entry(measure(load_protocol(path), toy, folds=3))
    assert known["people"] == {"known": True, "by": "sidecar", "count": len(np.unique(people)), "in_several_folds": 1}
    assert known["interval95_by"].startswith("bootstrap over people")
    assert known["accuracy"] == unknown["accuracy"]


def test_a_broken_picture_in_a_set_is_named_with_its_place(tmp_path, toy):
    from benchmarks.bins import read_encoded, write_bin

    stored, same = read_encoded(GOLDEN / "lfw_py3.bin")
    stored[7] = stored[7][:200]
    write_bin(tmp_path / "cut.bin", stored, same)
    with pytest.raises(ValueError, match=r"cut: .*cut\.bin: picture 7: Truncated File Read"):
        score(load_protocol(tmp_path / "cut.bin"), toy, folds=3)
