"""Four people of twelve photographs each, and a recipe that trains on them in a second."""

import numpy as np
import pytest

from recognition.margins import ArcFace
from recognition.train import Pictures, Recipe

RECIPE = Recipe(
    backbone="iresnet_tiny",
    margin=ArcFace(0.2, 16.0),
    epochs=2,
    batch_size=16,
    peak_lr=0.02,
    warmup_epochs=0.5,
    precision="fp32",
    threads=1,
)


def faces(people: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A coarse pattern of colours that is a person's own, reddish as skin is, under noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 200, (people, 7, 7, 3)).repeat(16, 1).repeat(16, 2) + np.array([55, 20, 0])
    labels = np.arange(people * each) % people
    noise = rng.normal(0, 30, (people * each, 112, 112, 3))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="package")
def people():
    return Pictures(*faces(4, 12))
