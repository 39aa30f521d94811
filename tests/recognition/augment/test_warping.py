import numpy as np
import pytest
import torch
from PIL import Image

from recognition.augment.warping import affine_nearest, perspective
from tests.recognition.augment.pictures import faces, levels, noise, pil, seeded, uint8

SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def test_an_affine_map_is_pillows_to_the_pixel():
    images = noise(20, 50, 37)
    matrix = torch.tensor([1.0, 0, 0, 0, 1, 0]) + torch.randn(20, 6, generator=seeded()) * torch.tensor(
        [0.3, 0.3, 9, 0.3, 0.3, 9]
    )
    mine = uint8(affine_nearest(levels(images), matrix.double()))
    theirs = [
        image.transform(image.size, Image.Transform.AFFINE, m)
        for image, m in zip(pil(images), matrix.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(mine, np.stack([np.asarray(image) for image in theirs]))


def test_corners_left_where_they_are_change_nothing():
    x = levels(noise(2, 30, 41))
    assert torch.equal(perspective(x, SQUARE.expand(2, 4, 2)), x)


def test_the_corners_come_from_where_they_are_said_to_come_from():
    """The quarters of a picture of four colours, taken one by one, fill it."""
    x = torch.zeros(4, 3, 40, 60)
    x[:, 0, :20, :30], x[:, 1, :20, 30:], x[:, 2, 20:, :30], x[:, :, 20:, 30:] = 250, 250, 250, 120
    quarters = torch.stack(
        [SQUARE / 2 + torch.tensor(place) / 2 for place in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]]
    )
    y = perspective(x, quarters)[:, :, 2:-2, 2:-2]
    colours = torch.tensor([[250.0, 0, 0], [0, 250, 0], [0, 0, 250], [120, 120, 120]])
    assert torch.equal(y, colours[:, :, None, None].expand_as(y))


@pytest.mark.parametrize("size", [(112, 112), (60, 90)])
def test_a_perspective_map_is_pillows(size):
    """Bilinear on 8 bits: at most one level off, away from the border, where Pillow blends with nothing."""
    height, width = size
    images = faces(6, *size)
    corners = SQUARE * 0.9 + 0.05 + (torch.rand(6, 4, 2, generator=seeded()) - 0.5) * 0.08  # all inside the picture
    mine = uint8(perspective(levels(images), corners)).astype(float)
    unit = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    for image, quad, x in zip(pil(images), corners.double().numpy() * [width, height], mine, strict=True):
        # a x + b y + c = x' (g x + h y + 1), and so for y': eight equations from four corners.
        rows, values = [], []
        for (u, v), (p, q) in zip(unit, quad, strict=True):
            rows += [[u, v, 1, 0, 0, 0, -p * u, -p * v], [0, 0, 0, u, v, 1, -q * u, -q * v]]
            values += [p, q]
        solved = np.linalg.solve(rows, values).tolist()
        theirs = np.asarray(image.transform(image.size, Image.Transform.PERSPECTIVE, solved, Image.Resampling.BILINEAR))
        assert np.abs(x - theirs).max() <= 1


def test_what_comes_from_beyond_the_border_is_black():
    x = torch.full((1, 3, 20, 20), 200.0)
    assert torch.equal(perspective(x, SQUARE[None] + 2.0), torch.zeros_like(x))
