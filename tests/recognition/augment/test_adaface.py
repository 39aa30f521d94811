"""Against the steps of the authors' code, done by Pillow and OpenCV one picture at a time with the same draws."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from recognition.augment import AdaFaceAugment
from recognition.augment.draws import WINDOW_DRAWS
from recognition.augment.resampling import KINDS
from tests.recognition.augment.pictures import faces, in_levels, noise, seeded, uint8
from tests.recognition.augment.test_draws import as_torchvision_draws_it
from tests.recognition.augment.test_resampling import FLAGS

NOTHING = AdaFaceAugment(crop=0.0, low_resolution=0.0, photometric=0.0, flip=0.0)


def drawn(b):
    return torch.rand(b, 4 + WINDOW_DRAWS + 9, generator=seeded()).split([4, WINDOW_DRAWS, 3, 6], 1)


def cropped(image, uniform):
    top, left, h, w = as_torchvision_draws_it(uniform, *image.shape[:2], (0.2, 1.0), (3 / 4, 4 / 3), False)
    canvas = np.zeros_like(image)
    canvas[top : top + h, left : left + w] = image[top : top + h, left : left + w]
    return canvas


def coarse(image, uniform):
    side = int((0.2 + uniform[0] * 0.8) * image.shape[0])
    down, up = (FLAGS[KINDS[int(u * 5)]] for u in uniform[1:])
    return cv2.resize(cv2.resize(image, (side, side), interpolation=down), image.shape[:2], interpolation=up)


def jittered(image, uniform):
    picture = Image.fromarray(image)
    enhance = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for operation in np.argsort(uniform[3:]):
        picture = enhance[operation](picture).enhance(float(np.float32(0.5 + uniform[operation])))
    return np.asarray(picture)


def test_a_crop_keeps_its_place_on_black():
    images = faces(30)
    mine = uint8(in_levels(AdaFaceAugment(crop=1.0, low_resolution=0.0, photometric=0.0, flip=0.0)(images, seeded())))
    expected = [cropped(*pair) for pair in zip(images.numpy(), drawn(30)[1].double().numpy(), strict=True)]
    np.testing.assert_array_equal(mine, np.stack(expected))
    kept = (mine != 0).any(3).mean((1, 2))
    assert kept.min() < 0.35
    assert kept.max() > 0.8


def test_low_resolution_is_opencvs_down_and_up():
    """At most 2 levels off: each resize to 8 bits may be 1 off, in fixed point; lanczos4's lobes may double it."""
    images = faces(40)
    mine = uint8(in_levels(AdaFaceAugment(crop=0.0, low_resolution=1.0, photometric=0.0, flip=0.0)(images, seeded())))
    for image, x, uniform in zip(images.numpy(), mine, drawn(40)[2].numpy(), strict=True):
        difference = np.abs(x.astype(float) - coarse(image, uniform))
        assert difference.max() <= 2
        assert difference.mean() <= 0.4


def test_the_change_of_colours_is_colour_jitter_on_pillows_pictures():
    """In each picture's own order. PIL's factor is a float32 of a double: a level may be truncated the other way."""
    images = torch.cat([faces(12), noise(12)])
    mine = uint8(in_levels(AdaFaceAugment(crop=0.0, low_resolution=0.0, photometric=1.0, flip=0.0)(images, seeded())))
    for image, x, uniform in zip(images.numpy(), mine, drawn(24)[3].numpy(), strict=True):
        difference = np.abs(x.astype(float) - jittered(image, uniform))
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.002


def test_a_sure_flip_is_the_mirror_image():
    images = noise(3, 20, 30)
    x = in_levels(AdaFaceAugment(crop=0.0, low_resolution=0.0, photometric=0.0, flip=1.0)(images, seeded()))
    np.testing.assert_array_equal(uint8(x), images.flip(2).numpy())


def test_all_of_it_comes_in_the_authors_order():
    images = faces(24)
    mine = uint8(in_levels(AdaFaceAugment(crop=1.0, low_resolution=1.0, photometric=1.0, flip=1.0)(images, seeded())))
    _, window, low, colour = (part.double().numpy() for part in drawn(24))
    for i, image in enumerate(images.numpy()):
        expected = jittered(coarse(cropped(image, window[i]), low[i]), colour[i])[:, ::-1]
        assert np.abs(mine[i].astype(float) - expected).mean() < 1.5


def test_no_strength_leaves_the_colours():
    images = noise(4, 30, 30)
    still = AdaFaceAugment(0.0, 0.0, 1.0, 0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    np.testing.assert_array_equal(uint8(in_levels(still(images, seeded()))), images.numpy())


def test_a_crop_that_cannot_fit_is_the_largest_in_the_centre():
    """As torchvision falls back: areas of all the picture in a ratio of 2 never fit a square."""
    wide = AdaFaceAugment(1.0, 0.0, 0.0, 0.0, crop_scale=(1.0, 1.0), crop_ratio=(2.0, 2.0))
    x = in_levels(wide(torch.full((3, 40, 40, 3), 9, dtype=torch.uint8), seeded()))
    expected = torch.zeros(3, 3, 40, 40)
    expected[:, :, 10:30] = 9
    assert torch.equal(x, expected)


def test_pictures_that_are_not_square_keep_their_shape():
    assert AdaFaceAugment(1.0, 1.0, 1.0, 1.0)(faces(4, 40, 60), seeded()).shape == (4, 3, 40, 60)


@pytest.mark.parametrize("listed", [[0.3, 0.9], (0.3, 0.9)])
def test_a_list_as_yaml_has_it_is_the_same_augmentation(listed):
    assert AdaFaceAugment(crop_scale=listed) == AdaFaceAugment(crop_scale=(0.3, 0.9))
    assert hash(AdaFaceAugment(crop_scale=listed)) == hash(AdaFaceAugment(crop_scale=(0.3, 0.9)))
