import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from recognition.augment import Augment, Compose, normalised

NOTHING = Augment(**{field.name: 0 for field in fields(Augment)})


RECORDED = json.loads((Path(__file__).parents[2] / "golden/augment/augment.json").read_text())


def only(**strengths) -> Augment:
    return Augment(**({field.name: 0 for field in fields(Augment)} | strengths))


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def crops():
    return torch.randint(0, 256, (6, 112, 112, 3), dtype=torch.uint8, generator=seeded(1))


@pytest.fixture
def smooth():
    """One picture per row whose red rises along x and green along y."""
    ramp = torch.linspace(40, 215, 112)
    picture = torch.stack([ramp.expand(112, 112), ramp[:, None].expand(112, 112), torch.full((112, 112), 128.0)], -1)
    return picture.to(torch.uint8).expand(64, -1, -1, -1)


@pytest.mark.parametrize("name", RECORDED)
def test_it_does_what_it_did_when_the_bundled_weights_were_trained(name):
    recorded, generator = RECORDED[name], seeded(2026)
    y, x, c, b = torch.meshgrid(*(torch.arange(n) for n in (112, 112, 3, 8)), indexing="ij")
    images = ((x * (3 + c) + y * (5 - c) + x * y // (7 + b) + 31 * c + 17 * b) % 256).to(torch.uint8)
    out = Augment(**recorded["strengths"])(images.permute(3, 0, 1, 2).contiguous(), generator)
    pixels = torch.tensor(recorded["pixels"])
    torch.testing.assert_close(out[:, :, 5::34, 3::35].flatten(), pixels, atol=1e-6, rtol=0)
    sums = torch.tensor(recorded["sums"], dtype=torch.float64)
    torch.testing.assert_close(out.double().sum((1, 2, 3)), sums, atol=1e-2, rtol=0)
    assert torch.rand(2, generator=generator).tolist() == recorded["next"]


def test_as_a_step_it_does_the_same(crops):
    torch.testing.assert_close(Compose((Augment(),))(crops, seeded(3)), Augment()(crops, seeded(3)), atol=1e-5, rtol=0)


def test_pixels_are_scaled_to_minus_one_and_one(crops):
    x = normalised(crops)
    assert x.shape == (6, 3, 112, 112)
    assert x[2, 1, 5, 7].item() == pytest.approx((crops[2, 5, 7, 1].item() - 127.5) / 127.5)


def test_strengths_of_zero_change_nothing(crops):
    torch.testing.assert_close(NOTHING(crops, seeded()), normalised(crops), atol=1e-4, rtol=0)


def test_the_same_generator_gives_the_same_pictures(crops):
    assert torch.equal(Augment()(crops, seeded(3)), Augment()(crops, seeded(3)))
    assert not torch.equal(Augment()(crops, seeded(3)), Augment()(crops, seeded(4)))


def test_every_picture_has_parameters_of_its_own(smooth):
    x = Augment()(smooth, seeded())
    assert len(torch.unique(x.flatten(1), dim=0)) == len(smooth)


def test_a_sure_flip_mirrors(crops):
    torch.testing.assert_close(only(flip=1.0)(crops, seeded()), normalised(crops).flip(3), atol=1e-4, rtol=0)


def test_a_picture_is_shifted_by_as_many_pixels_as_were_drawn(smooth):
    x = only(shift_px=2.0)(smooth, seeded())
    slope = (215 - 40) / 111 / 127.5
    moved = (x - normalised(smooth))[:, :2, 30:80, 30:80].mean((2, 3)) / slope
    drawn = torch.randn(64, 4, generator=seeded())[:, 2:] * 2.0
    # uint8 steps of the ramp and the bilinear kernel leave some hundredths of a pixel.
    torch.testing.assert_close(moved, drawn, atol=0.05, rtol=0)


def test_a_rotation_keeps_the_centre_and_turns_the_ramps(smooth):
    x = only(rotate_deg=10.0)(smooth, seeded())
    slope = (215 - 40) / 111 / 127.5
    angle = torch.randn(64, 4, generator=seeded())[:, 0] * math.radians(10.0)
    along_x = (x[:, 0, 46:66, 65] - x[:, 0, 46:66, 46]).mean(1) / 19 / slope
    torch.testing.assert_close(along_x, angle.cos(), atol=0.02, rtol=0)
    torch.testing.assert_close(x[:, :, 55:57, 55:57].mean((2, 3)), normalised(smooth)[:, :, 55:57, 55:57].mean((2, 3)))


def test_contrast_and_brightness_keep_to_their_range(smooth):
    before, after = normalised(smooth), only(brightness=0.1, contrast=0.2)(smooth, seeded())
    inside = slice(20, 92)
    assert ((after - before).mean((1, 2, 3)).abs() <= 2 * 0.1 + 1e-5).all()
    ratio = after[:, 0, inside, inside].std((1, 2)) / before[:, 0, inside, inside].std((1, 2))
    assert ((math.exp(-0.2) - 0.01 <= ratio) & (ratio <= math.exp(0.2) + 0.01)).all()
    assert ratio.std() > 0.05


def test_low_resolution_and_blur_keep_a_flat_picture_and_smooth_a_noisy_one(crops):
    flat = torch.full((8, 112, 112, 3), 77, dtype=torch.uint8)
    for augment in (only(low_resolution=1.0, low_resolution_px=16), only(blur=1.0, blur_px=3.0)):
        torch.testing.assert_close(augment(flat, seeded()), normalised(flat), atol=1e-5, rtol=0)
        assert (augment(crops, seeded()).std((1, 2, 3)) < normalised(crops).std((1, 2, 3))).all()


def test_low_resolution_is_the_area_average_enlarged(crops):
    x = only(low_resolution=1.0, low_resolution_px=110)(crops, seeded())
    interpolate = torch.nn.functional.interpolate
    candidates = [
        interpolate(interpolate(normalised(crops), n, mode="area"), 112, mode="bilinear", align_corners=False)
        for n in (110, 111)
    ]
    for row in range(len(crops)):
        assert any(torch.allclose(x[row], candidate[row], atol=1e-5) for candidate in candidates)


def test_an_erased_rectangle_has_one_colour_and_at_most_its_area(smooth):
    x = only(erase=1.0, erase_area=0.25)(smooth, seeded())
    changed = ((x - normalised(smooth)).abs() > 1e-3).any(1)
    share = changed.float().mean((1, 2))
    assert (share <= 0.25 + 0.03).all()
    assert share.max() > 0.1
    for picture, mask in zip(x, changed, strict=True):
        assert len(torch.unique(picture[:, mask], dim=1)[0]) <= 1


def test_results_stay_within_the_range_of_pixels(crops):
    x = Augment(brightness=1.0, contrast=1.0, warmth=1.0)(crops, seeded())
    assert x.min() >= -1
    assert x.max() <= 1


@pytest.mark.parametrize(
    "strengths", [{"flip": 1.5}, {"shift_px": -1}, {"blur": float("nan")}, {"low_resolution_px": 4}, {"erase_area": 2}]
)
def test_a_strength_out_of_range_is_refused(strengths):
    with pytest.raises(ValueError, match=next(iter(strengths))):
        Augment(**strengths)


@pytest.mark.parametrize(("h", "w"), [(30, 40), (20, 20)])
def test_pictures_that_it_cannot_shrink_are_refused(h, w):
    with pytest.raises(ValueError, match="images: expected"):
        Augment()(torch.zeros(1, h, w, 3, dtype=torch.uint8), seeded())
