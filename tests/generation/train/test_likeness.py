import pytest
import torch

from generation.regressor import NUMBERS
from generation.train.autoencoder import AutoencoderRecipe
from generation.train.likeness import Beholder, unlike, weighted
from tests.generation.train.small import BEHOLDER

TO_CROP = torch.eye(2, 3).repeat(2, 1, 1)


def pictures(seed):
    return torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_picture_is_like_itself():
    told = unlike(pictures(0), pictures(0), TO_CROP, BEHOLDER)
    assert list(told) == ["whole", "crop", "edge", "perceptual", "reading"]
    for name, value in told.items():
        assert value.item() == pytest.approx(0, abs=1e-5), name
    assert all(value > 0.001 for value in unlike(pictures(0), pictures(1), TO_CROP, BEHOLDER).values())


def test_what_a_reader_sees_is_compared_and_the_camera_is_not():
    def numbers(seen, crops):
        read = torch.zeros(len(seen), len(NUMBERS))
        read[:, NUMBERS.index("smile")] = seen.mean((1, 2, 3))
        read[:, NUMBERS.index("blur_px")] = 1e6 * seen.mean((1, 2, 3))
        return read

    beholder = Beholder(BEHOLDER.features, numbers)
    told = unlike(pictures(0) * 0 + 1, pictures(0) * 0, TO_CROP, beholder)
    assert told["reading"].item() == pytest.approx(1 - 0.15)  # smooth L1 of 1 with a square within 0.3


def test_weights_are_those_of_the_recipe():
    recipe = AutoencoderRecipe(crop_weight=2, edge_weight=3, perceptual_weight=5, reading_weight=7)
    parts = dict.fromkeys(["whole", "crop", "edge", "perceptual", "reading"], torch.tensor(1.0))
    assert weighted(parts, recipe) == 18
    assert weighted(parts | {"reading": torch.tensor(0.0)}, recipe) == 11
