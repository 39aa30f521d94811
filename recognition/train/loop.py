"""The loop: labelled crops and a recipe in, a network out, in one process or in many.

The result depends on the crops, the labels and the recipe alone: everything random comes from the recipe's seed and the
place in the training (`seeds.py`), so that a training that is continued, after an epoch or in the middle of one, ends
as an uninterrupted one does, bit for bit on a CPU. The result is the last epoch's, by rule.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from recognition.files import sha256_of
from recognition.train import processes
from recognition.train.batches import Share
from recognition.train.checks import Checks, Finding
from recognition.train.feed import Feed
from recognition.train.logs import NO_LOG, Log, opened
from recognition.train.networks import backbone
from recognition.train.pictures import Data, Epoch, check_labels
from recognition.train.recipe import Recipe
from recognition.train.schedule import lr_at
from recognition.train.seeds import AUGMENT, DROPOUT, HEAD, generator, unit_seed
from recognition.train.state import CHECKPOINT, State, weights_sha256

_REPORT_EVERY = 10  # steps between two calls of on_progress: in between nobody waits for the device


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
        images_per_s: Rate of this epoch so far, of all processes together.
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
        findings: What the first-minutes checks found wrong.
    """

    model: nn.Module
    losses: tuple[float, ...]
    weights_sha256: str
    findings: tuple[Finding, ...] = ()


OnProgress = Callable[[Progress], None]
OnEpoch = Callable[[nn.Module, int], None]


def train(
    data: Data,
    recipe: Recipe,
    out_dir: Path,
    on_progress: OnProgress | None = None,
    on_epoch: OnEpoch | None = None,
    device: str = "cpu",
    start: Path | None = None,
    checkpoint_steps: int = 0,
    say: Callable[[str], None] = print,
    log: str = NO_LOG,
) -> Trained:
    """Trains from scratch, or from `start`; continues where `out_dir` stands.

    Where torch.distributed is initialised, every process calls it with the same arguments but its own device, and all
    read and write the same `out_dir`.

    Args:
        data: Labelled crops.
        recipe: What to do.
        out_dir: Where `checkpoint.pt` is written after each epoch, atomically, and `train.jsonl`.
        on_progress: Called every 10 steps and at the end of an epoch, in the first process.
        on_epoch: Called after each epoch with the model so far (averaged if the recipe asks for it; in eval mode) and
            the epoch, from 1, in the first process. Where an epoch's checkpoint is what it continues from, once more
            for that epoch: it may have been cut short in there.
        device: Where torch computes.
        start: Another training's `checkpoint.pt`, of the same backbone and classes, whose weights are the first.
        checkpoint_steps: Steps of an epoch after which a checkpoint is written, too; 0: at its end alone.
        say: Takes the findings of the first-minutes checks, a sentence each, in the first process.
        log: "none", "tensorboard" or "wandb", beside `train.jsonl`.

    Raises:
        ValueError: If the labels are not those of at least 2 classes, the batch cannot be shared out, `out_dir` belongs
            to another recipe or other crops, a package for `log` is missing, or a loss is not finite, naming epoch
            and step.
    """
    check_labels(data.labels)
    share = Share(processes.rank(), processes.ranks(), recipe.accumulate)
    share.check(recipe, len(data.labels))
    first, where = processes.rank() == 0, torch.device(device)
    out_dir.mkdir(parents=True, exist_ok=True)
    made_from = fingerprint(data, recipe, start)
    with ExitStack() as stack:
        stack.enter_context(_settings(recipe, where))
        state = State(recipe, int(data.labels.max()) + 1, where)
        if start is not None:
            state.begin_with(start)
        state.resume(out_dir / CHECKPOINT, made_from)
        per_epoch = data.steps(recipe)
        done = len(state.place.losses) * per_epoch + state.place.step
        told = stack.enter_context(opened(log, out_dir, done)) if first else None
        fresh = done == 0 and start is None
        checks = Checks(data, state, say if first else _silent, first=first, fresh=fresh, per_epoch=per_epoch)
        for note in data.notes(recipe) if first else ():
            say(note)
        run = _Run(data, state, share, per_epoch, checkpoint_steps, out_dir / CHECKPOINT, made_from, checks, told)
        run.on_progress = on_progress if first else None
        begun = len(state.place.losses)
        if begun and state.place.step == 0:
            _ended(state, on_epoch, begun)
        for number in range(begun, recipe.epochs):
            run.epoch(number)
            _ended(state, on_epoch, number + 1)
        model = state.result()
    return Trained(model, tuple(state.place.losses), weights_sha256(model), tuple(checks.findings))


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
        model = backbone(recipe, torch.device(device))
    model.load_state_dict(saved["average"] or saved["model"])
    findings = tuple(Finding(*told) for told in saved.get("findings", ()))
    return Trained(model.eval(), tuple(saved["losses"]), weights_sha256(model), findings)


def fingerprint(data: Data, recipe: Recipe, start: Path | None = None) -> str:
    """Hash of recipe, start and pictures: tells one training from another."""
    digest = hashlib.sha256(recipe.sha256.encode())
    if start is not None:
        digest.update(bytes.fromhex(sha256_of(start)))
    data.tell(digest)
    return digest.hexdigest()


@dataclass(eq=False)
class _Run:
    """A training under way."""

    data: Data
    state: State
    share: Share
    per_epoch: int
    checkpoint_steps: int
    checkpoint: Path
    made_from: str
    checks: Checks
    log: Log | None
    on_progress: OnProgress | None = None
    pending: list[Tensor] = field(default_factory=list)  # (loss, mean norm, gradient norm) of steps not looked at yet

    def epoch(self, number: int) -> None:
        """One pass over the pictures, from where the checkpoint stands."""
        state, place = self.state, self.state.place
        epoch = self.data.epoch(state.recipe, number, self.share)
        state.model.train()
        began, started = place.step, time.perf_counter()
        with Feed(epoch.units(began), state.device) as feed:
            units = iter(feed)
            for step in range(began, epoch.steps):
                lr = lr_at(number * self.per_epoch + step, self.per_epoch, state.recipe)
                self.pending.append(self._step(units, number, step, lr))
                place.step = step + 1
                due = self.checkpoint_steps and place.step % self.checkpoint_steps == 0 and place.step < epoch.steps
                if place.step % _REPORT_EVERY == 0 or place.step == epoch.steps or due:
                    seconds = time.perf_counter() - started
                    self._look(number, epoch, lr, (place.step - began) * epoch.batch / seconds)
                if due:
                    state.save(self.checkpoint, self.made_from)
        place.losses.append(place.so_far / epoch.steps)
        place.step, place.so_far = 0, 0.0
        state.save(self.checkpoint, self.made_from)

    def _step(self, units: Iterator[tuple[Tensor, Tensor]], epoch: int, step: int, lr: float) -> Tensor:
        """One step of the optimizer. Returns loss, mean norm of the embeddings and norm of the gradient, before it."""
        state, recipe = self.state, self.state.recipe
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad()
        losses, norms = [], []
        for micro in range(recipe.accumulate):
            images, labels = next(units)
            last = micro + 1 == recipe.accumulate
            with nullcontext() if last or self.share.ranks == 1 else state.parallel.no_sync():  # type: ignore[operator]
                loss, norm = self._unit(images, labels, epoch, step, micro)
            losses.append(loss)
            norms.append(norm)
        gradient = self._update()
        state.follow()
        return torch.stack([torch.stack(losses).mean(), torch.stack(norms).mean(), gradient])

    def _unit(self, images: Tensor, labels: Tensor, epoch: int, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of a micro-batch."""
        state, recipe = self.state, self.state.recipe
        place = (recipe.seed, epoch, step, self.share.unit(micro))
        x = recipe.augment(images, generator(unit_seed(*place, AUGMENT)))
        torch.manual_seed(unit_seed(*place, DROPOUT))  # dropout takes no generator
        with torch.autocast(x.device.type, _DTYPES[recipe.precision], enabled=recipe.precision != "fp32"):
            embeddings = state.parallel(x)
        embeddings = embeddings.float()
        if self.share.ranks > 1:  # each has the gradient of its own faces: their sum is wanted, and DDP takes the mean
            embeddings.register_hook(lambda gradient: gradient * self.share.ranks)
        torch.manual_seed(unit_seed(recipe.seed, epoch, step, micro, HEAD))  # alike in all processes
        loss = state.head(embeddings, labels)
        scaled = loss if recipe.accumulate == 1 else loss / recipe.accumulate
        (scaled if state.scaler is None else state.scaler.scale(scaled)).backward()
        return loss.detach(), embeddings.detach().norm(dim=1).mean()

    def _update(self) -> Tensor:
        """Clips and takes the step. Returns the norm of the gradient."""
        state = self.state
        if state.scaler is not None:
            state.scaler.unscale_(state.optimizer)
        norm = processes.clip(state.shared, state.sharded, state.recipe.clip_norm)
        if state.scaler is None:
            state.optimizer.step()
        else:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        return norm

    def _look(self, number: int, epoch: Epoch, lr: float, rate: float) -> None:
        """Fetches what the last steps gave, checks it and tells it."""
        place, recipe = self.state.place, self.state.recipe
        rows = torch.stack(self.pending).tolist()
        self.pending.clear()
        first = place.step - len(rows)
        for step, (loss, norm, _) in enumerate(rows, first + 1):
            if not math.isfinite(loss):
                raise ValueError(
                    f"loss: expected a finite number, got {loss} in epoch {number + 1}, step {step}; {self._kept()}"
                )
            self.checks.step(number * self.per_epoch + step, loss, norm)
            place.so_far += loss
        done, loss = number * self.per_epoch + place.step, place.so_far / place.step
        if self.log is not None:
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            self.log.write(done, number + 1, loss=mean[0], lr=lr, norm=mean[1], gradient=mean[2], images_per_s=rate)
        if self.on_progress is not None:
            self.on_progress(Progress(number + 1, recipe.epochs, place.step, epoch.steps, loss, lr, rate))

    def _kept(self) -> str:
        if not self.checkpoint.exists():
            return "no checkpoint was written before it"
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return f"the last good checkpoint is kept: epoch {len(saved['losses'])} and {saved.get('step', 0)} steps"


def _ended(state: State, on_epoch: OnEpoch | None, epoch: int) -> None:
    if on_epoch is not None:
        model = state.result()  # all processes have a part in it
        if processes.rank() == 0:
            on_epoch(model, epoch)


def _silent(line: str) -> None:
    """Only the first process speaks."""


_DTYPES = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def _settings(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Threads, random numbers and cuDNN's choice of algorithms, as they were afterwards."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(recipe.threads)
    torch.backends.cudnn.benchmark = True  # every batch has one shape
    try:
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
