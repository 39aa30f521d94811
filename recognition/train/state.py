"""State: the networks, the optimizer and how far they are; all that a checkpoint holds.

A checkpoint does not depend on how many processes wrote it: class centres, and the optimizer's memory of them, are
gathered whole. It holds tensors, numbers and strings alone.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

from recognition.files import whole_file
from recognition.train import processes
from recognition.train.networks import backbone, dimensions, head, outline
from recognition.train.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
FORMAT = 2  # of the random numbers and of this file: a training is finished by the version that began it
_HEAD = "head.weight"


@dataclass
class Place:
    """How far a training is.

    Attributes:
        losses: Mean loss of each finished epoch.
        step: Steps done of the epoch after them.
        so_far: Sum of the losses of those steps.
    """

    losses: list[float] = field(default_factory=list)
    step: int = 0
    so_far: float = 0.0


class State:
    """Networks, optimizer and place of a training.

    Args:
        recipe: What to train.
        classes: Identities.
        device: Where.
    """

    def __init__(self, recipe: Recipe, classes: int, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)  # the same weights in every process
        self.recipe, self.device = recipe, device
        self.model = backbone(recipe, device)
        self.head = head(recipe, classes, self.model, device)
        self.shared = [p for p in self.model.parameters() if p.requires_grad]
        self.sharded = [p for p in self.head.parameters() if p.requires_grad]
        self.optimizer = optimizer_of([*self.shared, *self.sharded], recipe)
        self.average = _copy(self.model) if recipe.ema_decay > 0 else {}
        self.place = Place()
        self.findings: list[list[str]] = []  # of the first-minutes checks: name and sentence
        self.scaler = _scaler(recipe, device)
        self.parallel: nn.Module = self.model
        if processes.ranks() > 1:
            devices = [device] if device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.model, devices, broadcast_buffers=False)

    def save(self, path: Path, made_from: str) -> None:
        """Writes the checkpoint, atomically; every process must call it, and the first one writes."""
        head_state = {name: value for name, value in self.head.state_dict().items() if name != "weight"}
        saved = {
            "format": FORMAT,
            "recipe": self.recipe.sha256,
            "made_from": made_from,
            "losses": self.place.losses,
            "step": self.place.step,
            "so_far": self.place.so_far,
            "model": self.model.state_dict(),
            "head": {"weight": self.head.whole_weight(), **head_state},
            "optimizer": self._memory(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "average": self.average,
            "findings": self.findings,
        }
        if processes.rank() == 0:
            with whole_file(path) as file:
                torch.save(saved, file)
        processes.wait()

    def begin_with(self, path: Path) -> None:
        """Takes the weights of another training, of the same backbone and classes.

        Raises:
            ValueError: As `check_start`.
        """
        check_start(path, self.recipe, self.head.classes)
        saved = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["average"] or saved["model"])
        self.head.load_whole(saved["head"]["weight"])
        self.average = _copy(self.model) if self.recipe.ema_decay > 0 else {}

    def resume(self, path: Path, made_from: str) -> None:
        """Goes on where the checkpoint stands; nothing happens where there is none.

        Raises:
            ValueError: If it is of another recipe or other pictures, or unfinished and of another version.
        """
        if not path.exists():
            return
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["made_from"] != made_from:
            raise ValueError(
                f"{path}: expected one made from this recipe and these crops, {made_from}, found {saved['made_from']}"
            )
        self.place.losses, self.findings = list(saved["losses"]), list(saved.get("findings", ()))
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        if len(self.place.losses) == self.recipe.epochs:
            return
        if saved.get("format") != FORMAT:
            raise ValueError(
                f"{path}: expected a training begun by this version, format {FORMAT}, found {saved.get('format', 1)}"
            )
        self.place.step, self.place.so_far = saved["step"], saved["so_far"]
        self.head.load_whole(saved["head"]["weight"])
        self.head.load_state_dict({name: v for name, v in saved["head"].items() if name != "weight"}, strict=False)
        self._remember(saved["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(saved["scaler"])

    def result(self) -> nn.Module:
        """A copy of the model in eval mode, with the averaged weights if there are any; the same in every process."""
        with torch.random.fork_rng(devices=[]):
            model = backbone(self.recipe, self.device)
        model.load_state_dict(self.average or self.model.state_dict())
        processes.take_buffers_of_the_first(model)
        return model.eval()

    @torch.no_grad()
    def follow(self) -> None:
        """average <- decay * average + (1 - decay) * weights; counters are copied."""
        if not self.average:
            return
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.recipe.ema_decay)
            else:
                self.average[name].copy_(value)

    def _named(self) -> dict[str, nn.Parameter]:
        return {**dict(self.model.named_parameters()), _HEAD: self.head.weight}

    def _memory(self) -> dict[str, dict[str, Any]]:
        """What the optimizer remembers of every parameter, by name; of the class centres, whole."""
        kept = {}
        for name, parameter in self._named().items():
            memory = dict(self.optimizer.state.get(parameter, {}))
            if name == _HEAD:
                memory = {key: self.head.whole(v) if _by_row(v, parameter) else v for key, v in memory.items()}
            kept[name] = memory
        return kept

    def _remember(self, kept: dict[str, dict[str, Any]]) -> None:
        for name, parameter in self._named().items():
            for key, value in kept[name].items():
                mine = self.head.part(value).clone() if name == _HEAD and _by_row(value, parameter) else value
                # AdamW counts its steps on the CPU, unless it is told otherwise.
                self.optimizer.state[parameter][key] = mine.cpu() if key == "step" else mine


def check_start(path: Path, recipe: Recipe, classes: int) -> None:
    """Raises ValueError unless a file is the checkpoint of a training of the same backbone and as many classes."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = {name: tuple(value.shape) for name, value in (saved["average"] or saved["model"]).items()}
        centres = tuple(saved["head"]["weight"].shape)
    except (pickle.UnpicklingError, RuntimeError, LookupError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(f"start: expected the {CHECKPOINT} of a training, got another file, {path}") from error
    model = outline(recipe)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    other = next((name for name in sorted(wanted | found) if wanted.get(name) != found.get(name)), None)
    if other is not None:
        expected, got = (shapes.get(other, "nothing") for shapes in (wanted, found))
        raise ValueError(f"start: expected weights of {recipe.backbone} in {path}, with {other} {expected}, got {got}")
    if centres != (classes, dimensions(model)):
        raise ValueError(f"start: expected a training on {classes} people in {path}, got one on {centres[0]}")


def _by_row(value: Any, parameter: nn.Parameter) -> bool:
    """Whether an optimizer remembers this row by row, like the class centres."""
    return isinstance(value, Tensor) and value.ndim == parameter.ndim


def optimizer_of(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Decay for matrices and kernels only, unless the recipe has it on norms, too: pulling a norm's scale or a bias to
    0 is no prior on the function."""
    on_norms = recipe.weight_decay if recipe.weight_decay_on_norms else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": on_norms},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(recipe.momentum, 0.999))
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=nesterov)


def weights_sha256(model: nn.Module) -> str:
    """Hash of names, shapes and values of the state dict, in its order; the same on every device and memory layout."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _scaler(recipe: Recipe, device: torch.device) -> GradScaler | None:
    """For fp16: every process must skip the same steps, whichever one's shard overflowed."""
    if recipe.precision != "fp16":
        return None
    if device.type != "cuda":
        raise ValueError(f"Recipe.precision: expected fp16 on a CUDA device alone (bf16 runs anywhere), got {device}")
    return ShardedGradScaler() if processes.ranks() > 1 else GradScaler("cuda")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
