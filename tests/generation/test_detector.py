"""The detector's training and export, on pictures made of noise: what is learnt is tested on the bundled weights."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch

from generation.detector import Detector
from generation.train import DetectorRecipe, as_input, export_detector, faceless, moved, train_detector

RECIPE = DetectorRecipe(steps=4, batch_size=8, checkpoint_every=2, precision="fp32", threads=1)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (16, 112, 112, 3), np.uint8), rng.uniform(20, 90, (16, 5, 2)).astype(np.float32)


def test_a_landmark_moves_with_the_picture():
    pixels = torch.full((6, 3, 112, 112), -1.0)
    spots = torch.tensor([[40.0, 50.0], [70.0, 50.0], [56.0, 64.0], [44.0, 78.0], [66.0, 78.0]])
    for x, y in spots.int().tolist():
        pixels[:, :, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    turned, landmarks = moved(pixels, spots.expand(6, 5, 2), torch.Generator().manual_seed(3))
    assert not torch.allclose(landmarks[0], spots, atol=2)
    for picture, placed in zip(turned, landmarks, strict=True):
        for x, y in placed.round().int().tolist():
            if 2 < x < 109 and 2 < y < 109:
                assert picture[0, y, x] > 0


def test_faceless_pictures_differ_from_those_they_were_made_of(pictures):
    pixels = as_input(torch.from_numpy(pictures[0]))
    empty = faceless(pixels, torch.Generator().manual_seed(1))
    assert empty.shape == pixels.shape
    assert all(not torch.equal(a, b) for a, b in zip(empty, pixels, strict=True))


def test_training_that_was_stopped_continues_to_the_same_weights(pictures, tmp_path):
    whole = train_detector(*pictures, RECIPE, tmp_path / "whole", say=lambda _: None)

    class StopError(Exception):
        pass

    def stop(line: str) -> None:
        raise StopError(line)

    with pytest.raises(StopError, match="step 2/4"):
        train_detector(*pictures, RECIPE, tmp_path / "parts", say=stop)
    continued = train_detector(*pictures, RECIPE, tmp_path / "parts", say=lambda _: None)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(pictures, tmp_path):
    train_detector(*pictures, RECIPE, tmp_path, say=lambda _: None)
    with pytest.raises(ValueError, match="'seed': 12"):
        train_detector(*pictures, dataclasses.replace(RECIPE, seed=12), tmp_path, say=lambda _: None)


def test_the_exported_detector_computes_what_the_trained_one_does(tmp_path):
    torch.manual_seed(0)
    detector = Detector().eval()
    export_detector(detector, tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    pixels = torch.randn(3, 3, 112, 112)
    landmarks, found = session.run(["landmarks", "found"], {"pixels": pixels.numpy()})
    expected_landmarks, logit = detector(pixels)
    np.testing.assert_allclose(landmarks, expected_landmarks.detach().numpy(), atol=1e-3)
    np.testing.assert_allclose(found, logit.sigmoid().detach().numpy(), atol=1e-5)
