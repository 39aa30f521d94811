"""The regressor's data, training and export, on few pictures: what it has learnt is tested on the bundled weights."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch

from generation.close_up import closer
from generation.pixels import as_input
from generation.regressor import CLASSES, LOGARITHMIC, NUMBERS, InUnits, Regressor
from generation.train.regressor import (
    BLOCK,
    PEOPLE_STREAM,
    Examples,
    RegressorRecipe,
    attribute_loss,
    classes_of,
    drawn_block,
    export_regressor,
    numbers_of,
    read_blocks,
    render_block,
    shaken,
    train_regressor,
)
from generation.world import CONTROLS, attribute_table, render
from generation.world.scenes import generator_attributes

RECIPE = RegressorRecipe(steps=4, batch_size=8, checkpoint_every=2, precision="fp32", threads=1)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    table = attribute_table(generator_attributes(16, rng))
    pictures, crops = rng.integers(0, 255, (2, 16, 112, 112, 3), np.uint8)
    return Examples(pictures, crops, table, np.repeat(np.arange(4), 4))


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_blocks_are_rendered_once_and_drawn_again_alike(tmp_path):
    path = render_block(tmp_path, 0, pictures=1)
    before = path.stat().st_mtime_ns
    assert render_block(tmp_path, 0, pictures=1).stat().st_mtime_ns == before
    read = read_blocks([path], lambda pictures: 255 - pictures)
    people, table, seeds = drawn_block(PEOPLE_STREAM, 2026, 0, 1, generator_attributes)
    assert np.array_equal(read.attributes, table)
    assert read.labels.tolist() == list(range(BLOCK))
    expected = closer(render(people[:2], table[:2], seeds[:2], 140).pixels)  # the first block is of close-ups
    assert np.array_equal(read.pictures[:2], expected)
    assert np.array_equal(read.crops[:2], 255 - expected)
    assert read.of(range(3, 5)).labels.tolist() == [3, 4]


def test_a_whole_picture_enlarged_shows_what_a_close_up_shows():
    people, table, seeds = drawn_block(PEOPLE_STREAM, 1, 0, 1, generator_attributes)
    whole, large = (render(people[:4], table[:4], seeds[:4], size).pixels for size in (112, 140))
    x, close, still = as_input(torch.from_numpy(whole)), closer(large).astype(float), torch.Generator().manual_seed(0)

    def nearest(enlarged: bool) -> np.ndarray:  # shifts and scales are drawn: the best of many is close to none
        tries = [shaken(x, torch.full((4,), enlarged), still) for _ in range(20)]
        return np.min([np.abs(_bytes(moved) - close).mean((1, 2, 3)) for moved in tries], 0)

    assert (nearest(True) < 0.75 * nearest(False)).all()


def _bytes(pixels):
    return (pixels * 127.5 + 127.5).permute(0, 2, 3, 1).numpy()


def test_low_resolution_has_no_effect_beyond_the_side_of_the_picture():
    table = attribute_table([{"low_resolution_px": 256}, {"low_resolution_px": 40}])
    assert numbers_of(table)[:, NUMBERS.index(LOGARITHMIC)].tolist() == [112, 40]
    assert numbers_of(table)[0, 0] == table[0, CONTROLS.index("yaw_deg")]


def test_styles_are_rounded_as_the_renderer_rounds_them():
    table = attribute_table([{"hat": 1.6}, {"hat": 0.4}])
    assert classes_of(table, "hat").tolist() == [2, 0]


def test_the_loss_is_nothing_for_a_perfect_reading_and_grows_with_one_attribute_alone():
    numbers = torch.randn(5, len(NUMBERS))
    styles = torch.tensor([0, 1, 2, 3, 0])
    sure = torch.nn.functional.one_hot(styles, 4) * 50.0
    assert attribute_loss((numbers, sure, sure), numbers, styles, styles) < 1e-6
    wrong = numbers.clone()
    wrong[:, 3] += 2.0
    told = attribute_loss((wrong, sure, sure), numbers, styles, styles)
    assert told == pytest.approx(2.0 - 0.3 / 2, abs=1e-4)  # smooth L1 beyond beta: |x| - beta / 2


def test_training_that_was_stopped_continues_to_the_same_weights(examples, tmp_path):
    whole = train_regressor(examples, examples, RECIPE, tmp_path / "whole", say=lambda _: None)

    class StopError(Exception):
        pass

    def stop(line: str) -> None:
        raise StopError(line)

    with pytest.raises(StopError, match="regressor: step 2/4"):
        train_regressor(examples, examples, RECIPE, tmp_path / "parts", say=stop)
    continued = train_regressor(examples, examples, RECIPE, tmp_path / "parts", say=lambda _: None)
    assert same(whole.state_dict(), continued.state_dict())
    other = dataclasses.replace(RECIPE, seed=14)
    with pytest.raises(ValueError, match="'seed': 14"):
        train_regressor(examples, examples, other, tmp_path / "whole", say=lambda _: None)


def test_the_exported_regressor_tells_units_and_probabilities(examples, tmp_path):
    torch.manual_seed(0)
    numbers = torch.from_numpy(numbers_of(examples.attributes))
    model = Regressor(numbers.mean(0).clamp(max=6), numbers.std(0).clamp(min=0.1, max=1)).eval()
    export_regressor(model, tmp_path / "regressor.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "regressor.onnx", providers=["CPUExecutionProvider"])
    pixels, crops = torch.randn(2, 3, 3, 112, 112)
    told = session.run(["numbers", *CLASSES], {"pixels": pixels.numpy(), "crops": crops.numpy()})
    for said, expected in zip(told, InUnits(model)(pixels, crops), strict=True):
        np.testing.assert_allclose(said, expected.detach().numpy(), rtol=1e-3, atol=1e-3)
    assert told[1].sum(1) == pytest.approx(1, abs=1e-5)
    standardised = model(pixels, crops)[0].detach()
    place = NUMBERS.index(LOGARITHMIC)
    octaves = standardised[:, place] * model.std[place] + model.mean[place]
    np.testing.assert_allclose(told[0][:, place], 2 ** octaves.numpy(), rtol=1e-3)


def test_it_is_small():
    assert sum(parameter.numel() for parameter in Regressor().parameters()) <= 1_200_000
