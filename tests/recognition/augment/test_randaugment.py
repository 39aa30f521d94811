"""Each operation against Pillow's, to the level; then how they are drawn."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from recognition.augment import RandAugment, normalised
from recognition.augment.randaugment import OPERATIONS
from tests.recognition.augment.pictures import faces, in_levels, levels, noise, pil, seeded, uint8

AFFINE, NEAREST = Image.Transform.AFFINE, Image.Resampling.NEAREST
PICTURES = torch.cat([faces(2, 112, 112), noise(1, 112, 112)])


def enhanced(kind):
    return lambda image, magnitude, sign: kind(image).enhance(1 + sign * 0.03 * magnitude)


def translated(image, magnitude, sign):
    shift = math.floor(150 / 331 * image.width * magnitude / 30)
    return image.transform(image.size, AFFINE, (1, 0, -sign * shift, 0, 1, 0), NEAREST)


# The list and its strengths, as face_recognition_training/utils/rand_augment.py in fdbtrs/IDiff-Face has them.
BY_PILLOW = {
    "Identity": lambda image, magnitude, sign: image,
    "ShearX": lambda image, m, sign: image.transform(image.size, AFFINE, (1, sign * 0.01 * m, 0, 0, 1, 0), NEAREST),
    "TranslateX": translated,
    "Rotate": lambda image, magnitude, sign: image.rotate(sign * magnitude, NEAREST),
    "Brightness": enhanced(ImageEnhance.Brightness),
    "Color": enhanced(ImageEnhance.Color),
    "Contrast": enhanced(ImageEnhance.Contrast),
    "Sharpness": enhanced(ImageEnhance.Sharpness),
    "Posterize": lambda image, magnitude, sign: ImageOps.posterize(image, 8 - round(magnitude / 7.5)),
    "Solarize": lambda image, magnitude, sign: ImageOps.solarize(image, 255 - 8.5 * magnitude),
    "AutoContrast": lambda image, magnitude, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, magnitude, sign: ImageOps.equalize(image),
    "Grayscale": lambda image, magnitude, sign: image.convert("L").convert("RGB"),
}


def test_the_list_is_idiff_faces():
    assert list(OPERATIONS) == list(BY_PILLOW)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows(name):
    for magnitude in (1, 2, 7, 11, 15, 16, 23, 30):
        for sign in (1.0, -1.0):
            parameters = torch.full((3,), float(magnitude)).double(), torch.full((3,), sign).double()
            mine = uint8(OPERATIONS[name](levels(PICTURES), *parameters))
            theirs = [np.asarray(BY_PILLOW[name](image, magnitude, sign)) for image in pil(PICTURES)]
            np.testing.assert_array_equal(mine, np.stack(theirs))


def test_pictures_go_through_the_operations_that_they_drew():
    augment, images = RandAugment(operations=3, magnitude=16, flip=0.5), faces(40, 48, 48)
    mine = uint8(in_levels(augment(images, seeded())))
    generator = seeded()
    mirrored, uniform = torch.rand(40, generator=generator), torch.rand(40, 3, 3, generator=generator)
    names = list(BY_PILLOW)
    for i, image in enumerate(pil(images)):
        if mirrored[i] < 0.5:
            image = ImageOps.mirror(image)
        for operation, magnitude, side in uniform[i].tolist():
            sign = 1.0 if side < 0.5 else -1.0
            image = BY_PILLOW[names[int(operation * 13)]](image, 1 + int(magnitude * 16), sign)
        np.testing.assert_array_equal(mine[i], np.asarray(image))


def test_every_operation_is_drawn_as_often_as_any_other():
    """Of one operation on pictures of noise, those of Identity stay: 1 in 13."""
    images = noise(2600, 8, 8)
    x = RandAugment(operations=1, flip=0.0)(images, seeded())
    same = (x == normalised(images)).flatten(1).all(1).float().mean().item()
    # AutoContrast and a shift of less than half a pixel leave some of these, too.
    assert 1 / 13 - 0.02 < same < 5 / 13


def test_a_small_magnitude_stays_small():
    images = faces(60, 40, 40)
    calm, wild = (RandAugment(operations=1, magnitude=m, flip=0.0)(images, seeded()) for m in (1, 30))
    assert (calm - normalised(images)).abs().mean() < (wild - normalised(images)).abs().mean()
