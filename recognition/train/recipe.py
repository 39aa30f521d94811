"""Recipe: everything that decides what training does, apart from the pictures. Its hash stands beside every score."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from recognition.augment import Augment, Augmentation, described
from recognition.backbones import BACKBONES
from recognition.margins import ArcFace, Margin

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "polynomial", "step", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
BATCHES = ("shuffled", "pk")
FEW_PICTURES = ("repeat", "refuse")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what training does, apart from the pictures.

    The last epoch is the result, always: no score chooses a checkpoint.

    Args:
        backbone: A name in `recognition.backbones.BACKBONES`.
        margin: The loss.
        augment: The augmentations.
        epochs: Passes over the pictures.
        batch_size: Pictures in a step, of all processes and micro-batches together; the rest of an epoch's pictures
            that fill no batch are left out of that epoch.
        optimizer: "sgd" or "adamw".
        peak_lr: Learning rate after the warm-up.
        momentum: Momentum of SGD; the first beta of AdamW.
        weight_decay: Decay of matrices, kernels and class centres.
        schedule: What follows the warm-up: "cosine" to 0, "polynomial" to 0, "step" by step, or "constant".
        warmup_epochs: Linear rise of the learning rate from 0; may be a fraction.
        clip_norm: Largest norm of the gradient of backbone and head together; 0: no clipping.
        ema_decay: Decay of the running average of the weights per step, in [0, 1); the average is the result. 0: no
            average.
        seed: Fixes initial weights, order, augmentation and dropout.
        precision: "fp32", or "bf16" or "fp16" (CUDA alone, with loss scaling), which run the backbone under autocast;
            head, loss and weights stay float32.
        threads: Threads of torch in each process on the CPU: another number rounds differently.
        dropout: Probability of dropping a feature before the last linear layer, for backbones that do so, in [0, 1).
        nesterov: Whether SGD's momentum is Nesterov's.
        weight_decay_on_norms: Whether norms, biases and PReLU slopes are decayed, too, as in arcface_torch.
        power: Of the polynomial schedule (1 - t)^power.
        milestones: Epochs at which the step schedule lowers the rate, counted from the start, ascending. None given:
            after 50, 75 and 90 % of the steps that follow the warm-up.
        factor: What each milestone multiplies the rate by, in (0, 1).
        accumulate: Micro-batches in a step. Without BatchNorm k of them are one batch; with it, each is normalised by
            its own statistics, and so are the processes' parts. AdaFace's statistics and the sampled centres of
            sample_rate < 1 are a micro-batch's own, too.
        sample_rate: Share of the class centres in each step's softmax, in (0, 1]: Partial FC.
        batches: "shuffled", or "pk": batch_size / pictures_per_person people with so many pictures each.
        pictures_per_person: K of P x K.
        few_pictures: What "pk" does with a person of fewer pictures: "repeat" some of them within a batch, or "refuse"
            the set.

    Raises:
        ValueError: If a value is out of range or unknown, or two contradict each other.
    """

    backbone: str = "iresnet_tiny"
    margin: Margin = field(default_factory=lambda: ArcFace(margin_rad=0.5, scale=32.0))
    augment: Augmentation = field(default_factory=Augment)
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
    # Added since the first recipes were hashed: see `settings`.
    dropout: float = 0.0
    nesterov: bool = True
    weight_decay_on_norms: bool = False
    power: float = 2.0
    milestones: Sequence[float] = ()
    factor: float = 0.1
    accumulate: int = 1
    sample_rate: float = 1.0
    batches: str = "shuffled"
    pictures_per_person: int = 4
    few_pictures: str = "repeat"

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a config's list
        self._check_names()
        self._check_numbers()
        self._check_milestones()
        self._check_batches()

    def _check_kinds(self) -> None:
        """A config's words may be of any kind: "ten" epochs, or one and a half."""
        for each in fields(self):
            kind, value = _KINDS.get(str(each.type)), getattr(self, each.name)
            if kind is not None and (isinstance(value, bool) or not isinstance(value, kind[0])):
                raise ValueError(f"Recipe.{each.name}: expected {kind[1]}, got {value!r}")
        if not isinstance(self.margin, Margin):
            raise ValueError(f"Recipe.margin: expected one of recognition's margins, got {self.margin!r}")
        if not isinstance(self.augment, Augmentation):
            raise ValueError(f"Recipe.augment: expected one of recognition's augmentations, got {self.augment!r}")

    def _check_names(self) -> None:
        for name, allowed in (
            ("backbone", tuple(BACKBONES)),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("batches", BATCHES),
            ("few_pictures", FEW_PICTURES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Recipe.{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def _check_numbers(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("threads", 1), ("accumulate", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Recipe.{name}: expected at least {least}, got {getattr(self, name)}")
        for name, zero_too in (("peak_lr", False), ("power", False), ("clip_norm", True), ("weight_decay", True)):
            value = getattr(self, name)
            if not (0 < value < math.inf or (zero_too and value == 0)):
                raise ValueError(f"Recipe.{name}: expected {'at least' if zero_too else 'more than'} 0, got {value}")
        for name in ("momentum", "ema_decay", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Recipe.{name}: expected a value in [0, 1), got {getattr(self, name)}")
        if not 0 < self.factor < 1:
            raise ValueError(f"Recipe.factor: expected a value in (0, 1), got {self.factor}")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"Recipe.sample_rate: expected a value in (0, 1], got {self.sample_rate}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"Recipe.warmup_epochs: expected a value in [0, {self.epochs}), got {self.warmup_epochs}")

    def _check_milestones(self) -> None:
        if self.milestones and self.schedule != "step":
            raise ValueError(f"Recipe.milestones: expected none with schedule {self.schedule!r}, got {self.milestones}")
        bounds = (0, *self.milestones, self.epochs)
        if any(not low < high for low, high in pairwise(bounds)):
            raise ValueError(
                f"Recipe.milestones: expected ascending epochs between 0 and {self.epochs}, got {self.milestones}"
            )

    def _check_batches(self) -> None:
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"Recipe.accumulate: expected micro-batches of equal size, of 2 or more of the {self.batch_size} "
                f"pictures of batch_size, got {self.accumulate}"
            )
        if self.batches == "pk" and (
            self.pictures_per_person < 1
            or self.batch_size % self.pictures_per_person
            or self.batch_size // self.pictures_per_person < 2
        ):
            raise ValueError(
                f"Recipe.pictures_per_person: expected a divisor of batch_size {self.batch_size} that leaves at least "
                f"2 people, got {self.pictures_per_person}"
            )

    @property
    def told(self) -> dict[str, Any]:
        """All that decides the training as plain data: what is hashed, and written beside a result."""
        told = settings(self)
        told["margin"] = {"name": type(self.margin).__name__, **told["margin"]}
        if type(self.augment) is not Augment:  # which the first recipes did not name
            told["augment"] = described(self.augment)
        return told

    @property
    def sha256(self) -> str:
        """Hash of all fields, to stand beside scores."""
        return hashlib.sha256(json.dumps(self.told, sort_keys=True).encode()).hexdigest()


_KINDS = {"int": (Integral, "a whole number"), "float": (Real, "a number")}  # of fields, by their annotation
_FIRST = {
    "Recipe": (
        *("backbone", "margin", "augment", "epochs", "batch_size", "optimizer", "peak_lr", "momentum", "weight_decay"),
        *("schedule", "warmup_epochs", "clip_norm", "ema_decay", "seed", "precision", "threads"),
    ),
    "ArcFace": ("margin_rad", "scale", "gradient"),
    "CosFace": ("margin_cosine", "scale"),
}


def settings(part: Any) -> dict[str, Any]:
    """The fields of a recipe or of a part of one as plain data.

    A field that has been added since the first recipes were hashed is left out at its default: a recipe that does not
    use it keeps its hash.

    Raises:
        ValueError: If a part is not a dataclass, so that nobody could say what it does.
    """
    if not is_dataclass(part):
        raise ValueError(f"recipe: expected dataclasses as parts, got {part!r}")
    first = _FIRST.get(type(part).__name__)
    return {
        each.name: _plain(getattr(part, each.name), named=not isinstance(part, Recipe))
        for each in fields(part)
        if first is None or each.name in first or not _at_default(part, each)
    }


def _at_default(part: Any, each: Any) -> bool:
    return each.default is not MISSING and bool(getattr(part, each.name) == each.default)


def _plain(value: Any, named: bool) -> Any:
    if isinstance(value, Augmentation) and not isinstance(value, Augment):
        return described(value)
    if is_dataclass(value):
        return ({"name": type(value).__name__} if named else {}) | settings(value)
    return list(value) if isinstance(value, tuple) else value
