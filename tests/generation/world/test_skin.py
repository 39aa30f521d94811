"""The paint of the skin, which must be a number everywhere."""

import numpy as np
import torch

from generation.world import attribute_table, sample_people
from generation.world.anatomy import DEG, measure
from generation.world.circumstances import DAY
from generation.world.skin import paint


def test_the_point_that_crows_feet_spread_from_is_painted_like_its_neighbours():
    people = torch.from_numpy(sample_people(1, np.random.default_rng(0)))
    table = torch.from_numpy(attribute_table([{"age_years": 75.0}]))
    m = measure(people, table, torch.zeros(1, DAY))
    point = (m.eye_lon + m.eye_half * 1.1 - 5 * DEG).item()
    spacing = np.spacing(np.float32(point))
    lon = torch.from_numpy((np.float32(point) + spacing * np.arange(-64, 64)).astype(np.float32)).reshape(1, 1, 1, -1)
    assert (lon - m.eye_lon - m.eye_half * 1.1 + 5 * DEG == 0).any()
    lat = m.eye_lat.expand_as(lon)
    fields = {name: torch.zeros_like(lon) for name in ("beard",)}
    base = paint(m, lon, lat, fields).base
    assert torch.isfinite(base).all()
    assert (base - base.mean(3, keepdim=True)).abs().max() < 1e-3
