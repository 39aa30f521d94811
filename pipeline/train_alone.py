"""`facemint train`: a recogniser on any labelled pictures; in this process, under torchrun, or on Ray Train."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Table

from pipeline.fit import ONNX, Order, begin, fit, occupied
from pipeline.meaning import plain
from pipeline.preflight import ConfigError, build, free_memory, innermost, precision, targets
from pipeline.progress import CONSOLE, Watch, say
from pipeline.steps.files import read_json, write_text
from recognition.files import sha256_of
from recognition.formats import LabelledSet, open_set
from recognition.train import Data, Recipe, embed, processes
from recognition.train.batches import Share, epoch_order
from recognition.train.logs import check_log
from recognition.train.loop import fingerprint
from recognition.train.memory_map import decoded, expect_room, opened
from recognition.train.networks import dimensions, outline
from recognition.train.pictures import check_labels
from recognition.train.state import check_start
from recognition.train.streaming import Stream

FINISHED, CROPS, SCORED = "train.json", "crops", "protocols.json"


@dataclass(frozen=True)
class Wish:
    """What a user asked for, as plain data that travels to other processes.

    Attributes:
        trainer: The recipe's config.
        said: All other words of conf/train.yaml.
    """

    trainer: Mapping[str, Any]
    said: Mapping[str, Any]

    @classmethod
    def of(cls, cfg: DictConfig) -> Wish:
        said = {str(name): value for name, value in plain(cfg).items() if name not in ("trainer", "hydra")}
        for place, name in ((said, "data"), (said, "out"), (said, "start"), (said["protocols"], "folder")):
            if place[name] is not None:  # workers start elsewhere
                place[name] = os.path.abspath(place[name])
        return cls(plain(cfg.trainer), said)

    @property
    def out(self) -> Path:
        return Path(self.said["out"])

    @property
    def start(self) -> Path | None:
        return None if self.said["start"] is None else Path(self.said["start"])

    @property
    def recipe(self) -> Recipe:
        """Raises ValueError where it is none."""
        return build(self.trainer)


def train_alone(cfg: DictConfig) -> None:
    """Trains as a composed config (conf/train.yaml) says.

    Raises:
        ConfigError: If it cannot begin; every fault that is found, a line each.
        ValueError: As `recognition.train.train`.
    """
    wish = Wish.of(cfg)
    ray = wish.said["ray"]
    ranks = ray["workers"] or int(os.environ.get("WORLD_SIZE", "1"))
    check(wish, ranks)
    if ray["workers"]:
        from pipeline.runners.ray_train import RayTrain

        RayTrain(**ray).run(train_here, wish)
        show(json.loads((wish.out / FINISHED).read_text()))
        return
    with processes.joined(wish.said["device"]) as device:
        told = train_here(wish, device)
        if processes.rank() == 0:
            show(told)


def train_here(wish: Wish, device: str) -> dict[str, Any]:
    """Trains in this process, joined with the others if there are any. Returns what train.json says.

    Raises:
        ValueError: If `out` holds anything but this very training, a picture is broken, or the disk is full; and as
            `recognition.train.train`.
    """
    started, source = time.monotonic(), open_set(wish.said["data"])
    scoring = None if wish.said["protocols"]["folder"] is None else Scoring(wish)  # a broken set is found at once
    if processes.rank() == 0:
        begin(wish.out, facts(wish, source))
    processes.wait()
    with _data(wish, source) as data:
        return _train(wish, data, device, scoring, started)


def facts(wish: Wish, source: LabelledSet) -> dict[str, Any]:
    """What tells a training from others before a picture is read."""
    names = hashlib.sha256("\n".join(source.keys).encode("utf-8", "surrogateescape"))  # a file's name may be no text
    names.update(source.labels.tobytes())
    return {
        "recipe": wish.recipe.sha256,
        "set": names.hexdigest(),
        "start": None if wish.start is None else sha256_of(wish.start),
        "stream": wish.said["stream_buffer"] if wish.said["stream"] else None,
    }


def _train(wish: Wish, data: Data, device: str, scoring: Scoring | None, started: float) -> dict[str, Any]:
    said, recipe = wish.said, wish.recipe
    inputs = fingerprint(data, recipe, wish.start)
    before = read_json(wish.out / FINISHED)
    processes.wait()  # all have read it before the first one writes it
    if before.get("inputs") == inputs:
        if processes.rank() == 0:
            say(f"train: {wish.out} is up to date")
        return before
    order = Order(
        wish.out,
        inputs,
        "train",
        FINISHED,
        device=device,
        log=said["log"],
        checkpoint_steps=said["checkpoint_steps"],
        start=wish.start,
        told=lambda: {
            "data": said["data"],
            "seconds": round(time.monotonic() - started, 1),
            "protocols": read_json(wish.out / SCORED).get("epochs", []),
        },
        on_epoch=scoring,
    )
    return fit(data, recipe, order)


@contextmanager
def _data(wish: Wish, source: LabelledSet) -> Iterator[Data]:
    """The pictures: decoded once, or streamed by processes that end with it."""
    said = wish.said
    if said["stream"]:
        with closing(Stream(source, said["stream_buffer"], workers=said["workers"])) as stream:
            yield stream
        return
    if processes.rank() == 0:
        _decode(wish, source)
    processes.wait()
    crops = opened(wish.out / CROPS)
    if crops is None:
        raise ValueError(f"{wish.out}: expected {CROPS}, which the first process has decoded, on a disk that all share")
    yield crops.pictures()


def _decode(wish: Wish, source: LabelledSet) -> None:
    there = opened(wish.out / CROPS)
    if there is not None and there.sha256 != source.sha256:
        raise ValueError(
            f"{wish.out}: expected a training on the pictures of {source.place}, found one begun with others of the "
            "same names; name another out=, or remove it"
        )
    with Watch("decode", len(source), "pictures") as watch:
        decoded(source, wish.out / CROPS, wish.said["workers"], watch.reach)
        watch.reach(len(source))


class Scoring:
    """Scores the model while it trains, and keeps what it scored. It chooses nothing: the last epoch is the result.

    The other processes wait meanwhile.

    Args:
        wish: With `protocols.folder`, of .bin files, and `protocols.every` so many epochs.
    """

    def __init__(self, wish: Wish) -> None:
        from benchmarks.protocols import load_protocols

        self.sets = load_protocols(wish.said["protocols"]["folder"]) if processes.rank() == 0 else []
        self.path, self.every, self.epochs = wish.out / SCORED, wish.said["protocols"]["every"], wish.recipe.epochs

    def __call__(self, model: torch.nn.Module, epoch: int) -> None:
        from benchmarks.protocols import score

        if epoch % self.every and epoch != self.epochs:
            return
        rows = [row for row in read_json(self.path).get("epochs", []) if row["epoch"] <= epoch]
        if rows and rows[-1]["epoch"] == epoch:  # scored before the training was cut short
            return
        found = {each.name: score(each, lambda crops: embed(model, crops, flip=False)) for each in self.sets}
        rows.append({"epoch": epoch, **{name: result["accuracy"] for name, result in found.items()}})
        write_text(self.path, json.dumps({"epochs": rows}))
        say(f"epoch {epoch}: " + ", ".join(f"{name} {100 * rows[-1][name]:.2f} %" for name in found))


# --- preflight -------------------------------------------------------------------------------------------------------


def check(wish: Wish, ranks: int) -> None:
    """Raises ConfigError unless the training can begin: recipe, pictures, labels, disk, memory, packages.

    Args:
        wish: What is asked for.
        ranks: Processes that will train.
    """
    problems = [f"trainer: {line}" for line in _recipe(wish)]
    source: LabelledSet | None = None
    try:
        source = _source(wish)
    except (ValueError, OSError) as error:
        problems.append(f"data: {innermost(error)}")
    problems += [*_words(wish), *_device(wish)]
    if not problems and source is not None:
        problems += [
            *_start(wish, len(source.classes)),
            *_batches(wish, ranks, source),
            *_memory(wish, ranks, len(source.classes)),
            *_disk(wish, source),
            *_out(wish, source),
        ]
    if problems:
        raise ConfigError(problems)


def _recipe(wish: Wish) -> Iterator[str]:
    unbound = list(targets("trainer", wish.trainer))
    yield from unbound
    if unbound:
        return
    try:
        outline(wish.recipe)
    except ValueError as error:
        yield str(error)


def _source(wish: Wish) -> LabelledSet:
    if wish.said["data"] is None:
        raise ValueError(
            "expected a run directory, shards, a .rec, an image folder or a Hugging Face dataset, got none"
        )
    source = open_set(wish.said["data"])
    check_labels(source.labels)
    return source


def _words(wish: Wish) -> Iterator[str]:
    said = wish.said
    folder = said["protocols"]["folder"]
    for name, value, least in (
        ("checkpoint_steps", said["checkpoint_steps"], 0),
        ("stream_buffer", said["stream_buffer"], 1),
        ("workers", 1 if said["workers"] is None else said["workers"], 1),
        ("protocols.every", said["protocols"]["every"], 1),
        ("ray.workers", said["ray"]["workers"], 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"{name}: expected a whole number of at least {least}, got {value!r}"
    if not isinstance(said["stream"], bool):
        yield f"stream: expected true or false, got {said['stream']!r}"
    if wish.start is not None and not wish.start.is_file():
        yield f"start: expected another training's checkpoint, found no {wish.start}"
    if folder is not None and not any(Path(folder).glob("*.bin")):
        yield f"protocols.folder: expected a folder of *.bin files, got {folder}"
    try:
        check_log(said["log"])
    except ValueError as error:
        yield str(error)


def _device(wish: Wish) -> Iterator[str]:
    """Where it trains; on Ray Train that is for `ray.num_gpus` to say, and the GPUs are those of its workers."""
    device, ray = wish.said["device"], wish.said["ray"]
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        yield f"device: expected cpu, cuda or cuda:0 and so on, got {device!r}"
    elif ray["workers"]:
        given = "cuda" if ray["num_gpus"] else "cpu"
        if device not in (None, given):
            yield f"device: expected {given}, as ray.num_gpus is {ray['num_gpus']}, got {device}"
        elif given == "cpu":
            yield from precision(wish.trainer, given)
    else:
        yield from precision(wish.trainer, device)
        if device not in (None, "cpu") and not torch.cuda.is_available():
            yield f"device: expected a CUDA device to be there, found none, got {device}"


def _start(wish: Wish, classes: int) -> Iterator[str]:
    if wish.start is not None:
        try:
            check_start(wish.start, wish.recipe, classes)
        except ValueError as error:
            yield str(error)


def _batches(wish: Wish, ranks: int, source: LabelledSet) -> Iterator[str]:
    recipe = wish.recipe
    try:
        Share(0, ranks, recipe.accumulate).check(recipe, len(source))
        if recipe.batches == "pk" and wish.said["stream"]:
            raise ValueError("batches: expected shuffled, as a stream cannot choose its pictures, got pk")
        if recipe.batches == "pk":
            epoch_order(source.labels, recipe, 0)
    except ValueError as error:
        yield f"trainer.{error}"


def _memory(wish: Wish, ranks: int, classes: int) -> Iterator[str]:
    """Weights, gradients, what the optimizer remembers, and logits: what a process holds at least."""
    recipe = wish.recipe
    model = outline(recipe)
    weights = sum(value.numel() for value in model.parameters()) + classes * dimensions(model) // ranks
    copies = 4 if recipe.optimizer == "adamw" else 3
    logits = 3 * recipe.batch_size // recipe.accumulate * classes // ranks
    device = wish.said["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    needed, free = 4 * (copies * weights + logits), free_memory(device)
    together = needed * (ranks if device == "cpu" else 1)
    if free is not None and together > free:
        yield (
            f"trainer: expected {together / 1e9:.1f} GB of free memory at least for {recipe.backbone}, {classes} "
            f"people and batches of {recipe.batch_size}, got {free / 1e9:.1f} GB"
        )


def _disk(wish: Wish, source: LabelledSet) -> Iterator[str]:
    if wish.said["stream"]:
        return
    crops = opened(wish.out / CROPS)
    if crops is None or len(crops) != len(source):
        try:
            expect_room(wish.out / CROPS, len(source))
        except ValueError as error:
            yield f"out: {error}; stream=true decodes in every epoch instead"


def _out(wish: Wish, source: LabelledSet) -> Iterator[str]:
    """Nobody's files are written over."""
    told = occupied(wish.out, facts(wish, source))
    if told is not None:
        yield f"out: {told}"


# --- what stands there at the end ------------------------------------------------------------------------------------


def show(told: Mapping[str, Any]) -> None:
    """The training as a table."""
    table = Table("epoch", "loss", *_names(told), title=f"recipe {told['recipe_sha256'][:12]}, seed {told['seed']}")
    scored = {row["epoch"]: row for row in told["protocols"]}
    for epoch, loss in enumerate(told["losses"], 1):
        row = scored.get(epoch, {})
        cells = [f"{100 * row[name]:.2f} %" if name in row else "" for name in _names(told)]
        table.add_row(str(epoch), f"{loss:.4f}", *cells)
    CONSOLE.print(table)
    for said in told["findings"].values():
        say(f"warning: {said}")
    say(
        f"{told['images']} pictures of {told['identities']} people, {told['processes']} processes on {told['device']}; "
        f"the result is {told['chosen']}: {ONNX}, weights {told['weights_sha256'][:12]}"
    )


def _names(told: Mapping[str, Any]) -> list[str]:
    return sorted({name for row in told["protocols"] for name in row if name != "epoch"})
