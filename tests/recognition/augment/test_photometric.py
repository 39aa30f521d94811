"""Against Pillow's ImageEnhance and ImageOps, level for level."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from recognition.augment import photometric
from tests.recognition.augment.pictures import faces, levels, noise, pil, uint8

PICTURES = torch.cat([faces(2, 40, 56), noise(1, 40, 56), faces(1, 40, 56, seed=9) // 8 + 90])
FLAT = torch.full((1, 40, 56, 3), 77, dtype=torch.uint8)
ENHANCE = {
    photometric.brightness: ImageEnhance.Brightness,
    photometric.contrast: ImageEnhance.Contrast,
    photometric.saturation: ImageEnhance.Color,
    photometric.sharpness: ImageEnhance.Sharpness,
}


def same(mine: torch.Tensor, theirs: list[Image.Image]) -> None:
    np.testing.assert_array_equal(uint8(mine), np.stack([np.asarray(image) for image in theirs]))


@pytest.mark.parametrize("enhance", ENHANCE, ids=lambda f: f.__name__)
@settings(max_examples=15, deadline=None)
@given(factors=st.lists(st.floats(0, 2, width=32), min_size=5, max_size=5))
def test_enhancements_are_pillows(enhance, factors):
    images = torch.cat([PICTURES, FLAT])
    theirs = [ENHANCE[enhance](image).enhance(f) for image, f in zip(pil(images), factors, strict=True)]
    same(enhance(levels(images), torch.tensor(factors)), theirs)


def test_grey_is_pillows():
    mine = photometric.grey(levels(PICTURES))[:, 0].numpy()
    np.testing.assert_array_equal(mine, np.stack([np.asarray(image.convert("L")) for image in pil(PICTURES)]))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_is_pillows(bits):
    mine = photometric.posterize(levels(PICTURES), torch.full((4,), float(bits)))
    same(mine, [ImageOps.posterize(image, bits) for image in pil(PICTURES)])


@pytest.mark.parametrize("threshold", [0.0, 17.0, 119.0, 127.5, 255.0, 256.0])
def test_solarize_is_pillows(threshold):
    mine = photometric.solarize(levels(PICTURES), torch.full((4,), threshold))
    same(mine, [ImageOps.solarize(image, threshold) for image in pil(PICTURES)])


@pytest.mark.parametrize(
    "images", [PICTURES, FLAT, noise(3, 4, 5), noise(1, 40, 40) // 128], ids=["faces", "flat", "tiny", "two"]
)
def test_autocontrast_and_equalize_are_pillows(images):
    same(photometric.autocontrast(levels(images)), [ImageOps.autocontrast(image) for image in pil(images)])
    same(photometric.equalize(levels(images)), [ImageOps.equalize(image) for image in pil(images)])


def test_the_smallest_pictures_are_smoothed_as_pillow_does():
    for images in (noise(2, 2, 9), noise(2, 3, 3), noise(2, 1, 1)):
        theirs = [ImageEnhance.Sharpness(image).enhance(0.0) for image in pil(images)]
        same(photometric.sharpness(levels(images), torch.zeros(2)), theirs)


@settings(max_examples=60, deadline=None)
@given(rgb=st.tuples(*[st.integers(0, 255)] * 3), turns=st.floats(-0.5, 0.5, width=32))
def test_a_turned_hue_is_that_of_colorsys(rgb, turns):
    pixel = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
    expected = [255 * c for c in colorsys.hsv_to_rgb((h + turns) % 1, s, v)]
    mine = photometric.shift_hue(pixel, torch.tensor([turns]))
    np.testing.assert_allclose(mine.flatten().numpy(), expected, atol=0.502)


def test_no_turn_and_a_whole_turn_of_the_hue_change_nothing():
    x = levels(noise(2, 50, 50))
    for turns in (0.0, 1.0):
        assert torch.equal(photometric.shift_hue(x, torch.full((2,), turns)), x)
