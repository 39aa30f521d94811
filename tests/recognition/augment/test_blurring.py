import math

import cv2
import numpy as np
import pytest
import torch

from recognition.augment.blurring import convolved, gaussian_kernels
from tests.recognition.augment.pictures import faces, levels, uint8


@pytest.mark.parametrize("size", [(112, 112), (30, 44)])
def test_a_round_blur_is_opencvs(size):
    images, sigma = faces(3, *size), torch.tensor([0.5, 1.3, 2.0])
    mine = uint8(convolved(levels(images), gaussian_kernels(sigma, sigma, torch.zeros(3), 2.0)))
    for image, x, s in zip(images.numpy(), mine, sigma.tolist(), strict=True):
        theirs = cv2.GaussianBlur(image.astype(np.float64), (13, 13), s, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(x - theirs).max() <= 0.501  # rounded, and not otherwise different


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 160])
def test_a_motion_blur_has_the_covariance_asked_for(degrees):
    angle = math.radians(degrees)
    kernel = gaussian_kernels(torch.tensor([3.0]), torch.tensor([0.7]), torch.tensor([angle]), 4.0)[0].double()
    offset = torch.arange(-12, 13, dtype=torch.float64)
    y, x = offset[:, None], offset[None]
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    along, across = direction[0] * x + direction[1] * y, direction[0] * y - direction[1] * x
    assert (kernel * along**2).sum().item() == pytest.approx(9, rel=0.02)
    assert (kernel * across**2).sum().item() == pytest.approx(0.49, rel=0.02)
    assert (kernel * along * across).sum().item() == pytest.approx(0, abs=0.02)


def test_a_kernel_does_not_depend_on_the_others():
    along, across, angle = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.3, 1.0])
    assert torch.equal(
        gaussian_kernels(along, across, angle, 3.0)[:1], gaussian_kernels(along[:1], across[:1], angle[:1], 3.0)
    )


def test_a_convolution_is_opencvs_even_where_the_kernel_is_larger_than_the_picture():
    images = faces(2, 9, 5)
    kernels = gaussian_kernels(torch.tensor([3.0, 2.0]), torch.tensor([0.5, 1.0]), torch.tensor([0.4, 2.0]), 3.0)
    mine = uint8(convolved(levels(images), kernels))
    padded = [np.pad(image.astype(np.float64), ((9, 9), (9, 9), (0, 0)), "reflect") for image in images.numpy()]
    for image, kernel, x in zip(padded, kernels.double().numpy(), mine, strict=True):
        theirs = cv2.filter2D(image, cv2.CV_64F, kernel)[9:-9, 9:-9]
        assert np.abs(x - theirs).max() <= 0.501
