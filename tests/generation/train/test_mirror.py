import dataclasses

import pytest
import torch

from generation import objectives
from generation.diffusion import alpha_bars
from generation.regressor import CLASSES, NUMBERS
from generation.train.generator import GeneratorRecipe, train_generator
from generation.train.mirror import Mirror, Reader, terms_of
from generation.train.photographs import Others, draw
from tests.generation.small import NARROW
from tests.generation.train.small import DATA, quiet

RECIPE = GeneratorRecipe(
    steps=60,
    batch_size=12,
    warmup_steps=2,
    peak_lr=3e-3,
    precision="fp32",
    threads=1,
    checkpoint_every=60,
    identity_open=0.0,
    attributes_open=0.0,
    attribute_open=0.0,
    identity_term="none",
    attribute_weight=0.3,
    looked_above=0.0,
    looked_below=1.0,
)
NAMES = ["yaw_deg", "blur_px", "hat", "background"]
YAW = NUMBERS.index("yaw_deg")


def reading(numbers):
    """Of pictures whose first number is their yaw: a regressor that sees nothing else."""

    def read(pictures, crops):
        assert pictures.shape == crops.shape
        seen = torch.zeros(len(pictures), len(NUMBERS))
        seen[:, YAW] = numbers(pictures)
        seen[:, NUMBERS.index("blur_px")] = 1e6
        return seen, *(torch.zeros(len(pictures), styles) for styles in CLASSES.values())

    return read


def reader(numbers):
    mean, std = torch.zeros(len(NUMBERS)), torch.full((len(NUMBERS),), 10.0)
    mean[YAW] = 5.0
    return Reader(reading(numbers), mean, std)


def batch_of(asked, attributes):
    batch = draw(
        DATA, Others(DATA.labels, DATA.sources), dataclasses.replace(RECIPE, batch_size=2), NARROW, 0, 0, 1, "cpu"
    )
    return dataclasses.replace(
        batch,
        attributes=torch.tensor(attributes),
        asked=torch.tensor(asked),
        someone=torch.zeros(2, dtype=torch.bool),
        timesteps=torch.tensor([100, 200]),
    )


def as_pictures(latents):
    return torch.cat([latents, latents[:, :1]], 1)


def test_an_attribute_term_is_what_is_seen_against_what_was_asked_for_and_nothing_else():
    batch = batch_of([[True, True, True, True], [False, True, False, True]], [[25.0, 1, 2, 7], [90.0, 0, 1, 9]])
    mirror = Mirror(as_pictures, reader=reader(lambda pictures: torch.tensor([1.0, 0.0])))
    terms = terms_of(mirror, batch.latents, batch, RECIPE, NAMES)
    # Yaw is seen at 1 standard deviation and wanted at 2; the hat is one of four, each as likely; blur is not read, and
    # the second row asks for neither. A mean over two rows.
    assert terms["attributes"].item() == pytest.approx((1 - 0.15 + torch.log(torch.tensor(4.0)).item()) / 2, abs=1e-5)
    assert terms["identity"] == 0


def test_rows_that_ask_for_nothing_are_not_looked_at():
    def decode(latents):
        raise AssertionError(len(latents))

    batch = batch_of([[False] * 4] * 2, [[0.0] * 4] * 2)
    terms = terms_of(Mirror(decode, reader=reader(torch.zeros)), batch.latents, batch, RECIPE, NAMES)
    assert terms["attributes"] == 0


def test_nobody_asked_for_is_nobody_missed():
    batch = batch_of([[True] * 4] * 2, [[0.0] * 4] * 2)
    mirror = Mirror(as_pictures, embed=lambda crops: torch.ones(len(crops), 8), reader=reader(lambda p: torch.zeros(2)))
    told = dataclasses.replace(RECIPE, identity_term="cosine")
    assert terms_of(mirror, batch.latents, batch, told, NAMES)["identity"] == 0
    someone = dataclasses.replace(batch, someone=torch.tensor([True, False]))
    seen = torch.nn.functional.cosine_similarity(torch.ones(8), batch.vectors[0], dim=0)
    told_of_one = terms_of(mirror, batch.latents, someone, told, NAMES)["identity"]
    assert told_of_one.item() == pytest.approx((1 - seen.item()) / 2, abs=1e-5)


def test_an_attribute_term_draws_pictures_towards_what_was_asked_for(tmp_path):
    def yaw_seen(pictures):
        return pictures[:, 0].mean((1, 2)) * 2

    mirror = Mirror(as_pictures, reader=reader(yaw_seen))
    off = {}
    for weight in (0.0, 3.0):
        told = dataclasses.replace(RECIPE, attribute_weight=weight)
        model = train_generator(DATA, NARROW, told, tmp_path / str(weight), quiet, mirror=mirror)
        batch = draw(
            DATA, Others(DATA.labels, DATA.sources), dataclasses.replace(told, batch_size=64), NARROW, 99, 0, 1, "cpu"
        )
        bar = alpha_bars()[batch.timesteps]
        noisy = objectives.noised(batch.latents, batch.noise, bar)
        with torch.no_grad():
            condition = model.condition(model.context(batch.vectors), batch.attributes, batch.asked)
            clean = objectives.clean_estimate("v", model(noisy, batch.timesteps, condition), noisy, bar)
        off[weight] = terms_of(mirror, clean, batch, RECIPE, ["yaw_deg", "background"])["attributes"].item()
    assert off[3.0] < 0.8 * off[0.0]
