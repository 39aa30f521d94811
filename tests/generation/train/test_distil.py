import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from generation import objectives
from generation.diffusion import Denoiser, alpha_bars, noise_schedule
from generation.sampling import SCHEDULERS, Guidance, guided_by, noise_of, sample
from generation.train.distil import (
    LOSSES,
    STAGES,
    DistilRecipe,
    _ddim_step,
    _guidance,
    _guided,
    _told,
    distil,
)
from generation.train.photographs import Others, draw
from tests.generation.small import NARROW, denoiser
from tests.generation.train.small import DATA, StopError, quiet, stop
from tests.generation.train.two_processes import said_by_both

RECIPE = DistilRecipe(steps=6, batch_size=4, warmup_steps=2, precision="fp32", threads=1, checkpoint_every=3)
PLAIN = dataclasses.replace(RECIPE, guidance_identity=(1.0, 1.0), guidance_attributes=(1.0, 1.0))


def teacher(seed=0):
    """Was never told a guidance, like a denoiser that comes from its training."""
    network = denoiser(NARROW, seed)
    network.push.weight.zero_()
    network.push.bias.zero_()
    return network


def student_of(network):
    student = Denoiser(NARROW)
    student.load_state_dict(network.state_dict())
    return student


def drawn(recipe=RECIPE, times=None, step=0):
    batch = draw(DATA, Others(DATA.labels, DATA.sources), recipe, NARROW, step, 0, 1, "cpu")
    return batch if times is None else dataclasses.replace(batch, timesteps=torch.tensor(times))


def loss_of(stage, model, average, network, batch, recipe=RECIPE):
    with torch.no_grad():
        return LOSSES[stage](model, average, network, batch, recipe, alpha_bars("v"), "v").item()


def train(folder, say=print):
    return distil(DATA, teacher(), RECIPE, folder, say)


def test_a_student_that_is_its_teacher_has_no_guidance_to_learn_where_there_is_none():
    same, other = student_of(teacher()), student_of(teacher(1))
    assert loss_of("guidance", same, same, teacher(), drawn(PLAIN), PLAIN) == pytest.approx(0, abs=1e-10)
    assert loss_of("guidance", same, same, teacher(), drawn()) > 1e-3
    assert loss_of("guidance", other, other, teacher(), drawn(PLAIN), PLAIN) > 1e-3


def test_a_guidance_of_each_row_is_equation_3_of_brooks_et_al():
    both, how, open_ = np.random.default_rng(0).standard_normal((3, 2, 1, 2, 2)).astype(np.float32)
    ours = guided_by(torch.from_numpy(np.stack([both, how, open_])), torch.tensor([2.0, 0.5]), torch.tensor([3.0, 1.0]))
    for row, (identity, attributes) in enumerate([(2.0, 3.0), (0.5, 1.0)]):
        expected = open_[row] + attributes * (how[row] - open_[row]) + identity * (both[row] - how[row])
        np.testing.assert_allclose(ours[row], expected, atol=1e-5)


def test_guidance_is_drawn_between_the_bounds_and_is_1_where_a_condition_is_left_open():
    recipe = dataclasses.replace(
        RECIPE, batch_size=200, identity_open=0.3, attributes_open=0.3, guidance_identity=(2.0, 4.0)
    )
    batch = drawn(recipe)
    for guidance, there, (low, high) in zip(
        _guidance(batch, recipe).T, (batch.someone, batch.asked.any(1)), ((2.0, 4.0), (1.0, 3.0)), strict=True
    ):
        assert (guidance[~there] == 1).all()
        assert 20 < (~there).sum() < 180
        assert low <= guidance[there].min() < low + 0.3
        assert high - 0.3 < guidance[there].max() <= high


def test_what_a_student_of_guidance_aims_at_is_what_sampling_makes_of_three_passes():
    recipe = dataclasses.replace(RECIPE, batch_size=12, identity_open=0.25, attributes_open=0.5)
    seeds = np.arange(12)
    noise, _ = noise_of(seeds, (2, 4, 4))
    batch = dataclasses.replace(drawn(recipe, [999] * 12), noise=noise)
    assert 0 < batch.someone.sum() < 12
    assert 0 < batch.asked.any(1).sum() < 12
    with torch.no_grad():
        aims = _guided(teacher(), noise, batch, _guidance(batch, recipe))
    for row, (identity, attributes) in enumerate(_told_to(batch, recipe)):
        mine = slice(row, row + 1)
        expected = sample(
            teacher(), batch.vectors[mine], batch.attributes[mine], batch.asked[mine], batch.someone[mine],
            seeds[mine], "ddim", 1, Guidance(identity, attributes), circumstances=batch.circumstances[mine],
        )  # fmt: skip
        torch.testing.assert_close(-aims[mine], expected, atol=1e-5, rtol=1e-5)  # from pure noise, x0 = -v


def _told_to(batch, recipe):
    """Guidance as a sampler is told it: whatever is left open."""
    ranges = torch.tensor([recipe.guidance_identity, recipe.guidance_attributes])
    return (ranges[:, 0] + batch.uniform * (ranges[:, 1] - ranges[:, 0])).tolist()


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_ddim_step_of_the_teacher_is_that_of_diffusers(prediction):
    scheduler = DDIMScheduler(**noise_schedule(prediction), clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(RECIPE.segments)
    bars = alpha_bars(prediction)
    rng = torch.Generator().manual_seed(0)
    for time in (999, 979, 499, 19):
        assert time in scheduler.timesteps
        said, noisy = torch.randn(2, 1, 2, 4, 4, generator=rng)
        before = bars[time - 20] if time > 19 else torch.tensor(1.0)
        ours = _ddim_step(prediction, said, noisy, bars[[time]], before[None])
        torch.testing.assert_close(ours, scheduler.step(said, time, noisy).prev_sample, rtol=1e-4, atol=1e-5)


def led_down(network, average, batch, recipe):
    """Where the batch is, and the x0 that the average sees one step of diffusers' own scheduler further down."""
    scheduler = DDIMScheduler(**noise_schedule(), clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(recipe.segments)
    bars, guidance = alpha_bars(), _guidance(batch, recipe)
    stride = 1000 // recipe.segments
    times = torch.tensor([min(t for t in scheduler.timesteps.tolist() if t >= now) for now in batch.timesteps.tolist()])
    noisy = objectives.noised(batch.latents, batch.noise, bars[times])
    said = network(noisy, times, _told(network, batch, guidance))
    nearer = torch.cat([scheduler.step(said[[i]], int(times[i]), noisy[[i]]).prev_sample for i in range(len(times))])
    seen = average(nearer, times - stride, _told(average, batch, guidance))
    return times, noisy, objectives.clean_estimate("v", seen, nearer, bars[times - stride])


def pseudo_huber(gap, huber):
    return ((gap.square() + huber**2).sqrt() - huber).mean().item()


@torch.no_grad()
def test_consistency_aims_at_what_the_average_sees_one_ddim_step_of_the_teacher_further_down():
    guided, model, average = denoiser(NARROW), student_of(denoiser(NARROW, 1)), student_of(denoiser(NARROW, 2))
    batch = drawn(times=[20, 515, 980, 999])
    times, noisy, aims = led_down(guided, average, batch, RECIPE)
    assert times.tolist() == [39, 519, 999, 999]
    said = model(noisy, times, _told(model, batch, _guidance(batch, RECIPE)))
    gap = objectives.clean_estimate("v", said, noisy, alpha_bars()[times]) - aims
    loss = loss_of("consistency", model, average, guided, batch)
    assert loss == pytest.approx(pseudo_huber(gap, RECIPE.huber), rel=1e-4)


@torch.no_grad()
def test_consistency_ends_at_the_clean_estimate_of_the_teacher_whatever_the_average_says():
    guided, model = denoiser(NARROW), student_of(denoiser(NARROW, 1))
    batch = drawn(times=[0, 7, 18, 19])
    times, told = torch.full((4,), 19), _guidance(batch, RECIPE)
    bar = alpha_bars()[times]
    noisy = objectives.noised(batch.latents, batch.noise, bar)
    ours, theirs = (
        objectives.clean_estimate("v", network(noisy, times, _told(network, batch, told)), noisy, bar)
        for network in (model, guided)
    )
    expected = pseudo_huber(ours - theirs, RECIPE.huber)
    for seed in (2, 3):
        loss = loss_of("consistency", model, student_of(denoiser(NARROW, seed)), guided, batch)
        assert loss == pytest.approx(expected, rel=1e-4)


def test_lcm_samples_at_times_that_a_consistency_model_was_taught_at():
    guided, model, taught = denoiser(NARROW), student_of(denoiser(NARROW)), set()
    model.register_forward_pre_hook(lambda _, inputs: taught.update(inputs[1].tolist()))
    loss_of("consistency", model, denoiser(NARROW), guided, drawn(dataclasses.replace(RECIPE, batch_size=50)))
    for steps in (1, 2, 4, 8, 50):
        plan = SCHEDULERS["lcm"](**noise_schedule())
        plan.set_timesteps(steps)
        assert set(plan.timesteps.tolist()) <= taught


@pytest.mark.parametrize("stage", STAGES)
def test_a_student_learns(stage, tmp_path):
    strong = dataclasses.replace(RECIPE, stage=stage, guidance_identity=(4.0, 4.0), guidance_attributes=(4.0, 4.0))
    recipe = dataclasses.replace(strong, steps=30, batch_size=8, peak_lr=3e-4, checkpoint_every=30)
    student, born = distil(DATA, teacher(), recipe, tmp_path, quiet), student_of(teacher())
    unseen = drawn(dataclasses.replace(recipe, batch_size=32), step=99)
    before, after = (loss_of(stage, model, model, teacher(), unseen, recipe) for model in (born, student))
    assert after < 0.9 * before
    assert not student.training


@pytest.mark.parametrize("stage", STAGES)
def test_distillation_that_was_stopped_goes_on_to_the_same_weights(stage, tmp_path):
    recipe = dataclasses.replace(RECIPE, stage=stage)
    whole = distil(DATA, teacher(), recipe, tmp_path / "whole", quiet)
    with pytest.raises(StopError, match=f"{stage}: step 3/6"):
        distil(DATA, teacher(), recipe, tmp_path / "parts", stop)
    looks = []
    continued = distil(DATA, teacher(), recipe, tmp_path / "parts", quiet, lambda _, step: looks.append(step))
    assert looks == [4, 5, 6]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_two_processes_distil_what_one_does(by_two_processes, tmp_path):
    alone, folder = train(tmp_path, quiet), by_two_processes / "test_distil"
    assert said_by_both(folder).count("step 6/6") == 1
    both = Denoiser(NARROW)
    both.load_state_dict(torch.load(folder / "student.pt", weights_only=True)["average"])
    # Compared by what they say: AdamW divides a gradient by its size, which magnifies rounding where it is next to 0.
    torch.testing.assert_close(said(alone), said(both), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(said(alone), said(teacher()), atol=1e-3)


@torch.no_grad()
def said(model):
    batch = drawn(step=99)
    return model(batch.noise, batch.timesteps, _told(model, batch, torch.full((4, 2), 2.5)))


def test_a_teacher_of_epsilon_is_asked_on_its_own_noise_schedule(tmp_path):
    recipe = dataclasses.replace(RECIPE, stage="consistency", batch_size=50, steps=1)
    lines = []
    # On the schedule of v the first time is pure noise, from which epsilon gives no clean estimate.
    distil(DATA, teacher(), recipe, tmp_path, lines.append, prediction="epsilon")
    assert "step 1/1" in lines[0]


def test_the_work_of_another_recipe_is_refused(tmp_path):
    once = dataclasses.replace(RECIPE, steps=1)
    distil(DATA, teacher(), once, tmp_path, quiet)
    with pytest.raises(ValueError, match=r"'huber': 0\.1"):
        distil(DATA, teacher(), dataclasses.replace(once, huber=0.1), tmp_path, quiet)


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_that_is_not_finite_stops_the_distillation_and_names_the_step(stage, tmp_path):
    broken = dataclasses.replace(DATA, latents=np.full_like(DATA.latents, np.nan))
    with pytest.raises(ValueError, match="expected a finite loss, got nan at step 0"):
        distil(broken, teacher(), dataclasses.replace(RECIPE, stage=stage), tmp_path, quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"stage": "both"}, "stage: expected one of guidance, consistency, got 'both'"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"peak_lr": 0.0}, "peak_lr: expected more than 0, got 0.0"),
        ({"peak_lr": float("nan")}, "peak_lr: expected more than 0, got nan"),
        ({"warmup_steps": -1}, "warmup_steps: expected at least 0, got -1"),
        ({"guidance_identity": (4.0, 1.0)}, r"guidance_identity: expected 0 <= lowest <= highest, got \(4.0, 1.0\)"),
        ({"guidance_attributes": (-1.0, 1.0)}, "guidance_attributes: expected 0 <= lowest <= highest"),
        ({"segments": 24}, "segments: expected a divisor of 1000, got 24"),
        ({"segments": 0}, "segments: expected a divisor of 1000, got 0"),
        ({"segments": 2000}, "segments: expected a divisor of 1000, got 2000"),
        ({"huber": 0.0}, "huber: expected more than 0, got 0.0"),
        ({"identity_open": 1.5}, "identity_open: expected 0 to 1, got 1.5"),
        ({"attributes_open": -0.1}, "attributes_open: expected 0 to 1, got -0.1"),
        ({"attribute_open": 0.6}, "attribute_open: expected 0 to 0.5, got 0.6"),
        ({"cross_pairs": 2.0}, "cross_pairs: expected 0 to 1, got 2.0"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0 to less than 1, got 1.0"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, got -0.1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"precision": "fp16"}, "precision: expected one of bf16, fp32, got 'fp16'"),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1, got 0"),
    ],
)
def test_a_recipe_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        DistilRecipe(**wrong)
