import numpy as np
import pytest
import torch

from generation.regressor import NUMBERS
from generation.train.calibrate import (
    Asked,
    CalibrationRecipe,
    calibrate,
    nearest,
    stretched,
)
from tests.generation.small import DENOISER, autoencoder, denoiser, generator

RECIPE = CalibrationRecipe(batches=4, batch_size=6, steps=1)
NAMES = [control.name for control in DENOISER.controls]


def asked_of(rows, seed=0):
    """Photographs of nobody in particular: attributes evenly between their bounds, renders that show them exactly."""
    rng = np.random.default_rng(seed)
    low, high = (np.array([getattr(control, end) for control in DENOISER.controls]) for end in ("low", "high"))
    attributes = rng.uniform(low, high, (rows, len(NAMES))).astype(np.float32)
    vectors = rng.standard_normal((rows, DENOISER.identity_dimensions)).astype(np.float32)
    numbers = attributes[:, [NAMES.index(name) for name in NUMBERS]]
    return Asked(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), attributes, numbers)


def test_a_stretched_token_is_that_of_features_moved_away_from_the_mean():
    model, stretch = denoiser(), torch.linspace(0.5, 2, len(NAMES))
    attributes = torch.from_numpy(asked_of(5).attributes)
    features = model.features(attributes)
    about = features.mean(0)
    code, place = stretched(model.code, model.place, about, stretch)
    found = torch.einsum("baf,afw->baw", features, code) + place
    moved = about + stretch[:, None] * (features - about)
    torch.testing.assert_close(found, torch.einsum("baf,afw->baw", moved, model.code) + model.place)


def test_a_stretch_of_one_changes_nothing():
    model = denoiser()
    code, place = stretched(model.code, model.place, torch.rand(len(NAMES), 7), torch.ones(len(NAMES)))
    assert torch.equal(code, model.code)
    assert torch.equal(place, model.place)


def test_the_stretch_is_found_that_brings_pictures_nearest_although_it_is_drawn_for_each_row():
    rng = np.random.default_rng(1)
    rendered, stretch = rng.normal(3, 2, 4000), rng.uniform(0.75, 2.25, 4000)
    seen = 3 + 0.625 * stretch * (rendered - 3) + rng.normal(0, 0.5, 4000)
    seen[::7] = np.nan  # no face
    assert nearest(seen - rendered, stretch, 0.75, 2.25) == pytest.approx(1.6, abs=0.05)
    assert nearest(seen - rendered, stretch, 0.75, 1.4) == 1.4  # as near as can be had


def test_a_model_is_stretched_by_what_is_seen_in_its_pictures():
    model, before, asked = generator(), denoiser(), asked_of(40)
    shown = []

    def read(pictures):
        shown.append(pictures)
        return np.tile(pictures.mean((1, 2, 3))[:, None], len(NUMBERS)).astype(np.float32)

    found = calibrate(model, asked.attributes, asked, read, RECIPE, lambda _: None)
    assert [len(pictures) for pictures in shown] == [RECIPE.batch_size] * RECIPE.batches
    assert calibrate(generator(), asked.attributes, asked, read, RECIPE, lambda _: None) == found
    assert set(found) == set(RECIPE.attributes)
    about = before.features(torch.from_numpy(asked.attributes)).mean(0)
    stretch = torch.tensor([found.get(name, 1.0) for name in NAMES])
    code, place = stretched(before.code, before.place, about, stretch)
    torch.testing.assert_close(model.denoiser.code, code)
    torch.testing.assert_close(model.denoiser.place, place)
    untouched = {name: value for name, value in before.state_dict().items() if name not in ("code", "place")}
    assert all(torch.equal(model.denoiser.state_dict()[name], value) for name, value in untouched.items())
    assert all(
        torch.equal(a, b) for a, b in zip(model.autoencoder.parameters(), autoencoder().parameters(), strict=True)
    )


def test_pictures_without_a_single_face_are_refused_by_number():
    asked = asked_of(20)
    nothing = np.full((RECIPE.batch_size, len(NUMBERS)), np.nan, np.float32)
    with pytest.raises(ValueError, match=r"calibration: expected faces in at least half of 24 pictures, found 0"):
        calibrate(generator(), asked.attributes, asked, lambda _: nothing, RECIPE, lambda _: None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batches", 0), ("steps", 0), ("scheduler", "euler"), ("lowest", 0.0), ("lowest", 1.1), ("highest", 0.9)],
)
def test_a_recipe_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got {value!r}"):
        CalibrationRecipe(**{name: value})


def test_only_what_a_reader_reads_can_be_stretched():
    with pytest.raises(ValueError, match=r"^attributes: expected some of yaw_deg, .*, got background, hat"):
        CalibrationRecipe(attributes=("smile", "hat", "background"))
