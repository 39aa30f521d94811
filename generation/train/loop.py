"""What every training here shares: a checkpoint that is whole or not there, and the steps from one to the next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Say = Callable[[str], None]
Loss = Callable[[torch.Generator], Float[Tensor, ""]]


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


class OneCycle:
    """AdamW with a one-cycle learning rate (Smith and Topin, 2019), from a loss per step to the last step.

    Args:
        name: Of the model, on the progress lines.
        model: Already on its device.
        recipe: With `steps`, `batch_size`, `peak_lr`, `seed` and `checkpoint_every`.
        path: Of the checkpoint.
    """

    def __init__(self, name: str, model: torch.nn.Module, recipe: Any, path: Path) -> None:
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
        started, running = time.perf_counter(), 0.0
        for step in range(first, recipe.steps):
            loss = self._step(loss_of(rng_of_step(recipe.seed, step)), step)
            running = loss if step == first else 0.98 * running + 0.02 * loss
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                self.checkpoint.keep(step + 1)
                rate = (step + 1 - first) * recipe.batch_size / (time.perf_counter() - started)
                say(f"{self.name}: step {step + 1}/{recipe.steps}, loss {running:.4f}, {rate:.0f} pictures/s")

    def _step(self, loss: Float[Tensor, ""], step: int) -> float:
        if not torch.isfinite(loss):
            raise ValueError(f"expected a finite {self.name} loss, got {loss.item()} at step {step}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        return loss.item()
