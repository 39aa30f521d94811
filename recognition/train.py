"""Trains a recogniser: labelled crops and a recipe in, a network out. One loop.

The result depends on the crops, the labels and the recipe alone: the order and the augmentation of epoch e come from
(seed, e), so that a run continued from the checkpoint of an epoch ends as an uninterrupted one does, bit for bit on a
CPU.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from recognition.augment import Augment, normalised
from recognition.backbones import BACKBONES
from recognition.margins import AdaFace, ArcFace, CosFace, ElasticFace, Filtered
from recognition.partial_fc import PartialFC

CHECKPOINT = "checkpoint.pt"
_REPORT_EVERY = 10  # steps between two calls of on_progress


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what training does, apart from the pictures.

    Args:
        backbone: A name in `recognition.backbones.BACKBONES`.
        margin: The loss.
        augment: The augmentations.
        epochs: Passes over the pictures.
        batch_size: Pictures in a step; the rest of an epoch's pictures that fill no batch are left out of that epoch.
        optimizer: "sgd" (with Nesterov momentum) or "adamw".
        peak_lr: Learning rate after the warm-up.
        momentum: Momentum of SGD; the first beta of AdamW.
        weight_decay: Decay of matrices and kernels; norms, biases and PReLU slopes have none.
        schedule: "cosine" to 0, "polynomial" (power 2) to 0, or "step": a tenth after 50, 75 and 90 % of the steps.
        warmup_epochs: Linear rise of the learning rate from 0; may be a fraction.
        clip_norm: Largest norm of the gradient of backbone and head together.
        ema_decay: Decay of the running average of the weights per step, in [0, 1); the average is the result. 0: no
            average.
        seed: Fixes initial weights, order and augmentation.
        precision: "fp32", or "bf16", which runs the backbone under autocast; head, loss and weights stay float32.
        threads: Threads of torch on the CPU: another number rounds differently.

    Raises:
        ValueError: If a value is out of range or unknown.
    """

    backbone: str = "iresnet_tiny"
    margin: ArcFace | CosFace | AdaFace | ElasticFace | Filtered = field(
        default_factory=lambda: ArcFace(margin_rad=0.5, scale=32.0)
    )
    augment: Augment = field(default_factory=Augment)
    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    peak_lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    clip_norm: float = 5.0
    ema_decay: float = 0.0
    seed: int = 0
    precision: str = "bf16"
    threads: int = 2

    def __post_init__(self) -> None:
        _one_of("backbone", self.backbone, tuple(BACKBONES))
        _one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        _one_of("schedule", self.schedule, ("cosine", "polynomial", "step"))
        _one_of("precision", self.precision, ("fp32", "bf16"))
        for name, smallest in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("threads", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"Recipe.{name}: expected at least {smallest}, got {getattr(self, name)}")
        if not (self.peak_lr > 0 and self.clip_norm > 0 and self.weight_decay >= 0):
            raise ValueError(
                "Recipe: expected peak_lr > 0, clip_norm > 0, weight_decay >= 0, "
                f"got {self.peak_lr}, {self.clip_norm}, {self.weight_decay}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"Recipe.warmup_epochs: expected a value in [0, {self.epochs}), got {self.warmup_epochs}")
        for name in ("momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Recipe.{name}: expected a value in [0, 1), got {getattr(self, name)}")

    @property
    def sha256(self) -> str:
        """Hash of all fields, to stand beside scores."""
        margin = {"margin": {"name": type(self.margin).__name__, **asdict(self.margin)}}
        return hashlib.sha256(json.dumps(asdict(self) | margin, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        epoch: Epoch in progress, from 1.
        epochs: Epochs in all.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        loss: Mean loss of the steps of this epoch so far.
        lr: Learning rate of the last step.
        images_per_s: Rate of this epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_s: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}/{self.epochs} step {self.step}/{self.steps} loss {self.loss:.3f} "
            f"lr {self.lr:.4f} {self.images_per_s:.0f} images/s"
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gives.

    Attributes:
        model: The backbone in eval mode, on the device it was trained on; the average of its weights if the recipe asks
            for one.
        losses: Mean loss of each epoch.
        weights_sha256: Hash of the names and values of the model's state dict.
    """

    model: nn.Module
    losses: tuple[float, ...]
    weights_sha256: str


OnProgress = Callable[[Progress], None]
OnEpoch = Callable[[nn.Module, int], None]


def train(
    images: UInt8[np.ndarray, "n 112 112 3"],
    labels: Int64[np.ndarray, " n"],
    recipe: Recipe,
    out_dir: Path,
    on_progress: OnProgress | None = None,
    on_epoch: OnEpoch | None = None,
    device: str = "cpu",
    start: Path | None = None,
) -> Trained:
    """Trains from scratch, or from `start`; continues after the last whole epoch that `out_dir` holds.

    Args:
        images: Aligned RGB crops; an `np.memmap` is read batch by batch.
        labels: Class of each crop, 0 to classes - 1, none missing.
        recipe: What to do.
        out_dir: Where `checkpoint.pt` is written after each epoch, atomically.
        on_progress: Called every 10 steps and at the end of an epoch.
        on_epoch: Called after each epoch with the model so far (averaged if the recipe asks for it; in eval mode) and
            the epoch, from 1.
        device: Where torch computes.
        start: Another training's `checkpoint.pt`, of the same backbone and classes, whose weights are the first.

    Raises:
        ValueError: If the labels are not those of at least 2 classes, if `out_dir` belongs to another recipe or other
            crops, or if the loss is not finite, naming epoch and step.
    """
    classes = _check_labels(images, labels)
    out_dir.mkdir(parents=True, exist_ok=True)
    made_from = _fingerprint(images, labels, recipe, start)
    with _threads(recipe.threads), torch.random.fork_rng(devices=[]):
        state = _State(recipe, classes, steps_per_epoch(len(images), recipe), torch.device(device))
        if start is not None:
            state.begin_with(start)
        state.resume(out_dir / CHECKPOINT, made_from)
        for epoch in range(len(state.losses), recipe.epochs):
            state.losses.append(_run_epoch(state, images, labels, epoch, on_progress))
            state.save(out_dir / CHECKPOINT, made_from)
            if on_epoch is not None:
                on_epoch(state.result(), epoch + 1)
        model = state.result()
    return Trained(model, tuple(state.losses), weights_sha256(model))


def load_trained(out_dir: Path, recipe: Recipe, device: str = "cpu") -> Trained:
    """The result of a finished `train` in `out_dir`, without its pictures.

    Raises:
        ValueError: If `out_dir` has no checkpoint, one of another recipe, or an unfinished one.
    """
    path = out_dir / CHECKPOINT
    if not path.exists():
        raise ValueError(f"{path}: expected a checkpoint, found none")
    saved = torch.load(path, map_location=device, weights_only=True)
    if saved["recipe"] != recipe.sha256:
        raise ValueError(f"{path}: expected recipe {recipe.sha256}, found {saved['recipe']}")
    if len(saved["losses"]) != recipe.epochs:
        raise ValueError(f"{path}: expected {recipe.epochs} epochs, found {len(saved['losses'])}")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are thrown away
        model = _backbone(recipe, torch.device(device))
    model.load_state_dict(saved["average"] or saved["model"])
    return Trained(model.eval(), tuple(saved["losses"]), weights_sha256(model))


def weights_sha256(model: nn.Module) -> str:
    """Hash of names, shapes and values of the state dict, in its order; the same on every device and memory layout."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def steps_per_epoch(images: int, recipe: Recipe) -> int:
    """Whole batches in an epoch, at least one: fewer pictures than a batch are one smaller batch."""
    return max(1, images // recipe.batch_size)


def lr_at(step: int, per_epoch: int, recipe: Recipe) -> float:
    """Learning rate of a step counted over the whole training from 0: a linear rise, then the schedule down."""
    warmup, total = round(recipe.warmup_epochs * per_epoch), recipe.epochs * per_epoch
    if step < warmup:
        return recipe.peak_lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if recipe.schedule == "cosine":
        return recipe.peak_lr * (1 + math.cos(math.pi * done)) / 2
    if recipe.schedule == "polynomial":
        return recipe.peak_lr * (1 - done) ** 2
    return recipe.peak_lr * 0.1 ** sum(done >= share for share in (0.5, 0.75, 0.9))


def embed(
    model: nn.Module, images: UInt8[np.ndarray, "n 112 112 3"], batch_size: int = 256, flip: bool = True
) -> Float32[np.ndarray, "n d"]:
    """Raw embeddings of RGB crops, in float32; the model's mode is left as it was.

    Args:
        model: A backbone.
        images: Aligned RGB crops.
        batch_size: Crops in a forward pass.
        flip: Whether the raw embedding of the mirror image is added, as insightface's verification does.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            x = normalised(torch.from_numpy(np.array(images[start : start + batch_size])).to(device))
            y = model(x) + model(x.flip(3)) if flip else model(x)
            rows.append(y.float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(rows) if rows else np.zeros((0, _dimensions(model)), np.float32)


class _State:
    """Networks, optimizer and what is known so far: all that a checkpoint holds."""

    def __init__(self, recipe: Recipe, classes: int, per_epoch: int, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.model = _backbone(recipe, device)
        self.head = PartialFC(classes, _dimensions(self.model), recipe.margin).to(device)
        self.parameters = [p for m in (self.model, self.head) for p in m.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, recipe)
        self.average = _copy(self.model) if recipe.ema_decay > 0 else {}
        self.losses: list[float] = []
        self.recipe, self.per_epoch, self.device = recipe, per_epoch, device

    def save(self, path: Path, made_from: str) -> None:
        saved = {
            "recipe": self.recipe.sha256,
            "made_from": made_from,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def begin_with(self, path: Path) -> None:
        saved = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["average"] or saved["model"])
        self.head.load_state_dict(saved["head"])
        self.average = _copy(self.model) if self.recipe.ema_decay > 0 else {}

    def resume(self, path: Path, made_from: str) -> None:
        if not path.exists():
            return
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["made_from"] != made_from:
            raise ValueError(
                f"{path}: expected one made from this recipe and these crops, {made_from}, found {saved['made_from']}"
            )
        self.losses = list(saved["losses"])
        self.model.load_state_dict(saved["model"])
        self.head.load_state_dict(saved["head"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["average"]

    def result(self) -> nn.Module:
        """A copy of the model in eval mode, with the averaged weights if there are any."""
        model = _backbone(self.recipe, self.device)
        model.load_state_dict(self.average or self.model.state_dict())
        return model.eval()


def _run_epoch(
    state: _State,
    images: UInt8[np.ndarray, "n 112 112 3"],
    labels: Int64[np.ndarray, " n"],
    epoch: int,
    on_progress: OnProgress | None,
) -> float:
    """One pass over the crops; returns the mean loss."""
    recipe, steps = state.recipe, state.per_epoch
    generator = torch.Generator().manual_seed(_epoch_seed(recipe.seed, epoch))
    order = torch.randperm(len(images), generator=generator).numpy()
    torch.manual_seed(_epoch_seed(recipe.seed, epoch))  # for dropout, which takes no generator
    state.model.train()
    total, started = 0.0, time.perf_counter()
    for step in range(steps):
        rows = np.sort(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
        x = recipe.augment(torch.from_numpy(images[rows]).to(state.device), generator)
        y = torch.from_numpy(labels[rows]).to(state.device)
        lr = lr_at(epoch * steps + step, steps, recipe)
        loss = _step(state, x, y, lr)
        if not math.isfinite(loss):
            raise ValueError(f"loss: expected a finite number, got {loss} in epoch {epoch + 1}, step {step + 1}")
        total += loss
        if on_progress is not None and ((step + 1) % _REPORT_EVERY == 0 or step + 1 == steps):
            rate = (step + 1) * len(rows) / (time.perf_counter() - started)
            on_progress(Progress(epoch + 1, recipe.epochs, step + 1, steps, total / (step + 1), lr, rate))
    return total / steps


def _step(state: _State, x: Tensor, y: Tensor, lr: float) -> float:
    """One step of the optimizer; returns the loss before it."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(x.device.type, torch.bfloat16, enabled=state.recipe.precision == "bf16"):
        embeddings = state.model(x)
    loss = state.head(embeddings, y)
    state.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(state.parameters, state.recipe.clip_norm)
    state.optimizer.step()
    _follow(state.average, state.model, state.recipe.ema_decay)
    return loss.item()


@torch.no_grad()
def _follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * weights; counters are copied."""
    if not average:
        return
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _backbone(recipe: Recipe, device: torch.device) -> nn.Module:
    model = BACKBONES[recipe.backbone]().to(device)
    # Channels last in memory: up to 1.4 times faster convolutions on CPUs.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Decay for matrices and kernels only: pulling a norm's scale or a bias to 0 is no prior on the function."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _check_labels(images: UInt8[np.ndarray, "n 112 112 3"], labels: Int64[np.ndarray, " n"]) -> int:
    """The number of classes, after checking that every label from 0 on occurs."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (112, 112, 3):
        raise ValueError(f"images: expected uint8 (n, 112, 112, 3), got {images.dtype} {images.shape}")
    if labels.shape != (len(images),):
        raise ValueError(f"labels: expected one for each of the {len(images)} images, got shape {labels.shape}")
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(f"labels: expected at least 2 classes, got {len(found)}")
    if found[0] != 0 or found[-1] != len(found) - 1:
        raise ValueError(f"labels: expected 0 to {len(found) - 1}, none missing, got {found[0]} to {found[-1]}")
    return len(found)


def _fingerprint(
    images: UInt8[np.ndarray, "n 112 112 3"], labels: Int64[np.ndarray, " n"], recipe: Recipe, start: Path | None
) -> str:
    """Hash of recipe, start, all labels and at most 1000 crops: enough to tell one training from another quickly."""
    digest = hashlib.sha256(recipe.sha256.encode())
    if start is not None:
        digest.update(hashlib.sha256(start.read_bytes()).digest())
    digest.update(labels.tobytes())
    digest.update(np.ascontiguousarray(images[:: max(1, len(images) // 1000)]).tobytes())
    return digest.hexdigest()


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _dimensions(model: nn.Module) -> int:
    return int(model.dimensions)  # type: ignore[arg-type]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Recipe.{name}: expected one of {', '.join(allowed)}, got {value!r}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
