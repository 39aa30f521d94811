import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generation.diffusion import Autoencoder, AutoencoderShape, DenoiserShape
from generation.train.decoder import Critic, DecoderRecipe, train_decoder
from generation.train.photographs import Photographs
from tests.generation.small import TAUGHT, TOLD, denoiser, stirred
from tests.generation.train.small import BEHOLDER, StopError, quiet, stop
from tests.generation.train.two_processes import said_by_both

SHAPE = AutoencoderShape(widths=(16, 16, 16), latent_channels=2)
DENOISER = DenoiserShape(
    TOLD[:2],
    identity_dimensions=8,
    widths=(32, 32),
    heads=2,
    token_width=8,
    identity_tokens=2,
    context_width=16,
    latent_channels=2,
    circumstances=3 * 14**2 + 1,
)
RECIPE = DecoderRecipe(
    steps=4, batch_size=2, warmup_steps=1, critic_from=1, threads=1, precision="fp32", checkpoint_every=2
)


def photographs(rows=6):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, 8)).astype(np.float32)
    return Photographs(
        rng.standard_normal((rows, 2, 14, 14)).astype(np.float16),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        rng.uniform(-20, 20, (rows, 2)).astype(np.float32),
        np.arange(rows),
        np.arange(rows),
        np.tile(np.eye(2, 3, dtype=np.float32), (rows, 1, 1)),
        rng.uniform(-0.3, 0.3, (rows, DENOISER.circumstances)).astype(np.float32),
    )


DATA = photographs()
PICTURES = np.random.default_rng(1).integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)


def born():
    torch.manual_seed(3)
    return stirred(Autoencoder(SHAPE))


def trained(folder, recipe=RECIPE, say=quiet, model=None, taught=TAUGHT):
    return train_decoder(
        DATA, PICTURES, model or born(), denoiser(DENOISER), recipe, folder, BEHOLDER, taught=taught, say=say
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"))


def test_training_that_was_stopped_goes_on_to_the_same_weights_and_so_does_its_critic(whole, tmp_path):
    with pytest.raises(StopError, match=r"step 2/4, loss \d.*, perceptual \d.*, critic \d"):
        trained(tmp_path, say=stop)
    continued = trained(tmp_path)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def train(folder, say=print):
    return trained(folder, say=say)


@torch.no_grad()
def test_two_processes_learn_what_one_does(whole, by_two_processes):
    folder = by_two_processes / "test_decoder"
    assert said_by_both(folder).count("step 4/4") == 1  # the first process alone says and keeps
    both = born()
    both.load_state_dict(torch.load(folder / "decoder.pt", weights_only=True)["average"])
    latents = torch.from_numpy(DATA.latents.astype(np.float32))
    torch.testing.assert_close(both.decode(latents), whole.decode(latents), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole.decode(latents), born().decode(latents), atol=1e-2)


def test_the_decoder_alone_is_learnt_and_latents_mean_what_they_meant(whole):
    before = born().state_dict()
    changed = {name for name, tensor in whole.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("kl.decoder.")}


def test_a_picture_is_redrawn_better_than_before(tmp_path):
    longer = dataclasses.replace(RECIPE, steps=30, critic_from=30, checkpoint_every=10, peak_lr=2e-3)
    told = []
    trained(tmp_path, longer, told.append)
    first, *_, last = (float(line.partition("crop ")[2].partition(",")[0]) for line in told)
    assert last < first


def test_estimates_are_asked_of_the_denoiser_with_or_without_guidance_and_encoded_latents_are_not(whole, tmp_path):
    untold = trained(tmp_path / "untold", taught=None)
    encoded = trained(tmp_path / "encoded", dataclasses.replace(RECIPE, estimated=0.0))
    blind = trained(tmp_path / "blind", dataclasses.replace(RECIPE, estimated=0.0), taught=None)
    last = "kl.decoder.conv_out.weight"
    assert not torch.equal(untold.state_dict()[last], whole.state_dict()[last])
    assert not torch.equal(encoded.state_dict()[last], whole.state_dict()[last])
    assert torch.equal(encoded.state_dict()[last], blind.state_dict()[last])


def test_the_critic_is_listened_to_from_its_step_on_and_by_its_weight(whole, tmp_path):
    last = "kl.decoder.conv_out.weight"
    deaf = trained(tmp_path / "deaf", dataclasses.replace(RECIPE, critic_from=9)).state_dict()[last]
    unheard = trained(tmp_path / "unheard", dataclasses.replace(RECIPE, critic_weight=0.0)).state_dict()[last]
    torch.testing.assert_close(deaf, unheard)
    assert not torch.allclose(deaf, whole.state_dict()[last], atol=1e-6)


def test_a_critic_learns_to_tell_pictures_from_drawings():
    torch.manual_seed(0)
    critic = Critic(2e-3, "cpu")
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        rough = torch.rand(4, 3, 32, 32, generator=rng) * 2 - 1
        smooth = F.avg_pool2d(rough, 5, stride=1, padding=2)
        loss = critic.learn(rough, smooth)
    assert loss < 1.5  # 2 is of a critic that has no opinion
    assert critic.displeasure(smooth) > critic.displeasure(rough) + 0.3
    assert not any(parameter.requires_grad for parameter in critic.network.parameters())


def test_a_picture_that_cannot_be_aligned_is_refused(tmp_path):
    blind = dataclasses.replace(DATA, to_crop=None)
    with pytest.raises(ValueError, match="to_crop: expected what aligns each picture, got none"):
        train_decoder(blind, PICTURES, born(), denoiser(DENOISER), RECIPE, tmp_path, BEHOLDER)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"estimated": 1.5}, "estimated: expected 0 to 1, got 1.5"),
        ({"earliest": 0.5}, r"earliest: expected 0 to less than latest, got 0.5"),
        ({"latest": 1.1}, "latest: expected 0 to 1, got 1.1"),
        ({"critic_lr": 0.0}, "critic_lr: expected more than 0, got 0.0"),
        ({"critic_weight": float("nan")}, "critic_weight: expected at least 0, got nan"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0 to less than 1, got 1.0"),
        ({"precision": "fp16"}, "precision: expected one of bf16, fp32"),
    ],
)
def test_a_recipe_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        DecoderRecipe(**wrong)
