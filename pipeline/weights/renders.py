"""Renders for the bundled models: people of one stream in blocks, a file each, joined into memory maps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from generation.close_up import CLOSE_UP_LEFT, CLOSE_UP_OF_PX, CLOSE_UP_TOP, SIZE_PX, closer
from generation.world import CONTROLS, attribute_table, render, sample_people
from pipeline.weights.workers import Say
from recognition.files import whole_file
from stages.embed.align import crop

Draw = Callable[[int, np.random.Generator], list[dict[str, float]]]
BLOCK = 25  # people rendered by one job


@dataclass(frozen=True)
class Renders:
    """Photographs in memory maps: whole pictures with their landmarks, aligned crops, and whose they are."""

    pictures: UInt8[np.ndarray, "n 112 112 3"]
    landmarks: Float32[np.ndarray, "n 5 2"]
    crops: UInt8[np.ndarray, "n 112 112 3"]
    labels: Int64[np.ndarray, " n"]
    yaw_deg: Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class CloseUps:
    """Close-ups in memory maps, with all that is known of how they were taken.

    Attributes:
        attributes: In the order of the world's `CONTROLS`.
        seeds: Of the pictures.
    """

    pictures: UInt8[np.ndarray, "n 112 112 3"]
    landmarks: Float32[np.ndarray, "n 5 2"]
    crops: UInt8[np.ndarray, "n 112 112 3"]
    labels: Int64[np.ndarray, " n"]
    attributes: Float32[np.ndarray, "n a"]
    seeds: Int64[np.ndarray, " n"]


Kind = TypeVar("Kind", Renders, CloseUps)


@dataclass(frozen=True)
class Order:
    """What is rendered.

    Attributes:
        people: How many, a multiple of 25.
        pictures: Photographs of each.
        stream: Of random numbers, which no other people come from.
        draw: How their photographs are drawn.
        seed: Of everything.
        kind: Whole pictures, or the middle 112 px of 140; its fields are what is joined.
    """

    people: int
    pictures: int
    stream: int
    draw: Draw
    seed: int
    kind: type[Renders] | type[CloseUps] = Renders


def rendered(folder: Path, order: Order, processes: Executor, device: str, say: Say) -> None:
    """Renders what is missing of the order, in processes, then joins it."""
    blocks = range(0, order.people, BLOCK)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [first for first in blocks if not (folder / f"{first:06d}.npz").exists()]
    started = time.perf_counter()
    for done, _ in enumerate(processes.map(partial(_block, folder, order, device), missing), 1):
        if done % 10 == 0 or done == len(missing):
            rate = done * BLOCK * order.pictures / (time.perf_counter() - started)
            say(f"{folder.name}: {done}/{len(missing)} blocks of {BLOCK} people, {rate:.0f} pictures/s")
    _join(folder, [folder / f"{first:06d}.npz" for first in blocks], order.kind)


def _block(folder: Path, order: Order, device: str, first: int) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([order.stream, order.seed, first])
    vectors = sample_people(BLOCK, rng)
    rows = [row for _ in range(BLOCK) for row in order.draw(order.pictures, rng)]
    seeds = rng.integers(0, 2**63 - 1, len(rows))
    close_up = order.kind is CloseUps
    size_px = CLOSE_UP_OF_PX if close_up else SIZE_PX
    table = attribute_table(rows)
    drawn = render(np.repeat(vectors, order.pictures, 0), table, seeds, size_px, device)
    pictures, landmarks = drawn.pixels, drawn.landmarks
    if close_up:
        pictures, landmarks = closer(pictures), landmarks - np.array([CLOSE_UP_LEFT, CLOSE_UP_TOP], np.float32)
    with whole_file(folder / f"{first:06d}.npz") as file:
        np.savez(
            file,
            pictures=pictures,
            landmarks=landmarks,
            crops=crop(pictures, landmarks, border="edge" if close_up else "black"),
            labels=np.repeat(np.arange(first, first + BLOCK), order.pictures),
            yaw_deg=table[:, CONTROLS.index("yaw_deg")],
            attributes=table,
            seeds=seeds,
        )


def _join(folder: Path, blocks: Sequence[Path], kind: type[Any]) -> None:
    for name in _arrays(kind):
        path = folder / f"{name}.npy"
        if not path.exists():
            with whole_file(path) as file:
                np.save(file, np.concatenate([_array_of(block, name) for block in blocks]))


def _array_of(block: Path, name: str) -> np.ndarray:
    with np.load(block, allow_pickle=False) as arrays:
        if name not in arrays:
            raise ValueError(f"expected {name} in {block}, got {', '.join(arrays)}: it is of another version")
        return arrays[name]


def _arrays(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]


def mapped(folder: Path, kind: type[Kind]) -> Kind:
    """The joined renders, read from the disk where they are used: workers share the pages and copy none.

    Raises:
        ValueError: If they are not there.
    """
    missing = [name for name in _arrays(kind) if not (folder / f"{name}.npy").is_file()]
    if missing:
        raise ValueError(f"expected renders in {folder}, found no {', '.join(missing)}; `facemint weights` makes them")
    return kind(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _arrays(kind)})


def claim(work: Path, recipe: dict[str, Any]) -> None:
    """Says whose work the folder holds.

    Raises:
        ValueError: If it is another recipe's.
    """
    wanted = json.loads(json.dumps(recipe))
    path = work / "recipe.json"
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise ValueError(
            f"expected {work} to hold the work of recipe {json.dumps(wanted)}, got that of {path.read_text()}"
        )
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=2))
