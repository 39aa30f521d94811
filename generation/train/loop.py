"""What every training here shares: a checkpoint that is whole or not there, and the steps from one to the next."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist

Say = Callable[[str], None]
Loss = Callable[[torch.Generator], Float[Tensor, ""]]
Losses = Callable[[int], Mapping[str, Tensor]]


@runtime_checkable
class Stateful(Protocol):
    """A module, an optimiser, a schedule: whatever can be stopped and go on."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Checkpoint:
    """Where a training stands, in one file.

    Args:
        path: The file; it is replaced at once when the new one is whole.
        recipe: A dataclass of plain numbers and strings. A file of another recipe is refused.
        parts: What is kept, by name, of which every state must be tensors, numbers and strings.
    """

    def __init__(self, path: Path, recipe: Any, parts: Mapping[str, Stateful]) -> None:
        self.path, self.recipe, self.parts = path, asdict(recipe), dict(parts)

    def resume(self, device: str | torch.device = "cpu") -> int:
        """Loads the parts and returns the number of steps done: 0, and nothing loaded, where there is no file.

        Raises:
            ValueError: If the file is of another recipe.
        """
        if not self.path.exists():
            return 0
        kept = torch.load(self.path, weights_only=True, map_location=device)
        if kept["recipe"] != self.recipe:
            raise ValueError(f"expected a checkpoint of {self.recipe} in {self.path}, got one of {kept['recipe']}")
        for name, part in self.parts.items():
            part.load_state_dict(kept[name])
        return int(kept["step"])

    def keep(self, step: int) -> None:
        """Writes the parts as they are after so many steps."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        states = {name: stateful.state_dict() for name, stateful in self.parts.items()}
        torch.save({"recipe": self.recipe, "step": step, **states}, part)
        os.replace(part, self.path)


def rng_of_step(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, by its number alone: a training that goes on draws what it would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class Progress:
    """Running means of what a training tells of its steps, and the lines that say them.

    Args:
        name: Of the model.
        recipe: With `steps`, `batch_size` and `checkpoint_every`.
        first: Steps done before this process began.
    """

    def __init__(self, name: str, recipe: Any, first: int) -> None:
        self.name, self.recipe, self.first = name, recipe, first
        self.means: dict[str, float] = {}
        self._started = time.perf_counter()

    def take(self, told: Mapping[str, float]) -> None:
        self.means = {name: 0.98 * self.means.get(name, value) + 0.02 * value for name, value in told.items()}

    def due(self, done: int) -> bool:
        """Whether a checkpoint and a line are due after so many steps."""
        return done % self.recipe.checkpoint_every == 0 or done == self.recipe.steps

    def line(self, done: int) -> str:
        means = ", ".join(f"{name} {value:.4f}" for name, value in self.means.items())
        rate = (done - self.first) * self.recipe.batch_size / (time.perf_counter() - self._started)
        return f"{self.name}: step {done}/{self.recipe.steps}, {means}, {rate:.0f} pictures/s"


class OneCycle:
    """AdamW with a one-cycle learning rate (Smith and Topin, 2019), from a loss per step to the last step.

    Args:
        name: Of the model, on the progress lines.
        model: Already on its device.
        recipe: With `steps`, `batch_size`, `peak_lr`, `seed` and `checkpoint_every`.
        path: Of the checkpoint.
    """

    def __init__(self, name: str, model: nn.Module, recipe: Any, path: Path) -> None:
        self.name, self.model, self.recipe = name, model, recipe
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.peak_lr, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, recipe.peak_lr, recipe.steps, pct_start=0.1)
        parts: dict[str, Stateful] = {"model": model, "optimiser": self.optimiser, "schedule": self.schedule}
        self.checkpoint = Checkpoint(path, recipe, parts)

    def run(self, loss_of: Loss, say: Say = print) -> None:
        """Takes the steps that are missing.

        Args:
            loss_of: The loss of one batch, drawn by the generator that it is given and nothing else.
        Raises:
            ValueError: If a loss is not finite, naming the step; if the checkpoint belongs to another recipe.
        """
        recipe = self.recipe
        first = self.checkpoint.resume(next(self.model.parameters()).device)
        self.model.train()
        progress = Progress(self.name, recipe, first)
        for step in range(first, recipe.steps):
            progress.take({"loss": self._step(loss_of(rng_of_step(recipe.seed, step)), step)})
            if progress.due(step + 1):
                self.checkpoint.keep(step + 1)
                say(progress.line(step + 1))

    def _step(self, loss: Float[Tensor, ""], step: int) -> float:
        if not torch.isfinite(loss):
            raise ValueError(f"expected a finite {self.name} loss, got {loss.item()} at step {step}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        return loss.item()


Model = TypeVar("Model", bound=nn.Module)


class Averaged(Generic[Model]):
    """AdamW with a warm-up and a cosine, and an average that follows the model, from losses per step to the last step.

    Where torch.distributed is initialised, every process gives the losses of its own part of each batch and learns from
    all of them; the first keeps, says and looks. Processes must begin with the same weights.

    Args:
        name: Of the model, on the progress lines.
        model: Already on its device; what the average is before the first step.
        recipe: With `steps`, `batch_size` (of all processes together), `peak_lr`, `warmup_steps`, `weight_decay`,
            `ema_decay`, `precision` ("bf16" for autocast) and `checkpoint_every`.
        path: Of the checkpoint.
        others: What else the losses change, kept with the model by these names.
    """

    def __init__(
        self, name: str, model: Model, recipe: Any, path: Path, others: Mapping[str, Stateful] | None = None
    ) -> None:
        self.name, self.model, self.recipe = name, model, recipe
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        parts: dict[str, Stateful] = {"model": model, "average": self.average, "optimiser": self.optimiser}
        self.checkpoint = Checkpoint(path, recipe, parts | dict(others or {}))

    def run(self, losses_of: Losses, say: Say = print, look: Callable[[Model, int], None] | None = None) -> Model:
        """Takes the steps that are missing. Returns the average, in eval mode.

        Args:
            losses_of: Scalars of a step, by its number and nothing else. "loss" is made smaller; the others are told.
            look: Called after every step with the average and the number of steps done.
        Raises:
            ValueError: If a loss is not finite, naming the step; if the checkpoint belongs to another recipe; if the
                processes cannot share a batch evenly.
        """
        recipe, (rank, ranks) = self.recipe, rank_and_ranks()
        if recipe.batch_size % ranks:
            raise ValueError(f"batch_size: expected a multiple of the {ranks} processes, got {recipe.batch_size}")
        first = self.checkpoint.resume(self._device)
        self.model.train()
        progress = Progress(self.name, recipe, first)
        for step in range(first, recipe.steps):
            progress.take(self._step(losses_of, step))
            if rank == 0 and progress.due(step + 1):
                self.checkpoint.keep(step + 1)
                say(progress.line(step + 1))
            if rank == 0 and look is not None:
                look(self.average, step + 1)
        return self.average

    def _step(self, losses_of: Losses, step: int) -> dict[str, float]:
        """One step; what its losses were."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.peak_lr * lr_share(step, recipe)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            losses = losses_of(step)
        losses["loss"].backward()
        # After the backward pass is under way: looking at a number waits for the device.
        told = mean_over_processes({name: loss.detach() for name, loss in losses.items()})
        if not math.isfinite(told["loss"]):
            raise ValueError(f"expected a finite loss, got {told['loss']} at step {step}")
        average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        # At first the average is of few steps: what the weights were born with is soon forgotten.
        follow(self.average, self.model, min(recipe.ema_decay, (step + 1) / (step + 10)))
        return told

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def rank_and_ranks() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def mean_over_processes(losses: Mapping[str, Float[Tensor, ""]]) -> dict[str, float]:
    """Of the whole batch: so that all processes stop where one of them must."""
    values = averaged(torch.stack([loss.float() for loss in losses.values()]))
    return dict(zip(losses, values.tolist(), strict=True))


def average_gradients(model: nn.Module) -> None:
    """Each process has seen its part of the batch. The loss must reach the same parameters in all of them.

    By hand: torch's own wrapper wants one pass of one network in a loss.
    """
    if rank_and_ranks()[1] == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = averaged(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def averaged(tensor: Tensor) -> Tensor:
    """The mean over all processes, in each of them."""
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return tensor
    whole = tensor.clone()
    dist.all_reduce(whole)
    return whole / ranks


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@runtime_checkable
class Warms(Protocol):
    """A recipe with a warm-up."""

    @property
    def steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...


def lr_share(step: int, recipe: Warms) -> float:
    """Share of the peak learning rate: a linear rise, then a cosine down to a twentieth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
