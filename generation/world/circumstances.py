"""What a photograph has that no attribute names: the wall behind, the colour of a hat, the day, the framing.

The seed of the background and that of the picture fix all of it. A generator that is not told of it can only draw its
mean: grey walls and one haircut for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from generation.world import camera, things
from generation.world.attributes import CONTROLS, check_table

DAY, FRAMING = 3, 3  # standard normal numbers: cut, volume and shave; shift in x and y, and zoom
NUMBERS = 3 + DAY + FRAMING  # the first three: red, green and blue of a hat; clothes are below the frame
_BACKGROUND = CONTROLS.index("background")


def luck(rngs: Sequence[np.random.Generator]) -> Float32[np.ndarray, "b 6"]:
    """Day and framing of pictures, the first numbers that their seeds give."""
    return np.stack([rng.standard_normal(DAY + FRAMING) for rng in rngs]).astype(np.float32)


def styles(attributes: Float32[np.ndarray, "b a"]) -> Float32[np.ndarray, "b s"]:
    """The random numbers of backgrounds and clothes."""
    return np.stack([things.style(float(x)) for x in attributes[:, _BACKGROUND]]).astype(np.float32)


def circumstances_of(
    attributes: Float32[np.ndarray, "b a"],
    seeds: Int64[np.ndarray, " b"],
    rows_px: Float[np.ndarray, " h"],
    columns_px: Float[np.ndarray, " w"],
    size_px: int,
) -> Float32[np.ndarray, "b n"]:
    """The circumstances of photographs as `render` takes them, in numbers.

    Args:
        attributes: One row each, from `attribute_table`.
        seeds: Non-negative, of the pictures.
        rows_px, columns_px: Where the wall is looked at; the middle of the top left pixel is 0.
        size_px: Side of the picture.
    Returns:
        The wall at those places as the camera sees it, red first, row by row, in [-1, 1]; then `NUMBERS`.
    Raises:
        ValueError: If the table leaves the range of an attribute, or a seed is negative.
    """
    check_table(attributes)
    if (seeds < 0).any():
        raise ValueError(f"expected seeds >= 0, got {seeds.min()}")
    across = -(-size_px // 16) * 16 - 1  # the wall of a picture ends where whole vector registers do
    rows, columns = (torch.from_numpy(2 * at / across - 1).float() for at in (rows_px, columns_px))
    # Row by row: in a tensor of several, where a row lies decides how its numbers are rounded.
    seen = [_surroundings(attributes[i : i + 1], rows, columns) for i in range(len(attributes))]
    chance = luck([np.random.default_rng(int(seed)) for seed in seeds])
    return np.concatenate([np.concatenate(seen), chance], 1)


def _surroundings(
    attributes: Float32[np.ndarray, "1 a"], rows: Float[Tensor, " h"], columns: Float[Tensor, " w"]
) -> Float32[np.ndarray, "1 n"]:
    """The wall, and the colour of a hat."""
    table, style = torch.from_numpy(attributes), torch.from_numpy(styles(attributes))
    wall = 2 * camera.develop(things.wall(style, rows, columns), table) - 1
    return torch.cat([wall.flatten(1), _seen(things.hat_colour(style))], 1).numpy()


def random_backgrounds(seeds: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, " b"]:
    """Backgrounds of pictures for which none is asked: one for each seed."""
    return np.array([np.random.default_rng([int(seed), 78]).integers(65536) for seed in seeds], np.float32)


def _seen(colour: Float[Tensor, "b 3 1 1"]) -> Float[Tensor, "b 3"]:
    """A reflectance in [-1, 1], as bright as the eye sees it."""
    return 2 * colour.flatten(1).clamp(0, 1).pow(1 / 2.2) - 1
