import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler

from generation.diffusion import noise_schedule
from generation.sampling import Guidance, guided_by, noise_of, sample, told_guidance
from tests.generation.small import NARROW, denoiser

SHAPE = (2, 4, 4)
OFFICIAL = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpm": (DPMSolverMultistepScheduler, {}),
    "lcm": (LCMScheduler, {"original_inference_steps": 50}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
}


@pytest.fixture(scope="module")
def model():
    return denoiser(NARROW)


def asked_of(rows):
    rng = torch.Generator().manual_seed(9)
    vectors = torch.nn.functional.normalize(torch.randn(rows, 8, generator=rng), dim=1)
    attributes = torch.rand(rows, 2, generator=rng) * 40 - 20
    return vectors, attributes, torch.ones(rows, 2, dtype=torch.bool), torch.ones(rows, dtype=torch.bool)


def three_passes(model, latents, time, vectors, attributes, asked, guidance):
    """Brooks et al. (2023), equation 3, as it is written there: one pass for each e."""

    def e(who, how):
        context = model.context(vectors) if who else model.nobody.expand(len(vectors), -1)
        told = model.condition(context, attributes, asked if how else torch.zeros_like(asked))
        return model(latents, torch.full((len(latents),), int(time)), told)

    open_, how, both = e(False, False), e(False, True), e(True, True)
    return open_ + guidance.attributes * (how - open_) + guidance.identity * (both - how)


@pytest.mark.parametrize("name", list(OFFICIAL))
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_scheduler_goes_the_way_of_diffusers_own_loop(model, name, prediction):
    vectors, attributes, asked, someone = asked_of(3)
    guidance, seeds = Guidance(2.0, 3.0), np.array([5, 6, 7])
    ours = sample(model, vectors, attributes, asked, someone, seeds, name, 4, guidance, prediction)
    kind, arguments = OFFICIAL[name]
    schedule = noise_schedule(prediction)
    scheduler = kind(**schedule, **arguments)
    scheduler.set_timesteps(4)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    latents = torch.stack([torch.randn(SHAPE, generator=generator) for generator in generators])
    extra = {"generator": generators} if name in ("lcm", "ddpm") else {}
    with torch.no_grad():
        for time in scheduler.timesteps:
            said = three_passes(model, latents, time, vectors, attributes, asked, guidance)
            latents = scheduler.step(said, time, latents, **extra).prev_sample
    assert torch.isfinite(ours).all()
    # From epsilon, x0 is divided by what is left of the signal: at first next to nothing, which magnifies rounding.
    within = 2e-4 if prediction == "v" else 4e-3
    torch.testing.assert_close(ours, latents, atol=within, rtol=within)


@pytest.mark.parametrize(
    ("guidance", "passes"),
    [
        (Guidance(1.0, 1.0), 1),
        (Guidance(2.5, 2.5), 2),
        (Guidance(0.0, 1.0), 1),
        (Guidance(2.0, 1.0), 2),
        (Guidance(2.0, 3.0), 3),
    ],
)
def test_passes_that_cancel_are_not_made(model, guidance, passes):
    rows = []
    hook = model.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    told = asked_of(2)
    ours = sample(model, *told, np.array([1, 2]), "ddim", 1, guidance)
    hook.remove()
    assert rows == [2 * passes]
    noise, _ = noise_of(np.array([1, 2]), SHAPE)
    with torch.no_grad():
        # One DDIM step from pure noise: x0 = -v.
        expected = -three_passes(model, noise, 999, *told[:3], guidance)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_a_guidance_of_each_row_is_the_guidance_of_all():
    said = torch.randn(3, 2, 2, 4, 4)
    guidance = Guidance(2.0, 3.0)
    weights = torch.tensor(guidance.weights)[:, None, None, None, None]
    ours = guided_by(said, torch.full((2,), 2.0), torch.full((2,), 3.0))
    torch.testing.assert_close(ours, (weights * said).sum(0))
    assert sum(guidance.weights) == pytest.approx(1)


def test_a_distilled_model_is_told_the_guidance_and_passes_once(model):
    rows = []
    hook = model.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    plain, strong = (
        sample(model, *asked_of(2), np.array([1, 2]), "ddim", 1, Guidance(g, g), distilled=True) for g in (1.0, 3.0)
    )
    hook.remove()
    assert rows == [2, 2]
    assert not torch.allclose(plain, strong)


def test_a_condition_that_is_left_open_is_told_no_guidance():
    asked = torch.tensor([[True, False], [False, False]])
    told = told_guidance(torch.tensor([2.0, 3.0]), asked, torch.tensor([False, True]))
    assert told.tolist() == [[1.0, 3.0], [2.0, 1.0]]


def test_noise_depends_on_the_seed_of_its_row_alone():
    together, _ = noise_of(np.array([11, 12, 13]), SHAPE)
    alone, _ = noise_of(np.array([12]), SHAPE)
    assert torch.equal(together[1], alone[0])
    many, _ = noise_of(np.arange(400), (4, 14, 14))
    assert many.mean().item() == pytest.approx(0, abs=0.01)
    assert many.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_row_does_not_depend_on_the_rows_beside_it(model, name):
    vectors, attributes, asked, someone = asked_of(4)
    seeds, turned = np.arange(4), [2, 0, 3, 1]
    whole = sample(model, vectors, attributes, asked, someone, seeds, name, 3, Guidance(2.0, 3.0))
    other = sample(
        model, vectors[turned], attributes[turned], asked[turned], someone[turned], seeds[turned], name, 3,
        Guidance(2.0, 3.0),
    )  # fmt: skip
    assert torch.equal(whole[turned], other)


def test_nobody_asked_for_is_nobody_whatever_the_vector(model):
    vectors, attributes, asked, someone = asked_of(2)
    first, second = (
        sample(model, v, attributes, asked, ~someone, np.array([1, 2]), "dpm", 2, Guidance(2.0, 2.0))
        for v in (vectors, -vectors)
    )
    assert torch.equal(first, second)
