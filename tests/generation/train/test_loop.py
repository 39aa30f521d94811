from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from generation.train.loop import Averaged, lr_share
from tests.generation.train.small import quiet


@dataclass(frozen=True)
class Recipe:
    steps: int = 30
    batch_size: int = 1
    peak_lr: float = 0.1
    warmup_steps: int = 2
    weight_decay: float = 0.0
    ema_decay: float = 0.6
    precision: str = "fp32"
    checkpoint_every: int = 30


def training(folder, recipe=None):
    torch.manual_seed(0)
    return Averaged("line", torch.nn.Linear(1, 1), recipe or Recipe(), folder / "line.pt")


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth():
    shares = [lr_share(step, Recipe(steps=100, warmup_steps=10)) for step in range(100)]
    assert shares[0] == 0.1
    assert shares[9] == shares[10] == 1.0
    assert np.all(np.diff(shares[10:]) < 0)
    assert shares[-1] == pytest.approx(0.05, abs=1e-3)


def test_a_loss_is_made_smaller_and_the_others_are_told(tmp_path):
    line, said = training(tmp_path), []

    def losses_of(step):
        error = (line.model(torch.ones(1)) - 3).square().sum()
        return {"loss": error, "step": torch.tensor(float(step)), "elsewhere": -100 * line.model.weight.sum()}

    before = losses_of(0)["loss"].item()
    line.run(losses_of, said.append)
    assert losses_of(0)["loss"] < 0.2 * before
    steps = 0.0
    for step in range(1, 30):
        steps = 0.98 * steps + 0.02 * step
    assert len(said) == 1
    assert "line: step 30/30, loss " in said[0]
    assert f", step {steps:.4f}, elsewhere " in said[0]


def test_the_average_is_of_few_steps_at_first_and_of_more_later(tmp_path):
    line = training(tmp_path)
    expected, seen = line.model.weight.item(), []

    def look(average, done):
        nonlocal expected
        decay = min(0.6, done / (done + 9))
        expected = decay * expected + (1 - decay) * line.model.weight.item()
        seen.append((average.weight.item(), expected))

    average = line.run(lambda _: {"loss": (line.model(torch.ones(1)) - 3).square().sum()}, quiet, look)
    ours, theirs = zip(*seen, strict=True)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert not average.training
    assert not average.weight.requires_grad


def test_a_weight_that_no_loss_reaches_stays_what_it_is(tmp_path):
    line = training(tmp_path, replace(Recipe(), weight_decay=0.1))
    born = line.model.bias.item()
    line.run(lambda _: {"loss": line.model.weight.square().sum()}, quiet)
    assert line.model.bias.item() == born


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step(tmp_path):
    line = training(tmp_path)
    with pytest.raises(ValueError, match="expected a finite loss, got nan at step 3"):
        line.run(lambda step: {"loss": line.model.weight.sum() * (float("nan") if step == 3 else 1.0)}, quiet)
