"""The regressor's training: renders of its own people, what it loses by, how it is exported, how far it errs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation import objectives
from generation.close_up import CLOSE_UP_LEFT, CLOSE_UP_OF_PX, CLOSE_UP_TOP, closer
from generation.pixels import as_input
from generation.regressor import (
    CLASSES,
    LOGARITHMIC,
    NUMBERS,
    SIZE_PX,
    InUnits,
    Regressor,
)
from generation.train.loop import OneCycle, Say
from generation.train.recipe import check_steps
from generation.world import CONTROLS, attribute_table, render, sample_people
from generation.world.scenes import generator_attributes

PEOPLE_STREAM = 7_007  # of SeedSequence: neither the generator nor the embedders are trained on these people
CHECKPOINT = "regressor.pt"
BLOCK = 25  # people rendered at once
Draw = Callable[[int, np.random.Generator], list[dict[str, float]]]
Align = Callable[[UInt8[np.ndarray, "n 112 112 3"]], UInt8[np.ndarray, "n 112 112 3"]]


@dataclass(frozen=True)
class RegressorRecipe:
    """How the regressor is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step, half of them of the regressor's own people where there are others.
        peak_lr: AdamW's learning rate at its highest (one cycle with a cosine end).
        seed: Of weights, batches and augmentation.
        precision: "bf16" (autocast; twice as fast on processors that have it) or "fp32".
        threads: Threads of torch; the result is the same bits for one number of threads.
        checkpoint_every: Steps between checkpoints.
    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 8000
    batch_size: int = 64
    peak_lr: float = 2e-3
    seed: int = 13
    precision: str = "bf16"
    threads: int = 1
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        check_steps(self)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Photographs, the aligned crops of their faces, and what they are like.

    `attributes` are in the order of `CONTROLS`, `labels` say whose the photographs are.
    """

    pictures: UInt8[np.ndarray, "n 112 112 3"]
    crops: UInt8[np.ndarray, "n 112 112 3"]
    attributes: Float32[np.ndarray, "n a"]
    labels: Int64[np.ndarray, " n"]

    def of(self, people: range) -> Examples:
        """Those of some people."""
        rows = (self.labels >= people.start) & (self.labels < people.stop)
        return self.at(rows)

    def at(self, rows: Bool[np.ndarray, " n"]) -> Examples:
        """Those in some rows."""
        return Examples(*(getattr(self, name)[rows] for name in Examples.__slots__))


def drawn_block(
    stream: int, seed: int, first: int, pictures: int, draw: Draw
) -> tuple[Float32[np.ndarray, "b c"], Float32[np.ndarray, "b a"], Int64[np.ndarray, " b"]]:
    """People, attributes and seeds of one block of photographs, 25 people with `pictures` each: what `render` takes.

    Every block of every stream is drawn like this, so the attributes of renders that kept none can be drawn again.
    """
    rng = np.random.default_rng([stream, seed, first])
    people = np.repeat(sample_people(BLOCK, rng), pictures, 0)
    table = attribute_table([row for _ in range(BLOCK) for row in draw(pictures, rng)])
    return people, table, rng.integers(0, 2**63 - 1, len(table))


def render_block(folder: Path, first: int, pictures: int, seed: int = 2026, device: str = "cpu") -> Path:
    """Photographs people `first` to `first + 24`, `pictures` each, in a file that is there once it is whole.

    Every second block is of close-ups, the others of whole pictures.
    """
    path = folder / f"{first:06d}.npz"
    if path.exists():
        return path
    people, table, seeds = drawn_block(PEOPLE_STREAM, seed, first, pictures, generator_attributes)
    close = first // BLOCK % 2 == 0
    drawn = render(people, table, seeds, CLOSE_UP_OF_PX if close else SIZE_PX, device).pixels
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            pictures=closer(drawn) if close else drawn,
            attributes=table,
            labels=np.repeat(np.arange(first, first + BLOCK), pictures),
        )
    os.replace(part, path)
    return path


def read_blocks(paths: Sequence[Path], align: Align) -> Examples:
    """Blocks joined in the order given; `align` cuts the crops out of pictures."""
    blocks = [np.load(path) for path in paths]
    pictures, attributes, labels = (
        np.concatenate([block[name] for block in blocks]) for name in ("pictures", "attributes", "labels")
    )
    return Examples(pictures, align(pictures), attributes, labels)


def numbers_of(attributes: Float32[np.ndarray, "n a"]) -> Float32[np.ndarray, "n k"]:
    """Columns of `NUMBERS`, in the attributes' own units; low resolution up to the picture's side."""
    numbers = attributes[:, [CONTROLS.index(name) for name in NUMBERS]].copy()
    place = NUMBERS.index(LOGARITHMIC)
    numbers[:, place] = np.minimum(numbers[:, place], SIZE_PX)
    return numbers


def classes_of(attributes: Float32[np.ndarray, "n a"], name: str) -> Int64[np.ndarray, " n"]:
    """The class of an attribute that is a style, 0 to 3."""
    return np.rint(attributes[:, CONTROLS.index(name)]).astype(np.int64)


def train_regressor(
    own: Examples,
    others: Examples | None,
    recipe: RegressorRecipe,
    folder: Path,
    say: Say = print,
    device: str = "cpu",
) -> Regressor:
    """Trains the regressor, continuing from `folder/regressor.pt` where there is one. Returns it in eval mode.

    Args:
        own: Of the regressor's own people, of both framings.
        others: Whole pictures of more people, which share the batches; half of them are enlarged to close-ups.
        recipe: How it is trained.
        folder: Of the checkpoint.
    Raises:
        ValueError: If the loss is not finite, naming the step; if a checkpoint in `folder` belongs to another recipe.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    sources = [own] if others is None else [own, others]
    targets = [_targets(source) for source in sources]
    numbers = targets[0][0]
    model = Regressor(numbers.mean(0), numbers.std(0).clamp(min=1e-3)).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    OneCycle("regressor", model, recipe, folder / CHECKPOINT).run(
        lambda rng: _loss(model, sources, targets, recipe, rng), say
    )
    return model.eval()


def _targets(examples: Examples) -> list[Tensor]:
    """Numbers as they are read, and the classes of glasses and hat."""
    numbers = torch.from_numpy(_as_read(numbers_of(examples.attributes)))
    return [numbers, *(torch.from_numpy(classes_of(examples.attributes, name)) for name in CLASSES)]


def _as_read(numbers: Float32[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    place = NUMBERS.index(LOGARITHMIC)
    read = numbers.copy()
    read[:, place] = np.log2(read[:, place])
    return read


def _loss(
    model: Regressor,
    sources: list[Examples],
    targets: list[list[Tensor]],
    recipe: RegressorRecipe,
    rng: torch.Generator,
) -> Float[Tensor, ""]:
    """Of one batch, in equal parts from each source; of the second source half is enlarged."""
    count, device = recipe.batch_size // len(sources), model.mean.device
    rows = [torch.randint(0, len(source.labels), (count,), generator=rng).sort().values for source in sources]
    seen, crops = (
        np.concatenate([getattr(source, name)[chosen.numpy()] for source, chosen in zip(sources, rows, strict=True)])
        for name in ("pictures", "crops")
    )
    chosen_targets = [[part[chosen] for part in target] for target, chosen in zip(targets, rows, strict=True)]
    numbers, glasses, hat = (torch.cat(parts).to(device) for parts in zip(*chosen_targets, strict=True))
    close = (torch.arange(len(seen)) >= count) & (torch.rand(len(seen), generator=rng) < 0.5)
    pixels = noisy(shaken(as_input(torch.from_numpy(seen).to(device)), close, rng), rng)
    faces = noisy(as_input(torch.from_numpy(crops).to(device)), rng)  # detected landmarks have moved them already
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        read = model(*(x.contiguous(memory_format=torch.channels_last) for x in (pixels, faces)))
    return attribute_loss(read, (numbers - model.mean) / model.std, glasses, hat)


def attribute_loss(
    read: tuple[Float[Tensor, "b a"], Float[Tensor, "b g"], Float[Tensor, "b h"]],
    numbers: Float[Tensor, "b a"],
    glasses: Int64[Tensor, " b"],
    hat: Int64[Tensor, " b"],
) -> Float[Tensor, ""]:
    """How far standardised numbers, summed over attributes, and the two styles are off; a mean over pictures."""
    off = objectives.number_distance(read[0], numbers).sum(1)
    styles = objectives.style_distance(read[1], glasses) + objectives.style_distance(read[2], hat)
    return (off + styles).mean()


def shaken(
    pixels: Float[Tensor, "b 3 s s"], close: Bool[Tensor, " b"], rng: torch.Generator
) -> Float[Tensor, "b 3 s s"]:
    """Shifts each picture by up to 5 px and scales it by 0.93 to 1.07.

    No attribute changes: nothing is mirrored (pose and light would be others) and no colour is moved (light and camera
    would be).

    Args:
        close: Which pictures are whole ones, to be enlarged to the part that a close-up shows.
    """
    count, device, half = len(pixels), pixels.device, pixels.shape[-1] / 2
    scale = torch.empty(count).uniform_(-0.07, 0.07, generator=rng).exp()
    shift = (torch.rand(count, 2, generator=rng) * 2 - 1) * (5 / half)
    inverse = torch.where(close, SIZE_PX / CLOSE_UP_OF_PX, 1.0) / scale  # from places in the new picture to the old
    middle = (torch.tensor([CLOSE_UP_LEFT, CLOSE_UP_TOP]) + SIZE_PX / 2) / CLOSE_UP_OF_PX * 2 - 1
    offset = shift + close[:, None] * middle
    grid = torch.cat([torch.eye(2) * inverse[:, None, None], offset[:, :, None]], 2).to(device)
    grid = F.affine_grid(grid, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def noisy(pixels: Float[Tensor, "b 3 s s"], rng: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Noise of up to 0.06 of full scale in every fourth picture."""
    rows = torch.nonzero(torch.rand(len(pixels), generator=rng) < 0.25).flatten()
    strength = torch.rand(len(rows), generator=rng) * 0.12
    noise = torch.randn((len(rows), *pixels.shape[1:]), generator=rng) * strength[:, None, None, None]
    out = pixels.clone()
    out[rows] = (pixels[rows] + noise.to(pixels.device)).clamp(-1, 1)
    return out


def export_regressor(model: Regressor, path: Path) -> None:
    """Writes the regressor as ONNX: inputs (N, 3, 112, 112), outputs `numbers` in units, `glasses`, `hat` in [0, 1]."""
    exported = InUnits(model.float().cpu()).eval()
    names = ["numbers", *CLASSES]
    torch.onnx.export(
        exported,
        (torch.zeros(2, 3, SIZE_PX, SIZE_PX), torch.zeros(2, 3, SIZE_PX, SIZE_PX)),
        str(path),
        input_names=["pixels", "crops"],
        output_names=names,
        dynamic_axes={name: {0: "batch"} for name in ("pixels", "crops", *names)},
        opset_version=17,
        dynamo=False,
    )
