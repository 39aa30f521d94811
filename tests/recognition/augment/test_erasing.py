import pytest
import torch

from recognition.augment import Erase, normalised
from recognition.augment.draws import WINDOW_DRAWS
from tests.recognition.augment.pictures import noise, seeded
from tests.recognition.augment.test_draws import as_torchvision_draws_it


def test_the_rectangle_is_torchvisions_and_the_rest_stays():
    images = noise(60, 56, 40)
    x, before = Erase(p=1.0, value=0.5)(images, seeded()), normalised(images)
    uniform = torch.rand(60, 1 + WINDOW_DRAWS, generator=seeded())[:, 1:].double().numpy()
    for i in range(60):
        # torchvision draws height / width.
        top, left, h, w = as_torchvision_draws_it(uniform[i], 56, 40, (0.02, 0.33), (1 / 3.3, 1 / 0.3), True)
        expected = before[i].clone()
        expected[:, top : top + h, left : left + w] = 0.5
        torch.testing.assert_close(x[i], expected, atol=1e-6, rtol=0)


def test_mid_grey_is_exactly_zero():
    x = Erase(p=1.0)(torch.full((20, 30, 30, 3), 200, dtype=torch.uint8), seeded())
    share = (x == 0).float().mean((1, 2, 3))
    assert (share > 0.01).all()
    assert (share < 0.36).all()
    assert ((x == 0) | (x == normalised(torch.full((1, 1, 1, 3), 200, dtype=torch.uint8)))).all()


def test_tall_rectangles_are_as_common_as_the_ratio_says():
    """A ratio of 2 ... 3.3 is of height to width."""
    x = Erase(p=1.0, ratio=(2.0, 3.3), scale=(0.05, 0.1))(torch.zeros(50, 80, 80, 3, dtype=torch.uint8), seeded())
    erased = (x == 0).any(1)
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    assert (height > 1.8 * width).all()


def test_noise_is_clipped_normal_and_each_pictures_own():
    x = Erase(p=1.0, value="random", scale=(0.3, 0.33))(torch.zeros(40, 60, 60, 3, dtype=torch.uint8), seeded())
    painted = x[x != -1]
    assert painted.mean().abs() < 0.2  # what was clipped to -1 is not told from black
    assert (painted == 1).float().mean().item() == pytest.approx(0.1587 / (1 - 0.1587), abs=0.02)
    assert len(torch.unique(x.flatten(1), dim=0)) == 40


def test_a_rectangle_that_never_fits_erases_nothing():
    images = noise(5, 20, 20)
    assert torch.equal(Erase(p=1.0, scale=(1.0, 1.0))(images, seeded()), normalised(images))
