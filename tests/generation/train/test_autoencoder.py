import dataclasses

import numpy as np
import pytest
import torch

from generation.train.autoencoder import AutoencoderRecipe, cache_latents, read_latents, train_autoencoder
from tests.generation.train.small import BEHOLDER, StopError, quiet, stop

RECIPE = AutoencoderRecipe(
    steps=4, batch_size=2, warmup_steps=1, widths=(16, 16, 16), threads=1, precision="fp32", checkpoint_every=2
)


@pytest.fixture(scope="module")
def renders():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)
    return pictures, np.tile(np.eye(2, 3, dtype=np.float32), (6, 1, 1))


@pytest.fixture(scope="module")
def whole(renders, tmp_path_factory):
    return train_autoencoder(*renders, RECIPE, tmp_path_factory.mktemp("whole"), BEHOLDER, quiet)


def test_training_that_was_stopped_goes_on_to_the_same_weights(renders, whole, tmp_path):
    with pytest.raises(StopError, match=r"step 2/4, loss \d.*, whole \d.*, kl \d"):
        train_autoencoder(*renders, RECIPE, tmp_path, BEHOLDER, stop)
    looks = []
    continued = train_autoencoder(*renders, RECIPE, tmp_path, BEHOLDER, quiet, lambda _, step: looks.append(step))
    assert looks == [3, 4]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_the_work_of_another_recipe_is_refused(renders, tmp_path):
    once = dataclasses.replace(RECIPE, steps=1)
    train_autoencoder(*renders, once, tmp_path, BEHOLDER, quiet)
    with pytest.raises(ValueError, match=r"'jitter': 0\.3"):
        train_autoencoder(*renders, dataclasses.replace(once, jitter=0.3), tmp_path, BEHOLDER, quiet)


def test_readings_that_count_need_someone_who_reads(renders, tmp_path):
    blind = dataclasses.replace(BEHOLDER, numbers=None)
    with pytest.raises(ValueError, match=r"reading_weight: expected a beholder that reads for 0\.02, got none"):
        train_autoencoder(*renders, RECIPE, tmp_path, blind, quiet)
    train_autoencoder(*renders, dataclasses.replace(RECIPE, reading_weight=0.0), tmp_path, blind, quiet)


def test_latents_are_cached_with_the_statistics_that_made_them(renders, whole, tmp_path):
    pictures = renders[0]
    cache_latents(whole, pictures, tmp_path / "latents.npz", batch_size=4, precision="fp32")
    latents = read_latents(whole, tmp_path / "latents.npz")
    assert latents.shape == (6, 4, 14, 14)
    np.testing.assert_allclose(latents.astype(np.float32).std((0, 2, 3)), np.ones(4), atol=0.02)
    mean, std = whole.mean.clone(), whole.std.clone()
    whole.mean.zero_()
    whole.std.fill_(1)
    cache_latents(whole, pictures[:1], tmp_path / "latents.npz")  # they are there: nothing is encoded
    assert np.array_equal(latents, read_latents(whole, tmp_path / "latents.npz"))
    assert torch.equal(whole.mean, mean)
    assert torch.equal(whole.std, std)
    torch.testing.assert_close(
        whole.encode(torch.from_numpy(pictures[:1]).permute(0, 3, 1, 2) / 127.5 - 1),
        torch.from_numpy(latents[:1]).float(),
        atol=0.01,
        rtol=0.01,
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"kl_weight": -1.0}, "kl_weight: expected at least 0"),
        ({"precision": "fp16"}, "precision: expected one of bf16, fp32"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0 to less than 1, got 1.0"),
        ({"peak_lr": 0.0}, "peak_lr: expected more than 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay: expected at least 0, got -1.0"),
        ({"widths": (16, 24, 32)}, r"widths: expected 3 positive multiples of 16, got \(16, 24, 32\)"),
    ],
)
def test_a_recipe_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        AutoencoderRecipe(**wrong)
