import io
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recognition.augment import DigiFaceAugment, normalised
from recognition.augment.draws import WINDOW_DRAWS
from tests.recognition.augment.pictures import faces, in_levels, noise, seeded, uint8
from tests.recognition.augment.test_laws import DIGIFACE


def only(**strengths) -> DigiFaceAugment:
    return DigiFaceAugment(**(dict.fromkeys(DIGIFACE, 0.0) | strengths))


def drawn(b):
    """chance, window, strength, place"""
    uniform = torch.rand(b, 14 + WINDOW_DRAWS + 25, generator=seeded()).double()
    return uniform.split([14, WINDOW_DRAWS, 12, 13], 1)


def test_its_probabilities_are_the_papers():
    told = {name: getattr(DigiFaceAugment(), name) for name in DIGIFACE}
    paper = {"blur": 0.05, "noise": 0.035, "motion": 0.05, "brightness": 0.15, "contrast": 0.3, "hue": 0.1}
    paper |= {"saturation": 0.1, "gray": 0.01, "low_resolution": 0.01, "jpeg": 0.05, "warp": 1.0, "aspect": 0.1}
    assert told == paper | {"flip": 0.5, "crop": 0.2}


def test_a_blur_is_opencvs_of_the_sigma_drawn():
    images = faces(6, 60, 60)
    mine = uint8(in_levels(only(blur=1.0, blur_px=(0.5, 2.0))(images, seeded())))
    for image, x, uniform in zip(images.numpy(), mine, drawn(6)[2][:, 0].tolist(), strict=True):
        theirs = cv2.GaussianBlur(image.astype(float), (13, 13), 0.5 + 1.5 * uniform, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(x - theirs).max() <= 0.51


def test_noise_has_the_sigma_drawn_in_each_channel_alone():
    grey = torch.full((20, 60, 60, 3), 128, dtype=torch.uint8)
    x = in_levels(only(noise=1.0, noise_levels=(4.0, 20.0))(grey, seeded())) - 128
    expected = 4 + 16 * drawn(20)[2][:, 1]
    torch.testing.assert_close(x.flatten(1).std(1).double(), expected, rtol=0.04, atol=0)
    assert np.abs(np.corrcoef(x.transpose(0, 1).flatten(1).numpy())[0, 1:]).max() < 0.03


def test_motion_smears_along_its_direction():
    """A dot becomes a line of the angle drawn."""
    dot = torch.zeros(12, 61, 61, 3, dtype=torch.uint8)
    dot[:, 29:32, 29:32] = 255
    x = (in_levels(only(motion=1.0, motion_px=(3.0, 3.0))(dot, seeded())))[:, 0].double()
    y_px, x_px = (c.double() - 30 for c in torch.meshgrid(torch.arange(61), torch.arange(61), indexing="ij"))
    mass = x.sum((1, 2))
    xx, yy, xy = ((x * m).sum((1, 2)) / mass for m in (x_px**2, y_px**2, x_px * y_px))
    angle = torch.atan2(2 * xy, xx - yy) / 2
    turned = (angle - drawn(12)[2][:, 3] * math.pi) % math.pi
    assert torch.minimum(turned, math.pi - turned).max() < 0.05


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_a_colour_changes_by_no_more_than_its_strength(name):
    images = faces(200, 10, 10)
    calm, wild = (only(**{name: 1.0, f"{name}_change": s})(images, seeded()) - normalised(images) for s in (0.1, 0.5))
    assert calm.abs().max() <= 0.1 * 2 + 2 / 127.5
    assert wild.abs().mean() > 3 * calm.abs().mean()


def test_gray_is_grey():
    x = only(gray=1.0)(noise(3, 20, 20), seeded())
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])


def test_jpeg_is_pillows_of_the_quality_drawn():
    images = faces(8)
    mine = uint8(in_levels(only(jpeg=1.0, jpeg_quality=(20, 90))(images, seeded()))).astype(float)
    for image, x, uniform in zip(images.numpy(), mine, drawn(8)[2][:, 11].tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=20 + int(uniform * 71))
        assert np.abs(x - np.asarray(Image.open(file))).mean() < 0.5


@pytest.mark.parametrize("size", [(112, 112), (60, 90)])
def test_a_rotation_is_pillows(size):
    images = faces(6, *size)
    still = {"warp_scale": (1.0, 1.0), "warp_shift": 0.0, "warp_corner": 0.0}
    mine = uint8(in_levels(only(warp=1.0, warp_rotate_deg=10.0, **still)(images, seeded()))).astype(float)
    angles = -10 + 20 * drawn(6)[3][:, 2]
    inside = (slice(18, -18), slice(18, -18))
    for image, x, angle in zip(images.numpy(), mine, angles.tolist(), strict=True):
        theirs = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        assert np.abs(x[inside] - theirs[inside]).max() <= 1


def test_zoom_and_aspect_make_the_face_larger_and_wider_by_as_much_as_drawn():
    """A square of 30 x 30 in the centre is measured by its area along each axis."""
    image = torch.zeros(10, 90, 90, 3, dtype=torch.uint8)
    image[:, 30:60, 30:60] = 255
    still = {"warp_shift": 0.0, "warp_corner": 0.0, "warp_rotate_deg": 0.0}
    x = (only(warp=1.0, aspect=1.0, warp_scale=(0.8, 1.2), **still)(image, seeded())[:, 0] + 1) / 2
    width, height = x.amax(1).sum(1).double(), x.amax(2).sum(1).double()
    place = drawn(10)[3]
    zoom, aspect = 0.8 + 0.4 * place[:, 1], torch.exp(math.log(0.8) + math.log(1.25 / 0.8) * place[:, 0])
    torch.testing.assert_close(width / 30, zoom * aspect.sqrt(), atol=0.03, rtol=0)
    torch.testing.assert_close(height / 30, zoom / aspect.sqrt(), atol=0.03, rtol=0)


def test_appearance_alone_moves_nothing():
    """The paper's ablation: no warp. Blur aside, the centre of mass of a bright square stays."""
    image = torch.zeros(200, 40, 40, 3, dtype=torch.uint8)
    image[:, 15:25, 15:25] = 200
    appearance = DigiFaceAugment(flip=0.0, crop=0.0, noise=0.0, low_resolution=0.0, warp=0.0, aspect=0.0)
    x = (appearance(image, seeded()) + 1).mean(1).double()
    place = torch.arange(40) - 19.5
    assert ((x.sum(1) * place).sum(1) / x.sum((1, 2))).abs().max() < 0.15


def test_every_picture_is_warped_in_its_own_way():
    x = DigiFaceAugment()(faces(1, 40, 40).expand(50, -1, -1, -1), seeded())
    assert len(torch.unique(x.flatten(1), dim=0)) == 50


def corners(b=50, warped=True, **strengths):
    """What a warp takes to the corners of the picture, beside the corners themselves."""
    always = torch.full((b,), warped)
    uniform = torch.rand(b, 13, generator=seeded())
    still = {"warp_scale": (1.0, 1.0), "warp_rotate_deg": 0.0, "warp_shift": 0.0, "warp_corner": 0.0}
    moved = DigiFaceAugment(**(still | strengths))._corners(uniform, torch.zeros(b, dtype=torch.bool), always, 1.0)
    return moved - torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def test_a_shift_moves_all_corners_alike_and_a_corners_shift_each_by_itself():
    together, apart = corners(warp_shift=0.1), corners(warp_corner=0.1)
    torch.testing.assert_close(together, together[:, :1].expand_as(together), atol=1e-6, rtol=0)
    assert (apart.std(1) > 0).all()
    for moved in (together, apart):
        assert 0.09 < moved.abs().max() <= 0.1


def test_a_change_of_aspect_alone_leaves_the_corners_shifts_out():
    assert torch.equal(corners(warped=False, warp_shift=0.1, warp_corner=0.1), torch.zeros(50, 4, 2))
