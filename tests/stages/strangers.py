"""Generators of unconditional pictures: a picture depends on its seed alone."""

import numpy as np

from generation.world import attribute_table, render, sample_people


class Strangers:
    """Renders of whoever a seed draws.

    Args:
        space: That it would be conditioned on.
    """

    def __init__(self, space):
        self.space = space

    def strangers(self, seeds):
        people = np.concatenate([sample_people(1, np.random.default_rng(seed)) for seed in seeds])
        return render(people, attribute_table([{}] * len(seeds)), seeds).pixels


class Noise:
    """Noise, a share of it `dark`: for a detector that takes whatever is bright for a face."""

    def __init__(self, space, dark=0.0):
        self.space, self.dark = space, dark

    def strangers(self, seeds):
        return np.stack([self._picture(np.random.default_rng(seed)) for seed in seeds])

    def _picture(self, rng):
        return rng.integers(0, 5 if rng.random() < self.dark else 256, (112, 112, 3), np.uint8)
