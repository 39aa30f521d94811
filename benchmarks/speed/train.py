"""How near training comes to the network's own rate: `python -m benchmarks.speed.train`.

In turns in one run, medians and ratios: the network alone on a batch that stays on the device, and the same network fed
from the memory map, from webdataset's loader and from an ImageFolder with a DataLoader. And how fast pictures that are
in memory are decoded, beside the limit: Pillow, which decodes them, alone, its pixels taken out into an array. OpenCV
stands beside it, whose pixels are the same; why it is not taken, `recognition/formats/pixels.py` says.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from recognition.augment import Flip
from recognition.decoding import Workers, decode, pieces
from recognition.formats import LabelledSet, Sample, open_set, write_shard
from recognition.formats.folder import write_folder
from recognition.train import Recipe
from recognition.train.batches import Share
from recognition.train.feed import Feed
from recognition.train.memory_map import decoded
from recognition.train.seeds import generator
from recognition.train.state import State

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # uint8 (b, 112, 112, 3) or float (b, 3, 112, 112); labels
LIMIT = "Pillow, into an array"
_STEPS_AHEAD = 3  # that warm up
_PIECE, _DECODER_TURNS = 128, 9


def samples_of(pictures: int, people: int) -> list[Sample]:
    """Photograph-like patterns, of about 10 kB each at quality 95."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(pictures):
        coarse = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
        rows.append(Sample(f"{row:08d}", file.getvalue(), row % people, {}))
    return rows


class ImageFolder(Dataset):
    """What torchvision's class of that name does: a file opened and decoded for each picture asked for."""

    def __init__(self, folder: Path) -> None:
        self.files = [(path, int(path.parent.name)) for path in sorted(folder.glob("*/*.jpg"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[row]
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))), label


def _tensor(crop: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crop.copy())  # webdataset's arrays cannot be written to


def forever(epoch: Callable[[int], Batches]) -> Batches:
    number = 0
    while True:
        yield from epoch(number)
        number += 1


class Step:
    """A step of training as the loop takes it: forward, loss, backward, clip, update."""

    def __init__(self, recipe: Recipe, people: int, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.state = State(recipe, people, device)
        self.state.model.train()

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        x = self.recipe.augment(images, generator(0))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            embeddings = self.state.model(x)
        self.state.optimizer.zero_grad()
        self.state.head(embeddings, labels).backward()
        torch.nn.utils.clip_grad_norm_([*self.state.shared, *self.state.sharded], 5.0)
        self.state.optimizer.step()


def rate(step: Step, batches: Batches, steps: int) -> float:
    """Pictures per second over so many steps, after a few that warm up."""
    for images, labels in islice(batches, _STEPS_AHEAD):
        step(images, labels)
    _wait(step.device)
    start, seen = time.perf_counter(), 0
    for images, labels in islice(batches, steps):
        step(images, labels)
        seen += len(labels)
    _wait(step.device)
    return seen / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sources(
    samples: list[Sample], folder: Path, recipe: Recipe, workers: int, device: torch.device
) -> dict[str, Batches]:
    """The same pictures, from everywhere."""
    write_shard(folder / "000000.tar", samples)
    half = len(samples) // 2  # two tars, so that two of webdataset's workers have something to do
    for number, part in enumerate((samples[:half], samples[half:])):
        write_shard(folder / f"web{number}.tar", part)
    (folder / "people").mkdir()
    write_folder(folder / "people", LabelledSet.of(samples))
    pictures = decoded(open_set(folder / "000000.tar"), folder / "crops").pictures()
    resident = torch.from_numpy(pictures.read(np.arange(recipe.batch_size))).to(device)
    labels = torch.from_numpy(pictures.labels[: recipe.batch_size]).to(device)

    def mapped(number: int) -> Batches:
        with Feed(pictures.epoch(recipe, number, Share()).units(0), device) as feed:
            yield from feed

    web = webdataset.WebDataset([str(folder / f"web{n}.tar") for n in (0, 1)], shardshuffle=2, empty_check=False)
    web = web.shuffle(1000).decode("rgb8").to_tuple("jpg", "cls").map_tuple(_tensor, int)
    pinned = device.type == "cuda"
    loaders = {
        "webdataset": DataLoader(
            web, recipe.batch_size, num_workers=min(workers, 2), drop_last=True, pin_memory=pinned
        ),
        "ImageFolder": DataLoader(
            ImageFolder(folder / "people"),
            recipe.batch_size,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
            pin_memory=pinned,
            persistent_workers=workers > 0,
        ),
    }
    return {
        "network alone": forever(lambda _: iter([(resident, labels)])),
        "memory map": forever(mapped),
        **{name: forever(lambda _, loader=loader: iter(loader)) for name, loader in loaders.items()},  # type: ignore[misc]
    }


def decoders(samples: list[Sample], workers: int) -> dict[str, float]:
    """Pictures per second, in turns, piece by piece as training takes them; one process unless it says otherwise."""
    parts = list(pieces(samples, _PIECE))

    def by(decoder: Callable[[bytes], object]) -> Callable[[], object]:
        return lambda: [len([decoder(sample.jpeg) for sample in part]) for part in parts]

    with Workers(workers) as crew:
        ways: dict[str, Callable[[], object]] = {
            LIMIT: by(lambda jpeg: np.asarray(Image.open(io.BytesIO(jpeg)))),
            "Pillow, into memory of its own": by(lambda jpeg: Image.open(io.BytesIO(jpeg)).load()),
            "OpenCV, into an array": by(lambda jpeg: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)),
            "ours, into batches": lambda: [len(decode(part)) for part in parts],
            f"ours, {workers} processes, crops sent back": lambda: [len(crops) for crops in crew.each(decode, parts)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(_DECODER_TURNS + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                if turn > 0:  # the first one starts the processes
                    seconds[name].append(time.perf_counter() - start)
    return {name: len(samples) / statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--backbone", help="default: iresnet50 on a GPU, iresnet_tiny on a CPU")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="a run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    backbone = asked.backbone or ("iresnet50" if device.type == "cuda" else "iresnet_tiny")
    recipe = Recipe(backbone=backbone, batch_size=asked.batch, augment=Flip(0.5))
    samples = samples_of(asked.pictures, asked.people)
    kb = sum(len(sample.jpeg) for sample in samples) / len(samples) / 1e3
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    print(
        f"{date.today()}, {where}, {asked.workers} cores; {backbone}, bf16, batches of {asked.batch}, "
        f"{asked.pictures} JPEG of {kb:.1f} kB, median of {asked.runs} runs of {asked.steps} steps\n"
    )
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as folder:
        step = Step(recipe, asked.people, device)
        rates: dict[str, list[float]] = {}
        ways = sources(samples, Path(folder), recipe, asked.workers, device)
        for _ in range(asked.runs):
            for name, batches in ways.items():
                rates.setdefault(name, []).append(rate(step, batches, asked.steps))
        for batches in ways.values():
            batches.close()  # type: ignore[attr-defined]
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print("| fed from | pictures/s | of the network alone |\n|---|---:|---:|")
    for name, found in medians.items():
        print(f"| {name} | {found:.0f} | {100 * found / medians['network alone']:.1f} % |")
    print("\n| decoded by | pictures/s | of Pillow into an array |\n|---|---:|---:|")
    decoded_by = decoders(samples[:5000], asked.workers)
    for name, found in decoded_by.items():
        print(f"| {name} | {found:.0f} | {100 * found / decoded_by[LIMIT]:.1f} % |")


if __name__ == "__main__":
    main()
