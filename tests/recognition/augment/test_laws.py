"""What every augmentation keeps to, whatever it does."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.augment import (
    AdaFaceAugment,
    Augment,
    Compose,
    DigiFaceAugment,
    Erase,
    Flip,
    RandAugment,
    checks,
    normalised,
)
from tests.recognition.augment.pictures import in_levels, noise, seeded

ADAFACE = ("crop", "low_resolution", "photometric", "flip")
DIGIFACE = tuple(field.name for field in fields(DigiFaceAugment)[:14])

ALL = {
    "adaface": AdaFaceAugment(),
    "digiface": DigiFaceAugment(),
    "randaugment": RandAugment(),
    "erase": Erase(),
    "erase with noise": Erase(value="random"),
    "flip": Flip(),
    "bundled": Augment(),
    "hsface": Compose((AdaFaceAugment(crop=0.3, low_resolution=0.3, photometric=0.3), Erase())),
    "all": Compose((RandAugment(), DigiFaceAugment(), AdaFaceAugment())),
}
NOTHING = {
    "adaface": AdaFaceAugment(**dict.fromkeys(ADAFACE, 0.0)),
    "digiface": DigiFaceAugment(**dict.fromkeys(DIGIFACE, 0.0)),
    "randaugment": RandAugment(operations=0, flip=0.0),
    "erase": Erase(p=0.0),
    "flip": Flip(p=0.0),
    "composed": Compose((Flip(p=0.0), Erase(p=0.0))),
    "no step": Compose(()),
}
EVERYTHING = {
    "adaface": AdaFaceAugment(**dict.fromkeys(ADAFACE, 1.0)),
    "digiface": DigiFaceAugment(**dict.fromkeys(DIGIFACE, 1.0)),
    "randaugment": RandAugment(operations=8, magnitude=30, flip=1.0),
    "erase": Erase(p=1.0, value="random"),
    "flip": Flip(p=1.0),
}
SINGLE = [(NOTHING["adaface"], name) for name in ADAFACE] + [(NOTHING["digiface"], name) for name in DIGIFACE]
SINGLE += [(Erase(), "p"), (Flip(), "p"), (NOTHING["randaugment"], "flip")]
SINGLE_NAMES = [f"{type(augmentation).__name__}.{name}" for augmentation, name in SINGLE]


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=8, deadline=None)
@given(b=st.integers(1, 5), h=st.integers(12, 30), w=st.integers(12, 30), seed=st.integers(0, 2**32))
def test_any_batch_gives_finite_numbers_of_its_shape_in_range(name, b, h, w, seed):
    if name == "bundled":
        h = w = max(h, w, 24)  # it takes square pictures, no smaller than it may shrink them to
    images = noise(b, h, w, seed)
    x = ALL[name](images, seeded(seed))
    assert x.shape == (b, 3, h, w)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert -1 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_at_once_gives_numbers_in_range(name):
    x = EVERYTHING[name](noise(4, 24, 18), seeded())
    assert x.isfinite().all()
    assert -1 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_the_same_generator_state_gives_the_same_pictures(name):
    images = noise(12, 24, 24)
    assert torch.equal(ALL[name](images, seeded(3)), ALL[name](images, seeded(3)))
    assert not torch.equal(ALL[name](images, seeded(3)), ALL[name](images, seeded(4)))


@pytest.mark.parametrize("name", NOTHING)
def test_a_probability_of_zero_is_exactly_no_augmentation(name):
    images = noise(3, 21, 40)
    assert torch.equal(NOTHING[name](images, seeded()), normalised(images))


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_probability_of_one_changes_every_picture(name):
    images = noise(16, 32, 32)
    changed = (EVERYTHING[name](images, seeded()) != normalised(images)).flatten(1).any(1)
    assert changed.all()


@pytest.mark.parametrize("name", ALL)
def test_the_pictures_given_stay_as_they_are(name):
    images = noise(8, 24, 24)
    ALL[name](images, seeded())
    assert torch.equal(images, noise(8, 24, 24))


@pytest.mark.parametrize("name", [*ALL, "everything of digiface"])
def test_what_happens_to_a_picture_does_not_depend_on_its_neighbours(name):
    augmentation = ALL.get(name, EVERYTHING["digiface"])
    images, others = noise(10, 26, 26, seed=1), noise(10, 26, 26, seed=2)
    others[4] = images[4]
    assert torch.equal(augmentation(images, seeded(7))[4], augmentation(others, seeded(7))[4])


@pytest.mark.parametrize("name", ["adaface", "digiface", "erase", "flip"])
def test_as_many_draws_are_used_up_whatever_happens(name):
    states = []
    for augmentation in (NOTHING[name], EVERYTHING[name]):
        generator = seeded(5)
        augmentation(noise(6, 16, 16), generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_one_change_does_not_move_the_draws_of_another():
    images = noise(32, 24, 24)
    alone = replace(NOTHING["digiface"], warp=1.0)
    with_noise = replace(alone, noise=0.5, jpeg=0.5)
    x, y = alone(images, seeded()), with_noise(images, seeded())
    same = (x == y).flatten(1).all(1)
    assert 0 < same.sum() < 32  # those with neither noise nor JPEG are warped as before, bit for bit
    assert 0.05 < same.float().mean() < 0.55


@pytest.mark.parametrize(("augmentation", "name"), SINGLE, ids=SINGLE_NAMES)
def test_as_many_pictures_are_changed_as_the_probability_says(augmentation, name):
    images = noise(1200, 12, 12)
    x = replace(augmentation, **{name: 0.3})(images, seeded(11))
    share = (x != normalised(images)).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1200) ** 0.5)


@pytest.mark.parametrize("name", ["adaface", "digiface", "randaugment", "all"])
def test_results_are_pictures_of_8_bits(name):
    in_levels(ALL[name](noise(40, 30, 30), seeded()))


@pytest.mark.parametrize("name", [*ALL, *(f"everything of {name}" for name in EVERYTHING)])
def test_everything_happens_on_the_device_of_the_pictures(name):
    """The meta device computes nothing but, like a GPU, takes no part of a batch from the CPU, and cannot be asked for
    values: what runs on it never waits for the pictures."""
    augmentation = ALL[name] if name in ALL else EVERYTHING[name.removeprefix("everything of ")]
    x = augmentation(noise(40, 24, 24).to("meta"), seeded())
    assert x.device.type == "meta"
    assert x.shape == (40, 3, 24, 24)


def test_an_empty_batch_is_an_empty_batch():
    for augmentation in (AdaFaceAugment(), DigiFaceAugment(), RandAugment(), Erase(), Flip()):
        assert augmentation(noise(0, 16, 16), seeded()).shape == (0, 3, 16, 16)


WRONG = [
    (AdaFaceAugment, {"crop": -0.1}),
    (AdaFaceAugment, {"flip": float("nan")}),
    (AdaFaceAugment, {"crop_scale": (0.5, 0.2)}),
    (AdaFaceAugment, {"crop_scale": (0.2, 0.5, 1.0)}),
    (AdaFaceAugment, {"side_ratio": (0.0, 1.0)}),
    (AdaFaceAugment, {"crop_ratio": (0.0, 1.0)}),
    (AdaFaceAugment, {"brightness": 1.5}),
    (DigiFaceAugment, {"noise": 2}),
    (DigiFaceAugment, {"blur_px": (0.0, 1.0)}),
    (DigiFaceAugment, {"noise_levels": (0, 256)}),
    (DigiFaceAugment, {"motion_px": (0.2, 3.0)}),
    (DigiFaceAugment, {"hue_turns": 0.6}),
    (DigiFaceAugment, {"jpeg_quality": (0, 90)}),
    (DigiFaceAugment, {"warp_scale": (0.0, 1.0)}),
    (DigiFaceAugment, {"warp_corner": 0.5}),
    (DigiFaceAugment, {"aspect_ratio": (1.0, 3.0)}),
    (RandAugment, {"operations": -1}),
    (RandAugment, {"magnitude": 31}),
    (RandAugment, {"magnitude": 0}),
    (Erase, {"p": 1.1}),
    (Erase, {"scale": (0.1, 1.5)}),
    (Erase, {"ratio": (3.0, 0.3)}),
    (Erase, {"value": "grey"}),
    (Erase, {"value": 2.0}),
    (Flip, {"p": True}),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG, ids=[f"{k.__name__}.{w}" for k, w in WRONG])
def test_a_value_out_of_range_is_refused_by_name_with_the_range(kind, wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"^{kind.__name__}.{name}: expected .*\\[.*\\].*got ") as error:
        kind(**wrong)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", ["often", None, True, [0.5]])
def test_what_is_no_number_is_refused(value):
    owner = SimpleNamespace(share=value)
    with pytest.raises(ValueError, match=r"SimpleNamespace.share: expected a number in \[0, 1\], got "):
        checks.probabilities(owner, "share")


@pytest.mark.parametrize("value", [0.5, (0.5,), ("a", "b"), (0.1, float("nan")), None])
def test_what_is_no_interval_is_refused(value):
    owner = SimpleNamespace(share=value)
    with pytest.raises(ValueError, match=r"SimpleNamespace.share: expected two numbers, in order, in \[0, 1\], got "):
        checks.interval(owner, "share", 0, 1)


@pytest.mark.parametrize("value", [(20.5, 90), (20, 101), (90, 20)])
def test_an_interval_of_whole_numbers_is_one(value):
    owner = SimpleNamespace(quality=value)
    with pytest.raises(ValueError, match="quality: expected two whole numbers, in order"):
        checks.interval(owner, "quality", 1, 100, int)


@pytest.mark.parametrize("value", [2.5, True, 17, "2"])
def test_a_whole_number_is_one(value):
    with pytest.raises(ValueError, match=r"count: expected a whole number in \[0, 16\], got "):
        checks.whole(SimpleNamespace(count=value), "count", 0, 16)


@pytest.mark.parametrize(("augmentation", "names"), [(NOTHING["adaface"], ADAFACE), (NOTHING["digiface"], DIGIFACE)])
def test_whether_one_change_happens_says_nothing_about_another(augmentation, names):
    images = noise(1500, 12, 12)
    changed = [
        (replace(augmentation, **{name: 0.4})(images, seeded(2)) != normalised(images)).flatten(1).any(1)
        for name in names
    ]
    correlation = torch.corrcoef(torch.stack(changed).float()) - torch.eye(len(names))
    assert correlation.abs().max() < 5 / 1500**0.5
