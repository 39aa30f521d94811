"""The bundled generator, from renders of its own people to its files: autoencoder, latents, denoiser, population.

Everything is in `generator/` of the work folder; what is there is not made again.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from generation import diffusion
from generation.diffusion import Autoencoder, FaceDiffusion
from generation.pixels import as_input
from generation.regressor import InUnits, Regressor
from generation.sampling import Guidance
from generation.train.autoencoder import cache_latents, read_latents, train_autoencoder
from generation.train.calibrate import Asked, calibrate
from generation.train.decoder import train_decoder
from generation.train.distil import distil
from generation.train.generator import GeneratorRecipe, train_generator
from generation.train.likeness import Beholder
from generation.train.mirror import Mirror
from generation.train.photographs import Others
from generation.train.regressor import Examples, train_regressor
from generation.train.tune import TuningRecipe, tune
from generation.world import CONTROLS
from pipeline.weights.made import (
    FOLDER,
    LATENTS,
    POPULATION,
    READER,
    RENDERS,
    SPACE,
    VECTORS,
    WEIGHTS,
    alignments,
    beholder_of,
    circumstances_of_renders,
    embed_renders,
    embedder_a,
    features_of,
    learnt,
    mirror_of,
    photographs_of,
    reader_of,
    renders_of,
    shape_of,
    sources_of,
)
from pipeline.weights.recipe import GeneratorOrder, WeightsRecipe
from pipeline.weights.renders import CloseUps, mapped, rendered
from pipeline.weights.sheets import Drawing, Sheets
from pipeline.weights.workers import Say, teller
from recognition.backbones import IResNet
from recognition.files import whole_file
from stages.embed.align import crop
from stages.embed.detector import Detector
from stages.sample.population import fit

MIN_FOUND = 0.5  # probability of a face
TEACHER = "teacher.safetensors"  # before distillation and the decoder's second training


def render_generator(folder: Path, order: GeneratorOrder, processes: Executor, device: str, say: Say) -> None:
    """Renders what the generator is trained on; what is there is not made again."""
    rendered(folder / RENDERS, renders_of(order), processes, device, say)


def make_generator(work: Path, recipe: WeightsRecipe, device: str) -> None:
    """Makes `generator/generator.safetensors` and `generator/population.npz`, unless they are there.

    The work folder has embedder A and the detector, and in `generator/` renders and their reader.
    """
    folder, order = work / FOLDER, recipe.generator
    renders, say = mapped(folder / RENDERS, CloseUps), teller("generator")
    embed_renders(renders, work / "embedder_a.onnx", folder / VECTORS, device)
    write_population(folder, order)
    if (folder / WEIGHTS).exists():
        return
    network, reader = embedder_a(work, recipe.embedder_a, device), reader_of(folder, order, device)
    beholder = beholder_of(network, reader)
    autoencoder = _with_latents(folder, order, renders, beholder, say, device)
    mirror = mirror_of(autoencoder, network, reader)
    train_denoiser(folder, folder, order, order.denoiser, autoencoder, mirror, say, device, name=TEACHER)
    model = distilled(folder, order, diffusion.load(folder / TEACHER), say, device)
    model = replace(model, autoencoder=_sharper(folder, order, renders, autoencoder, model, beholder, say, device))
    mirror = mirror_of(model.autoencoder, network, reader)
    for number, tuning in enumerate(order.tuning, 1):
        out = folder / f"tuning_{number}"
        model = tuned(folder, out, order, tuning, model, mirror, network, say, device, folder)
    calibrated(renders, np.load(folder / VECTORS), work / "detector.onnx", order, model, reader, say, device)
    diffusion.save(model, folder / WEIGHTS)


def _with_latents(
    folder: Path, order: GeneratorOrder, renders: CloseUps, beholder: Beholder, say: Say, device: str
) -> Autoencoder:
    """The autoencoder, trained, with the latents of all renders kept beside it."""
    seen, to_crop = learnt(order, len(renders.labels)), alignments(renders)
    recipe = order.autoencoder
    trained = train_autoencoder(renders.pictures[:seen], to_crop[:seen], recipe, folder, beholder, say, device=device)
    cache_latents(trained, renders.pictures, folder / LATENTS, precision=recipe.precision)
    read_latents(trained, folder / LATENTS)
    return trained


def _sharper(
    folder: Path,
    order: GeneratorOrder,
    renders: CloseUps,
    autoencoder: Autoencoder,
    model: FaceDiffusion,
    beholder: Beholder,
    say: Say,
    device: str,
) -> Autoencoder:
    """The autoencoder with its decoder trained again, on what the model's denoiser leaves."""
    data, pictures = photographs_of(folder, order), renders.pictures[: learnt(order, len(renders.labels))]
    denoiser, prediction, taught = model.denoiser, model.prediction, model.taught
    return train_decoder(
        data, pictures, autoencoder, denoiser, order.decoder, folder, beholder, prediction, taught, say, device
    )


def tuned(
    made: Path,
    out: Path,
    order: GeneratorOrder,
    recipe: TuningRecipe,
    model: FaceDiffusion,
    mirror: Mirror,
    network: IResNet,
    say: Say,
    device: str,
    vectors_and_latents: Path,
    sheet_minutes: float = 10.0,
) -> FaceDiffusion:
    """The model with its denoiser trained on, on pictures that it draws itself.

    Args:
        made: The generator's part of a work folder, with renders.
        out: Where the checkpoint and contact sheets go.
        mirror: What drawings are looked at with, through the model's own decoder.
        network: Embedder A, in whose features drawings and renders are compared.
        vectors_and_latents: The folder of these.
        sheet_minutes: Between contact sheets.
    """
    data, renders = photographs_of(made, order, vectors_and_latents), mapped(made / RENDERS, CloseUps)
    first = learnt(order, len(renders.labels))
    shown = [int(row) for row in sources_of(renders) if row >= first]
    shape, drawing = model.denoiser.shape, Drawing(recipe.scheduler, recipe.drawn_steps, Guidance())
    sheets = Sheets(
        out / "sheets", shape, model.autoencoder, model.prediction, recipe.steps, sheet_minutes, device, drawing
    )
    look = sheets.of(renders, np.load(vectors_and_latents / VECTORS, mmap_mode="r"), shown)
    features, pictures = partial(features_of, network), renders.pictures[:first]
    denoiser = tune(data, pictures, model.denoiser, recipe, out, mirror, features, model.prediction, say, look, device)
    return replace(model, denoiser=denoiser)


def calibrated(
    renders: CloseUps,
    vectors: Float32[np.ndarray, "n d"],
    detector_onnx: Path,
    order: GeneratorOrder,
    model: FaceDiffusion,
    reader: Regressor,
    say: Say,
    device: str,
) -> dict[str, float]:
    """Stretches what the model is told of photographs, by what the reader sees in those of the people held out.

    Returns:
        The stretch of each attribute.
    """
    columns = [CONTROLS.index(control.name) for control in model.denoiser.shape.controls]
    seen, sources = learnt(order, len(renders.labels)), sources_of(renders)
    # Sharp and unhidden, as the model is asked for pictures: blur and few pixels are done to them afterwards.
    rows = sources[sources >= seen]
    others = Others(np.array(renders.labels), sources)
    asked = Asked(
        vectors[others.of(rows, np.zeros(len(rows)))],
        np.ascontiguousarray(renders.attributes[rows][:, columns]),
        _numbers(reader, renders.pictures[rows], renders.crops[rows], device),
        circumstances_of_renders(renders, rows),
    )
    detector = Detector(detector_onnx, threads=order.calibration.threads)

    def read(pictures: UInt8[np.ndarray, "n 112 112 3"]) -> Float32[np.ndarray, "n k"]:
        landmarks, found = detector(pictures)
        numbers = _numbers(reader, pictures, crop(pictures, landmarks), device)
        return np.where(found[:, None] >= MIN_FOUND, numbers, np.float32(np.nan))

    told = np.ascontiguousarray(renders.attributes[:seen][:, columns])
    stretches = calibrate(model, told, asked, read, order.calibration, say, device)
    say("calibrate: " + ", ".join(f"{name} x {stretch:.2f}" for name, stretch in stretches.items()))
    return stretches


@torch.no_grad()
def _numbers(
    reader: Regressor, pictures: UInt8[np.ndarray, "n 112 112 3"], crops: UInt8[np.ndarray, "n 112 112 3"], device: str
) -> Float32[np.ndarray, "n k"]:
    """`NUMBERS` that a reader sees, in their units."""
    units = InUnits(reader).to(device)
    sides = [[torch.from_numpy(np.array(each[s])).to(device) for each in (pictures, crops)] for s in _parts(len(crops))]
    return np.concatenate([units(*map(as_input, side))[0].cpu().numpy() for side in sides])


def _parts(rows: int) -> list[slice]:
    return [slice(first, first + 64) for first in range(0, rows, 64)]


def distilled(folder: Path, order: GeneratorOrder, teacher: FaceDiffusion, say: Say, device: str) -> FaceDiffusion:
    """The teacher with its guidance put into one pass; itself where no student is asked for."""
    if order.student is None:
        return teacher
    student = distil(
        photographs_of(folder, order),
        teacher.denoiser,
        order.student,
        folder,
        say,
        device=device,
        prediction=teacher.prediction,
    )
    taught = diffusion.Taught(order.student.guidance_identity, order.student.guidance_attributes)
    return replace(teacher, denoiser=student, taught=taught)


def train_denoiser(
    made: Path,
    out: Path,
    order: GeneratorOrder,
    recipe: GeneratorRecipe,
    autoencoder: Autoencoder,
    mirror: Mirror | None,
    say: Say,
    device: str,
    sheet_minutes: float = 10.0,
    name: str = WEIGHTS,
    start: Path | None = None,
) -> None:
    """Trains a denoiser on what a work folder holds and writes the whole generator where it is told to.

    Args:
        made: The generator's part of a work folder, with renders, vectors and latents.
        out: Where the checkpoint, contact sheets and the file go.
        autoencoder: Of those latents, its statistics measured.
        mirror: What the terms look with that look at estimates.
        sheet_minutes: Between contact sheets.
        name: Of the file.
        start: Another training's checkpoint, of a denoiser of `shape_of`; its average is where this one begins.
    """
    data, renders, shape = photographs_of(made, order), mapped(made / RENDERS, CloseUps), shape_of(made, order)
    first = learnt(order, len(renders.labels))
    sheets = Sheets(out / "sheets", shape, autoencoder, recipe.prediction, recipe.steps, sheet_minutes, device)
    shown = [int(row) for row in sources_of(renders) if row >= first]
    look = sheets.of(renders, np.load(made / VECTORS, mmap_mode="r"), shown)
    denoiser = train_generator(data, shape, recipe, out, say, look, device, start, mirror)
    if not _is_first_process():
        return
    model = FaceDiffusion(autoencoder, denoiser, SPACE, recipe.prediction)
    diffusion.save(model, out / name)


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def make_reader(made: Path, order: GeneratorOrder, say: Say, device: str) -> None:
    """Trains the regressor that the denoiser learns from: on the generator's own renders, apart from the one that
    certifies, which has other people and another seed."""
    renders = mapped(made / RENDERS, CloseUps)
    seen = learnt(order, len(renders.labels))
    pictures, crops, attributes, labels = (getattr(renders, name)[:seen] for name in Examples.__slots__)
    own = Examples(pictures, crops, np.array(attributes), np.array(labels))
    train_regressor(own, None, order.reader, made / READER, say, device)


def write_population(folder: Path, order: GeneratorOrder) -> None:
    """Writes mean and covariance of people's vectors: whom a sampler may draw.

    A person's vector is the unit mean of all sources' of that person. One picture's vector has noise of its own, which
    a sampler would draw as if it were somebody's shape.
    """
    if (folder / POPULATION).exists():
        return
    renders = mapped(folder / RENDERS, CloseUps)
    sources = sources_of(renders)
    rows = sources[sources < learnt(order, len(renders.labels))]
    mean, covariance = fit(_people_of(np.load(folder / VECTORS)[rows], renders.labels[rows]))
    with whole_file(folder / POPULATION) as file:
        np.savez(file, mean=mean, covariance=covariance, space=SPACE)


def _people_of(vectors: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "p d"]:
    """The unit mean of each person's vectors, of those who have the most common number of them or more."""
    _, whose, count = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(count), vectors.shape[1]))
    np.add.at(sums, whose, vectors)
    means = sums[count >= np.bincount(count).argmax()]
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
