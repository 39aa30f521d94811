"""Distillation of a trained denoiser, in two stages, one after the other: guidance into one pass, then few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from generation import objectives
from generation.diffusion import Condition, Denoiser, alpha_bars
from generation.sampling import LCM_STEPS, guided_by, told_guidance
from generation.train.loop import Averaged, Say, rank_and_ranks
from generation.train.photographs import TIMES, Batch, Others, Photographs, check_circumstances, check_draws, draw
from generation.train.recipe import check_average, one_of, within


@dataclass(frozen=True)
class DistilRecipe:
    """How a student is made of a teacher.

    Attributes:
        stage: "guidance": one pass gives what three passes of the teacher give, for any guidance in the ranges (Meng
            et al., 2023, section 3.1, https://arxiv.org/abs/2210.03142). "consistency": any point of a trajectory leads
            to its end (Luo et al., 2023, LCM, equation 14, https://arxiv.org/abs/2310.04378); its teacher is guided.
        guidance_identity: Lowest and highest guidance of identity that the student is taught.
        guidance_attributes: The same of attributes.
        segments: Consistency: of a trajectory, a divisor of 1000; the teacher leads down each in one DDIM step. "lcm"
            samples at times of `LCM_STEPS` segments.
        huber: Consistency: where the pseudo-Huber loss goes from square to straight.
    Raises:
        ValueError: If a value is out of range or unknown.
    """

    stage: str = "guidance"
    steps: int = 1000
    batch_size: int = 32
    peak_lr: float = 3e-4
    warmup_steps: int = 30
    guidance_identity: tuple[float, float] = (1.0, 4.0)
    guidance_attributes: tuple[float, float] = (1.0, 3.0)
    segments: int = LCM_STEPS
    huber: float = 0.03
    identity_open: float = 0.05
    attributes_open: float = 0.05
    attribute_open: float = 0.1
    cross_pairs: float = 0.5
    cross_mean: int = 1
    ema_decay: float = 0.998
    weight_decay: float = 0.0
    seed: int = 32
    precision: str = "bf16"
    threads: int = 2
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        check_average(self)
        check_draws(self)
        one_of(self, STAGES, "stage")
        ranges = "guidance_identity", "guidance_attributes"
        within(self, "0 <= lowest <= highest", lambda bounds: len(bounds) == 2 and 0 <= bounds[0] <= bounds[1], *ranges)
        within(self, f"a divisor of {TIMES}", lambda count: count >= 1 and TIMES % count == 0, "segments")
        within(self, "more than 0", lambda huber: huber > 0, "huber")


STAGES = ("guidance", "consistency")
CHECKPOINT = "student.pt"


def distil(
    data: Photographs,
    teacher: Denoiser,
    recipe: DistilRecipe,
    folder: Path,
    say: Say = print,
    look: Callable[[Denoiser, int], None] | None = None,
    device: str = "cpu",
    prediction: str = "v",
) -> Denoiser:
    """Makes a student of a teacher, going on from `folder/student.pt` where there is one. Returns its average.

    Where torch.distributed is initialised, every process takes its part of every batch, and the first keeps and says.

    Args:
        prediction: Of the teacher, and so of the student.
    Raises:
        ValueError: If a loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe; if
            the processes cannot share a batch evenly.
    """
    check_circumstances(data, teacher.shape)
    torch.set_num_threads(recipe.threads)
    model = Denoiser(teacher.shape)
    model.load_state_dict(teacher.state_dict())
    for network in (teacher, model):
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.eval().requires_grad_(False)
    training = Averaged(recipe.stage, model, recipe, folder / CHECKPOINT)
    bars, others, (rank, ranks) = alpha_bars(prediction).to(device), Others(data.labels, data.sources), rank_and_ranks()

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = draw(data, others, recipe, teacher.shape, step, rank, ranks, device)
        return {"loss": LOSSES[recipe.stage](model, training.average, teacher, batch, recipe, bars, prediction)}

    return training.run(losses_of, say, look)


def _guidance(batch: Batch, recipe: DistilRecipe) -> Float[Tensor, "b 2"]:
    """Of identity and of attributes, drawn for each row between the bounds; 1 where that condition is left open."""
    ranges = batch.uniform.new_tensor([recipe.guidance_identity, recipe.guidance_attributes])
    drawn = ranges[:, 0] + batch.uniform[:, :2] * (ranges[:, 1] - ranges[:, 0])
    return told_guidance(drawn, batch.asked, batch.someone)


def _guidance_loss(
    model: Denoiser,
    average: Denoiser,
    teacher: Denoiser,
    batch: Batch,
    recipe: DistilRecipe,
    bars: Float[Tensor, " t"],
    kind: str,
) -> Float[Tensor, ""]:
    del average, kind  # of what the teacher says the student is to say
    guidance, bar = _guidance(batch, recipe), bars[batch.timesteps]
    noisy = objectives.noised(batch.latents, batch.noise, bar).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = _guided(teacher, noisy, batch, guidance)
    predicted = model(noisy, batch.timesteps, _told(model, batch, guidance))
    return objectives.denoising_loss(predicted, wanted, torch.ones_like(bar))


def _consistency_loss(
    model: Denoiser,
    average: Denoiser,
    teacher: Denoiser,
    batch: Batch,
    recipe: DistilRecipe,
    bars: Float[Tensor, " t"],
    kind: str,
) -> Float[Tensor, ""]:
    """The teacher, taught guidance, leads one DDIM step down; what the average makes of that place is the aim."""
    guidance = _guidance(batch, recipe)
    stride = TIMES // recipe.segments
    times = (batch.timesteps // stride + 1) * stride - 1  # the last time of its segment: 999 is the first of sampling
    before = times - stride  # -1 is the end: no noise
    bar, bar_before = bars[times], torch.where(before >= 0, bars[before.clamp(min=0)], 1.0)
    noisy = objectives.noised(batch.latents, batch.noise, bar).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        said = teacher(noisy, times, _told(teacher, batch, guidance)).float()
        nearer = _ddim_step(kind, said, noisy, bar, bar_before).contiguous(memory_format=torch.channels_last)
        said = average(nearer, before.clamp(min=0), _told(average, batch, guidance)).float()
        # At the end the aim is where the teacher led: the estimate from no noise is the place itself, whatever is said.
        aim = objectives.clean_estimate(kind, said, nearer, bar_before)
    said = model(noisy, times, _told(model, batch, guidance)).float()
    gap = objectives.clean_estimate(kind, said, noisy, bar) - aim
    return (gap.square() + recipe.huber**2).sqrt().mean() - recipe.huber


def _ddim_step(
    kind: str,
    said: Float[Tensor, "b c h w"],
    noisy: Float[Tensor, "b c h w"],
    bar: Float[Tensor, " b"],
    bar_before: Float[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """From one time to an earlier one (Song et al., 2021, equation 12, eta 0); with bar_before 1, to x0."""
    clean = objectives.clean_estimate(kind, said, noisy, bar)
    return objectives.noised(clean, objectives.noise_estimate(kind, said, noisy, bar), bar_before)


LOSSES = dict(zip(STAGES, (_guidance_loss, _consistency_loss), strict=True))


def _told(model: Denoiser, batch: Batch, guidance: Float[Tensor, "b 2"]) -> Condition:
    context = objectives.with_identity_open(model.context(batch.vectors), model.nobody, batch.someone)
    return model.condition(context, batch.attributes, batch.asked, guidance, batch.circumstances)


def _guided(
    teacher: Denoiser, noisy: Float[Tensor, "b c h w"], batch: Batch, guidance: Float[Tensor, "b 2"]
) -> Float[Tensor, "b c h w"]:
    """Brooks et al. (2023), equation 3, with a guidance for each row."""
    context = objectives.with_identity_open(teacher.context(batch.vectors), teacher.nobody, batch.someone)
    nobody = teacher.nobody.expand_as(context)
    passes = (
        teacher.condition(context, batch.attributes, batch.asked, None, batch.circumstances),
        teacher.condition(nobody, batch.attributes, batch.asked, None, batch.circumstances),
        teacher.condition(nobody, batch.attributes, torch.zeros_like(batch.asked)),
    )
    said = torch.stack([teacher(noisy, batch.timesteps, told).float() for told in passes])
    return guided_by(said, guidance[:, 0], guidance[:, 1])
