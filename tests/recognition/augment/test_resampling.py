"""Against OpenCV, whose 8-bit linear, cubic and lanczos4 count in fixed point: at most one level off, seldom."""

import cv2
import numpy as np
import pytest
import torch

from recognition.augment.resampling import KINDS, resize_matrix, there_and_back
from tests.recognition.augment.pictures import faces, levels, noise, uint8

FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos4": cv2.INTER_LANCZOS4,
}
MEAN = {"nearest": 0, "linear": 0.2, "area": 0.2, "cubic": 0.01, "lanczos4": 0.3}


def test_the_kinds_are_opencvs_five():
    assert set(KINDS) == set(FLAGS)


def resized(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    rows, columns = resize_matrix(image.shape[0], size, kind), resize_matrix(image.shape[1], size, kind)
    y = rows @ image.astype(np.float64).transpose(2, 0, 1) @ columns.T
    return y.round().clip(0, 255).transpose(1, 2, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("picture", [faces(1)[0].numpy(), noise(1)[0].numpy()], ids=["face", "noise"])
def test_down_and_up_are_opencvs(kind, picture):
    """To every size that AdaFace may draw, from 22 to 111 pixels, and back."""
    for size in range(22, 112):
        small = cv2.resize(picture, (size, size), interpolation=FLAGS[kind])
        large = cv2.resize(small, (112, 112), interpolation=FLAGS[kind])
        for mine, theirs in [(resized(picture, size, kind), small), (resized(small, 112, kind), large)]:
            difference = np.abs(mine - theirs)
            assert difference.max() <= 1
            assert difference.mean() <= MEAN[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_weighs_one_in_all(kind):
    for source, target in [(112, 40), (40, 112), (7, 3), (3, 7), (5, 5), (1, 6), (6, 1)]:
        matrix = resize_matrix(source, target, kind)
        assert matrix.shape == (target, source)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)


def test_linear_cubic_and_lanczos4_do_not_average_when_they_shrink():
    """OpenCV has no anti-aliasing: one of 5 pixels shrunk to 1 is the one in the middle; area has the mean."""
    line = np.array([0.0, 0.0, 200.0, 0.0, 0.0])
    assert resize_matrix(5, 1, "linear") @ line == pytest.approx([200])
    assert resize_matrix(5, 1, "cubic") @ line == pytest.approx([200])
    assert resize_matrix(5, 1, "lanczos4") @ line == pytest.approx([200])
    assert resize_matrix(5, 1, "area") @ line == pytest.approx([40])


def test_each_picture_of_a_batch_goes_its_own_way():
    """Twice 8 bits: where the small picture is one level off, the large one may be 2."""
    images = faces(6, 64, 48)
    side = torch.tensor([[13, 10], [64, 48], [20, 31], [50, 40], [33, 12], [1, 1]])
    down, up = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 0, 2, 1, 1])
    mine = uint8(there_and_back(levels(images), side, down, up))
    for i, image in enumerate(images.numpy()):
        height, width = side[i].tolist()
        small = cv2.resize(image, (width, height), interpolation=FLAGS[KINDS[down[i]]])
        large = cv2.resize(small, (48, 64), interpolation=FLAGS[KINDS[up[i]]])
        difference = np.abs(mine[i].astype(float) - large)
        assert difference.max() <= 2
        assert difference.mean() <= 0.4
