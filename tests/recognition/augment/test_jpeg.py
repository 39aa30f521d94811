"""Against Pillow's JPEG (libjpeg-turbo): the same tables, and on average less than a level off."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from recognition.augment.jpeg import _CHROMA, _LUMA, jpeg, tables
from tests.recognition.augment.pictures import faces, levels, noise, seeded, uint8


def by_pillow(image: np.ndarray, quality: int) -> tuple[np.ndarray, dict]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    opened = Image.open(file)
    return np.asarray(opened).astype(float), opened.quantization


@pytest.mark.parametrize("quality", [1, 7, 25, 49, 50, 75, 99, 100])
def test_the_quantisation_tables_are_libjpegs(quality):
    _, written = by_pillow(noise(1)[0].numpy(), quality)
    for mine, theirs in [(_LUMA, written[0]), (_CHROMA, written[1])]:
        assert tables(torch.tensor([quality]), mine).flatten().tolist() == list(theirs)


@pytest.mark.parametrize("size", [(112, 112), (37, 50), (65, 80)])
@pytest.mark.parametrize("quality", [5, 20, 50, 75, 90, 100])
def test_a_picture_comes_back_as_from_pillows_file(quality, size):
    """Less than a level off on average, and most values equal; single blocks differ by more, where a coefficient's half
    is rounded the other way."""
    images = torch.cat([faces(3, *size), noise(1, *size)])
    mine = uint8(jpeg(levels(images), torch.full((4,), quality))).astype(float)
    for image, x in zip(images.numpy(), mine, strict=True):
        theirs, _ = by_pillow(image, quality)
        assert np.abs(x - theirs).mean() < (0.4 if size == (112, 112) else 1)
        assert np.median(np.abs(x - theirs)) == 0


def test_each_picture_of_a_batch_has_its_quality():
    x, quality = levels(faces(3)), torch.tensor([10, 90, 40])
    together = jpeg(x, quality)
    for i in range(3):
        assert torch.equal(together[i], jpeg(x[i : i + 1], quality[i : i + 1])[0])
    error = (together - x).abs().mean((1, 2, 3))
    assert error[0] > error[2] > error[1]


def test_a_grey_flat_picture_stays_and_a_flat_colour_almost():
    assert torch.equal(jpeg(torch.full((1, 3, 20, 20), 128.0), torch.tensor([75])), torch.full((1, 3, 20, 20), 128.0))
    colour = torch.tensor([200.0, 80.0, 30.0])[:, None, None].expand(1, 3, 20, 20)
    assert (jpeg(colour, torch.tensor([95])) - colour).abs().max() <= 3


@pytest.mark.parametrize("quality", [10, 20])
def test_most_values_of_a_face_are_exactly_pillows(quality):
    images = faces(6)
    mine = uint8(jpeg(levels(images), torch.full((6,), quality)))
    theirs = np.stack([by_pillow(image, quality)[0] for image in images.numpy()])
    assert (mine == theirs).mean() > 0.94


def test_flat_colours_come_back_as_from_pillows_file_exactly():
    """Where red is green, half of the blue differences are halves before they are rounded."""
    colours = torch.randint(0, 256, (300, 1, 1, 3), dtype=torch.uint8, generator=seeded())
    colours[:200, ..., 1] = colours[:200, ..., 0]
    images = colours.expand(-1, 16, 16, -1)
    mine = uint8(jpeg(levels(images), torch.full((300,), 100)))
    np.testing.assert_array_equal(mine, np.stack([by_pillow(image, 100)[0] for image in images.numpy()]))
