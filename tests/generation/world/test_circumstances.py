import numpy as np
import pytest

from generation.close_up import close_up_circumstances, closer
from generation.world import CONTROLS, attribute_table, circumstances_of, render, sample_people
from generation.world.circumstances import DAY, NUMBERS, luck, random_backgrounds

CELLS = 14


def close_ups(count=24, **attributes):
    """Photographs with a wall each, what they are told to be like, and what there is to see."""
    rng = np.random.default_rng(3)
    rows = [
        {
            "background": float(rng.integers(65536)),
            "exposure_ev": rng.normal(0, 0.5),
            "white_balance": rng.uniform(-1, 1),
        }
        | attributes
        for _ in range(count)
    ]
    table, seeds = attribute_table(rows), rng.integers(0, 2**62, count)
    told = close_up_circumstances(table, seeds, CELLS)
    return table, seeds, told, closer(render(sample_people(count, rng), table, seeds, 140).pixels)


def wall_of(told):
    return told[:, : 3 * CELLS**2].reshape(-1, 3, CELLS, CELLS).transpose(0, 2, 3, 1)


def test_the_wall_is_that_of_the_render():
    *_, told, pictures = close_ups()
    cells = pictures.reshape(-1, CELLS, 8, CELLS, 8, 3).mean((2, 4))
    off = np.abs(wall_of(told) * 127.5 + 127.5 - cells)
    assert np.median(off[:, 0, [0, -1]]) < 1  # levels, in the upper corners, where no hair hangs
    assert np.quantile(off[:, 0, [0, -1]], 0.9) < 3
    assert np.median(off[:, 6:8, 6:8]) > 10  # where the face is, it is hidden


def test_the_colour_of_a_hat_is_that_of_the_render():
    table, seeds, told, _ = close_ups(hat=1.0, ambient=1.0, exposure_ev=0.0, white_balance=0.0)
    drawn = render(sample_people(24, np.random.default_rng(0)), table, seeds, 140, truth=True)
    hats = np.stack([picture[mask == 7].mean(0) for picture, mask in zip(drawn.pixels, drawn.masks, strict=True)])
    for channel in range(3):
        assert np.corrcoef(hats[:, channel], told[:, 3 * CELLS**2 + channel])[0, 1] > 0.95


def test_day_and_framing_are_what_the_seed_gives_first():
    _table, seeds, told, _ = close_ups(3)
    expected = np.stack([np.random.default_rng(int(seed)).standard_normal(6) for seed in seeds]).astype(np.float32)
    np.testing.assert_array_equal(told[:, -6:], expected)
    assert told.shape == (3, 3 * CELLS**2 + NUMBERS)
    assert NUMBERS == 3 + DAY + 3
    np.testing.assert_array_equal(luck([np.random.default_rng(int(seeds[0]))])[0], expected[0])


def test_framing_moves_the_picture_as_the_numbers_say():
    people = np.repeat(sample_people(1, np.random.default_rng(1)), 40, 0)
    table, seeds = attribute_table([{}] * 40), np.arange(40)
    across = circumstances_of(table, seeds, np.zeros(1), np.zeros(1), 112)[:, -3]
    tip = render(people, table, seeds, 112).landmarks[:, 2, 0]
    assert np.corrcoef(across, tip)[0, 1] > 0.99


def test_a_row_is_told_alike_beside_any_others():
    table, seeds, told, _ = close_ups(5)
    np.testing.assert_array_equal(close_up_circumstances(table[2:3], seeds[2:3], CELLS)[0], told[2])


def test_bad_input_is_named():
    table = attribute_table([{}])
    with pytest.raises(ValueError, match="expected seeds >= 0, got -4"):
        close_up_circumstances(table, np.array([-4]), CELLS)
    table[0, CONTROLS.index("background")] = 1e6
    with pytest.raises(ValueError, match="expected 0 <= background <= 65535, got 1000000"):
        close_up_circumstances(table, np.array([4]), CELLS)


def test_backgrounds_that_nobody_asks_for_are_one_for_each_seed():
    drawn = random_backgrounds(np.arange(400))
    np.testing.assert_array_equal(drawn[7:9], random_backgrounds(np.array([7, 8])))
    assert len(set(drawn.tolist())) > 390
    assert drawn.min() >= 0
    assert drawn.max() <= 65535
    assert abs(drawn.mean() - 32767) < 3000
