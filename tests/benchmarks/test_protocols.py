"""Protocols: a folder of `.bin` files and a callable in, the scores of insightface's own `test` out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bins import read_bin
from benchmarks.protocols import Protocol, load_protocols, score

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
    return Protocol("lfw", *read_bin(GOLDEN / "lfw_py3.bin"))


def test_a_set_goes_end_to_end_as_in_insightface(protocol, toy, recorded):
    result = score(protocol, toy, folds=int(recorded["nrof_folds"]))
    np.testing.assert_allclose(toy(protocol.images), recorded["embeddings_original"], atol=1e-5)
    assert result["accuracy"] == recorded["accuracy"]
    assert result["accuracy_std"] == recorded["std"]
    assert result["folds"] == recorded["accuracy_per_fold"].tolist()
    assert result["mean_norm"] == pytest.approx(float(recorded["xnorm"]), abs=1e-5)
    assert result["protocol"] == "insightface-v1"


def test_a_picture_in_many_pairs_is_embedded_once_each_way(protocol, toy, recorded):
    seen = []
    thrice = Protocol("thrice", np.concatenate([protocol.images] * 3), np.concatenate([protocol.same] * 3))
    result = score(thrice, lambda crops: (seen.append(len(crops)), toy(crops))[1], folds=3)
    assert sum(seen) == 2 * len(protocol.images)
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
    with pytest.raises(ValueError, match="lfw: expected embeddings that are finite and not zero, got norm nan"):
        score(protocol, lambda crops: np.full((len(crops), 4), np.nan), folds=3)


def test_a_model_that_forgets_a_picture_is_refused(protocol):
    with pytest.raises(ValueError, match=r"lfw: expected embeddings .* got shape"):
        score(protocol, lambda crops: np.ones((len(crops) - 1, 4)), folds=3)


def test_a_protocol_refuses_an_odd_number_of_pictures(protocol):
    with pytest.raises(ValueError, match="lfw: expected two images for each of 12 pairs, got 23"):
        Protocol("lfw", protocol.images[:-1], protocol.same)
