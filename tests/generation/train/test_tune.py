import dataclasses
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generation.diffusion import Denoiser, alpha_bars
from generation.sampling import SCHEDULERS, Guidance, sample
from generation.train.generator import denoising_of
from generation.train.mirror import Mirror
from generation.train.photographs import Others, draw
from generation.train.tune import DETERMINISTIC, TuningRecipe, drawn, tune
from tests.generation.small import denoiser
from tests.generation.train.small import StopError, quiet, stop
from tests.generation.train.test_decoder import DENOISER, born, photographs
from tests.generation.train.test_mirror import reader
from tests.generation.train.two_processes import said_by_both

RECIPE = TuningRecipe(
    steps=4,
    batch_size=8,
    warmup_steps=1,
    peak_lr=1e-3,
    identity_weight=0.5,
    drawn_steps=2,
    learnt_steps=2,
    attribute_weight=0.0,
    identity_open=0.25,
    taken=1.0,
    precision="fp32",
    threads=1,
    checkpoint_every=2,
)
DATA = dataclasses.replace(photographs(20), labels=np.repeat(np.arange(5), 4))
PICTURES = np.random.default_rng(3).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
SEEN = torch.randn(3 * 4 * 4, 8, generator=torch.Generator().manual_seed(4))


def embed(crops):
    return F.avg_pool2d(crops, 28).flatten(1) @ SEEN


def features(crops):
    return [F.avg_pool2d(crops, 28)]


AUTOENCODER = born().eval().requires_grad_(False)
MIRROR = Mirror(AUTOENCODER.decode, embed, reader(lambda pictures: pictures.mean((1, 2, 3))))


def trained(folder, recipe=RECIPE, say=quiet, look=None, data=DATA, mirror=MIRROR):
    return tune(data, PICTURES, denoiser(DENOISER), recipe, folder, mirror, features, "v", say, look)


def train(folder, say=print):
    return trained(folder, say=say)


def batch_of(recipe=RECIPE, step=0):
    return draw(DATA, Others(DATA.labels, DATA.sources), recipe, DENOISER, step, 0, 1, "cpu")


@torch.no_grad()
def pictures_of(model, batch, recipe=RECIPE):
    return AUTOENCODER.decode(drawn(model, batch, recipe, "v"))


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_a_drawing_is_what_sampling_makes_of_the_same_noise(scheduler, steps, monkeypatch):
    recipe = dataclasses.replace(RECIPE, scheduler=scheduler, drawn_steps=steps, learnt_steps=1)
    batch, model = batch_of(recipe), denoiser(DENOISER)
    monkeypatch.setattr("generation.sampling.noise_of", lambda seeds, shape: (batch.noise, []))
    expected = sample(
        model, batch.vectors, batch.attributes, batch.asked, batch.someone, np.zeros(8, np.int64), scheduler, steps,
        Guidance(), circumstances=batch.circumstances,
    )  # fmt: skip
    torch.testing.assert_close(drawn(model, batch, recipe, "v"), expected, atol=1e-5, rtol=1e-5)


def test_the_gradient_goes_back_through_the_last_steps_alone():
    """The first of two steps is taken at time 999: whatever changes its answer is not learnt from, or is."""
    gradients, drawings = [], []
    for learnt_steps in (1, 2):
        model = denoiser(DENOISER).requires_grad_(True)
        seen = []
        model.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append((inputs[1][0].item(), torch.is_grad_enabled()))
        )
        drawing = drawn(model, batch_of(), dataclasses.replace(RECIPE, learnt_steps=learnt_steps), "v")
        drawing.square().sum().backward()
        assert [at for at, _ in seen] == [999, 499]
        assert [learns for _, learns in seen] == [learnt_steps == 2, True]
        gradients.append(model.unet.conv_in.weight.grad)
        drawings.append(drawing.detach())
    torch.testing.assert_close(*drawings)
    assert not torch.allclose(*gradients, rtol=0.01)


def test_drawings_come_to_show_who_is_in_the_render_that_they_are_compared_with(tmp_path):
    recipe = dataclasses.replace(
        RECIPE,
        steps=100,
        peak_lr=2e-3,
        checkpoint_every=100,
        perceptual_weight=0.0,
        denoising_weight=0.0,
        identity_open=0.0,
    )
    unseen = batch_of(recipe, step=999)

    def likeness(model):
        return F.cosine_similarity(embed(pictures_of(model, unseen, recipe)), unseen.own).mean()

    assert likeness(trained(tmp_path, recipe)) > likeness(denoiser(DENOISER)) + 0.2


def test_the_render_of_a_row_is_the_picture_that_its_own_vector_is_of():
    batch = batch_of(dataclasses.replace(RECIPE, cross_pairs=1.0))
    assert torch.equal(batch.own, torch.from_numpy(DATA.vectors[batch.rows]))
    assert torch.equal(batch.latents, torch.from_numpy(DATA.latents[batch.rows].astype(np.float32)))
    assert not torch.equal(batch.own, batch.vectors)


def test_one_row_in_so_many_is_one_of_all_that_a_batch_holds():
    batch = batch_of()
    part = batch.every(3)
    for field in dataclasses.fields(batch):
        whole, mine = getattr(batch, field.name), getattr(part, field.name)
        assert len(whole) == 8
        assert np.array_equal(whole[[0, 3, 6]], mine)


def losses_of(folder, **changes):
    """What is said after one step."""
    told = []
    trained(folder, dataclasses.replace(RECIPE, steps=1, **changes), told.append)
    return {name: float(value) for name, value in re.findall(r"([a-z]+) (-?\d+\.\d+)", told[0])}


def test_the_loss_is_the_weighted_sum_of_what_is_told(tmp_path):
    told = losses_of(tmp_path, attribute_weight=0.5, perceptual_weight=0.75)
    expected = (
        RECIPE.denoising_weight * told["denoising"]
        + RECIPE.identity_weight * told["identity"]
        + 0.5 * told["attributes"]
        + 0.75 * told["perceptual"]
    )
    assert told["loss"] == pytest.approx(expected, abs=1e-3)
    assert all(told[name] for name in ("denoising", "identity", "attributes", "perceptual"))


def test_the_denoising_loss_is_of_its_share_of_the_rows(tmp_path):
    told = losses_of(tmp_path, denoised_every=4)
    with torch.no_grad():
        expected = denoising_of(denoiser(DENOISER), batch_of().every(4), "v", alpha_bars("v"))[0].item()
    assert told["denoising"] == pytest.approx(expected, abs=1e-4)


def test_who_was_left_open_is_not_missed(tmp_path):
    assert losses_of(tmp_path, identity_open=1.0)["identity"] == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), quiet)


def test_training_that_was_stopped_goes_on_to_the_same_weights(whole, tmp_path):
    with pytest.raises(StopError, match=r"tune: step 2/4, loss -?\d.*, denoising \d"):
        train(tmp_path, stop)
    continued = train(tmp_path, quiet)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_two_processes_learn_what_one_does(whole, by_two_processes):
    folder = by_two_processes / "test_tune"
    assert said_by_both(folder).count("step 4/4") == 1
    both = Denoiser(DENOISER)
    both.load_state_dict(torch.load(folder / "tuned.pt", weights_only=True)["average"])
    ours, theirs, before = (pictures_of(model, batch_of()) for model in (whole, both, denoiser(DENOISER)))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours, before, atol=1e-2)


def test_the_denoiser_that_was_given_stays_as_it_was_and_who_looks_sees_the_average(tmp_path):
    given, seen = denoiser(DENOISER), []
    last = tune(DATA, PICTURES, given, RECIPE, tmp_path, MIRROR, features, "v", quiet, lambda *told: seen.append(told))
    for name, tensor in denoiser(DENOISER).state_dict().items():
        assert torch.equal(tensor, given.state_dict()[name]), name
    assert [step for _, step in seen] == [1, 2, 3, 4]
    assert torch.equal(pictures_of(seen[-1][0], batch_of()), pictures_of(last, batch_of()))


def test_what_is_taken_lies_between_the_denoiser_that_was_given_and_the_one_that_has_learnt(whole, tmp_path):
    given, taken = denoiser(DENOISER).state_dict(), trained(tmp_path, dataclasses.replace(RECIPE, taken=0.25))
    for name, tensor in taken.state_dict().items():
        expected = 0.75 * given[name] + 0.25 * whole.state_dict()[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("mirror", "changes", "told"),
    [
        (Mirror(MIRROR.decode), {}, "identity_weight: expected a mirror that embeds for 0.5, got none"),
        (
            Mirror(MIRROR.decode, embed),
            {"attribute_weight": 0.1},
            "attribute_weight: expected a mirror with a reader for 0.1",
        ),
    ],
)
def test_a_term_without_anything_to_look_with_is_refused(tmp_path, mirror, changes, told):
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(ValueError, match=told):
        trained(tmp_path, recipe, mirror=mirror)


def test_a_share_of_the_rows_that_a_batch_cannot_be_parted_in_is_refused(tmp_path):
    with pytest.raises(ValueError, match="denoised_every: expected a divisor of the 8 rows of each process, got 3"):
        trained(tmp_path, dataclasses.replace(RECIPE, denoised_every=3))


def test_pictures_that_cannot_be_aligned_are_refused(tmp_path):
    with pytest.raises(ValueError, match="to_crop: expected what aligns each picture, got none"):
        trained(tmp_path, data=dataclasses.replace(DATA, to_crop=None))


def test_the_tuning_of_another_recipe_is_refused(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match=r"'drawn_steps': 3"):
        trained(tmp_path, dataclasses.replace(RECIPE, drawn_steps=3))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"scheduler": "ddpm"}, "scheduler: expected one of ddim, dpm, got 'ddpm'"),
        ({"drawn_steps": 0}, "drawn_steps: expected at least 1, got 0"),
        ({"learnt_steps": 0}, "learnt_steps: expected at least 1, got 0"),
        ({"learnt_steps": 4}, "learnt_steps: expected at most drawn_steps, got 4"),
        ({"denoised_every": 0}, "denoised_every: expected at least 1, got 0"),
        ({"identity_weight": -1.0}, "identity_weight: expected at least 0, got -1.0"),
        (
            dict.fromkeys(["denoising_weight", "identity_weight", "attribute_weight", "perceptual_weight"], 0.0),
            "expected one of denoising_weight, identity_weight, attribute_weight, perceptual_weight above 0",
        ),
        ({"taken": 0.0}, "taken: expected more than 0, at most 1, got 0.0"),
        ({"cross_pairs": 2.0}, "cross_pairs: expected 0 to 1, got 2.0"),
    ],
)
def test_a_recipe_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        TuningRecipe(**wrong)


def test_the_schedulers_that_need_no_random_numbers_are_schedulers():
    assert set(DETERMINISTIC) <= set(SCHEDULERS)
