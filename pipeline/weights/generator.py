"""The bundled generator, from renders of its own people to its files: autoencoder, latents, denoiser, population.

Everything is in `generator/` of the work folder; what is there is not made again.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from generation import diffusion
from generation.diffusion import Autoencoder, Control, DenoiserShape, FaceDiffusion
from generation.pixels import as_input
from generation.regressor import InUnits, Regressor
from generation.train.autoencoder import CHECKPOINT as AUTOENCODER
from generation.train.autoencoder import cache_latents, read_latents, train_autoencoder
from generation.train.calibrate import Asked, calibrate
from generation.train.decoder import train_decoder
from generation.train.distil import distil
from generation.train.generator import GeneratorRecipe, train_generator
from generation.train.likeness import Beholder
from generation.train.mirror import Mirror, Reader
from generation.train.photographs import Others, Photographs
from generation.train.regressor import CHECKPOINT as REGRESSOR
from generation.train.regressor import Examples, train_regressor
from generation.world import ATTRIBUTES, CONTROLS
from generation.world.scenes import generator_attributes
from pipeline.weights.measuring import SPACES, embedder, polished
from pipeline.weights.recipe import GeneratorOrder, WeightsRecipe, polish
from pipeline.weights.renders import CloseUps, Order, claim, mapped, rendered
from pipeline.weights.sheets import Sheets
from pipeline.weights.workers import Say, pool, teller
from recognition.backbones import IResNet
from recognition.files import whole_file
from recognition.train import Recipe, load_trained
from stages.embed.align import crop, similarity, template
from stages.embed.detector import Detector
from stages.sample.population import fit

PEOPLE_STREAM = 7_005  # of SeedSequence: its people are no other model's, and no run's
FOLDER = "generator"  # of the work folder
RENDERS, VECTORS, LATENTS = "renders", "vectors.npy", "latents.npz"
READER = "reader"  # folder of the regressor that the denoiser learns from
WEIGHTS, POPULATION = "generator.safetensors", "population.npz"
MIN_FOUND = 0.5  # probability of a face
TEACHER = "teacher.safetensors"  # before distillation and the decoder's second training
SPACE = SPACES["embedder_a"]

# A background is a seed; noise and JPEG are done to finished pictures, as no latent has room for them.
UNTOLD = ("background", "noise", "jpeg_quality")
STYLES = {"glasses": 4, "hat": 4}
PIXELS = "low_resolution_px"  # told by ratios; from 140 on, the side of a close-up's render, nothing is lost
PIXELS_RANGE = (16.0, 140.0)


def told_controls() -> tuple[Control, ...]:
    """What the denoiser is told of a photograph, in the order of the world's controls."""
    ranges = {name: (attribute.low, attribute.high) for name, attribute in ATTRIBUTES.items()} | {PIXELS: PIXELS_RANGE}
    return tuple(
        Control(name, *ranges[name], STYLES.get(name, 0), name == PIXELS) for name in CONTROLS if name not in UNTOLD
    )


def make_generator(work: Path, recipe: WeightsRecipe, workers: int, device: str, say: Say) -> None:
    """Makes `generator/generator.safetensors` and `generator/population.npz` in a work folder that has embedder A.

    Raises:
        ValueError: If the folder holds the work of another recipe.
    """
    folder, order = work / FOLDER, recipe.generator
    claim(folder, asdict(order))
    photographs = Order(order.people, order.pictures, PEOPLE_STREAM, generator_attributes, order.seed, CloseUps)
    with pool(workers) as processes:
        rendered(folder / RENDERS, photographs, processes, device, say)
    if all((folder / name).exists() for name in (VECTORS, POPULATION, WEIGHTS)):
        return
    with pool(1) as processes:  # anew, for its memory
        processes.submit(_make, work, recipe, device).result()


def _make(work: Path, recipe: WeightsRecipe, device: str) -> None:
    folder, order = work / FOLDER, recipe.generator
    renders, say = mapped(folder / RENDERS, CloseUps), teller("generator")
    embed_renders(folder, work / "embedder_a.onnx", device)
    write_population(folder, order)
    if (folder / WEIGHTS).exists():
        return
    make_reader(folder, order, say, device)
    network, reader = embedder_a(work, recipe.embedder_a, device), reader_of(folder, order, device)
    beholder = beholder_of(network, reader)
    seen = _learnt(order, len(renders.labels))
    autoencoder = train_autoencoder(
        renders.pictures[:seen],
        alignments(renders)[:seen],
        order.autoencoder,
        folder,
        beholder,
        say,
        device=device,
    )
    cache_latents(autoencoder, renders.pictures, folder / LATENTS, precision=order.autoencoder.precision)
    read_latents(autoencoder, folder / LATENTS)
    mirror = mirror_of(autoencoder, network, reader)
    train_denoiser(folder, folder, order, order.denoiser, autoencoder, mirror, say, device, name=TEACHER)
    teacher = diffusion.load(folder / TEACHER)
    model = _distilled(folder, order, teacher, say, device)
    sharper = train_decoder(
        photographs_of(folder, order),
        renders.pictures[:seen],
        autoencoder,
        model.denoiser,
        order.decoder,
        folder,
        beholder,
        model.prediction,
        model.taught,
        say,
        device,
    )
    model = replace(model, autoencoder=sharper)
    calibrated(work, order, model, reader, say, device)
    diffusion.save(model, folder / WEIGHTS)


def calibrated(
    work: Path, order: GeneratorOrder, model: FaceDiffusion, reader: Regressor, say: Say, device: str
) -> dict[str, float]:
    """Stretches what the model is told of photographs, by what the reader sees in those of the people held out.

    Returns:
        The stretch of each attribute.
    """
    renders, vectors = mapped(work / FOLDER / RENDERS, CloseUps), np.load(work / FOLDER / VECTORS)
    columns = [CONTROLS.index(control.name) for control in model.denoiser.shape.controls]
    seen, sources = _learnt(order, len(renders.labels)), sources_of(renders)
    # Sharp and unhidden, as the model is asked for pictures: blur and few pixels are done to them afterwards.
    rows = sources[sources >= seen]
    others = Others(np.array(renders.labels), sources)
    asked = Asked(
        vectors[others.of(rows, np.zeros(len(rows)))],
        np.ascontiguousarray(renders.attributes[rows][:, columns]),
        _numbers(reader, renders.pictures[rows], renders.crops[rows], device),
    )
    detector = Detector(work / "detector.onnx", threads=order.calibration.threads)

    def read(pictures: UInt8[np.ndarray, "n 112 112 3"]) -> Float32[np.ndarray, "n k"]:
        landmarks, found = detector(pictures)
        numbers = _numbers(reader, pictures, crop(pictures, landmarks), device)
        return np.where(found[:, None] >= MIN_FOUND, numbers, np.float32(np.nan))

    learnt = np.ascontiguousarray(renders.attributes[:seen][:, columns])
    stretches = calibrate(model, learnt, asked, read, order.calibration, say, device)
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


def _distilled(folder: Path, order: GeneratorOrder, teacher: FaceDiffusion, say: Say, device: str) -> FaceDiffusion:
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
    first = _learnt(order, len(renders.labels))
    sheets = Sheets(out / "sheets", shape, autoencoder, recipe.prediction, recipe.steps, sheet_minutes, device)
    shown = [int(row) for row in sources_of(renders) if row >= first]
    look = sheets.of(renders, np.load(made / VECTORS, mmap_mode="r"), shown)
    denoiser = train_generator(data, shape, recipe, out, say, look, device, start, mirror)
    if not _is_first_process():
        return
    model = FaceDiffusion(autoencoder, denoiser, SPACE, recipe.prediction)
    diffusion.save(model, out / name)


def shape_of(made: Path, order: GeneratorOrder) -> DenoiserShape:
    """Of a denoiser of the vectors and latents that a work folder holds."""
    dimensions = np.load(made / VECTORS, mmap_mode="r").shape[1]
    channels = order.autoencoder.shape.latent_channels
    return DenoiserShape(told_controls(), identity_dimensions=dimensions, latent_channels=channels)


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def photographs_of(made: Path, order: GeneratorOrder) -> Photographs:
    """What a denoiser is trained on: all photographs but those of the people held out.

    Raises:
        ValueError: If renders, vectors or latents are not there, or are not of the same pictures.
    """
    renders = mapped(made / RENDERS, CloseUps)
    for name in (VECTORS, LATENTS):
        if not (made / name).is_file():
            raise ValueError(f"expected {name} in {made}, found no such file; `facemint weights` makes it")
    with np.load(made / LATENTS, allow_pickle=False) as kept:
        latents = kept["latents"]
    vectors = np.load(made / VECTORS)
    if not len(renders.labels) == len(vectors) == len(latents):
        raise ValueError(
            f"expected as many vectors and latents as renders in {made}, "
            f"got {len(vectors)} and {len(latents)} of {len(renders.labels)}"
        )
    seen = _learnt(order, len(renders.labels))
    columns = [CONTROLS.index(control.name) for control in told_controls()]
    sources = sources_of(renders)
    return Photographs(
        latents[:seen],
        vectors[:seen],
        np.ascontiguousarray(renders.attributes[:seen, columns]),
        np.array(renders.labels[:seen]),
        sources[sources < seen],
        alignments(renders)[:seen],
    )


def _learnt(order: GeneratorOrder, rows: int) -> int:
    """Photographs of the people who are not held out: they come first."""
    return rows - order.held_out * order.pictures


def sources_of(renders: CloseUps) -> Int64[np.ndarray, " s"]:
    """Rows whose vector may stand for a person: sharp, turned little, eyes open and in sight."""
    column = {name: renders.attributes[:, place] for place, name in enumerate(CONTROLS)}
    sharp = (column[PIXELS] >= 56) & (column["blur_px"] < 1)
    seen = (np.abs(column["yaw_deg"]) <= 50) & (column["glasses"] != 3) & (column["eye_closure"] < 0.5)
    return np.flatnonzero(sharp & seen)


def alignments(renders: CloseUps) -> Float32[np.ndarray, "n 2 3"]:
    """What takes each picture to its crop."""
    return similarity(renders.landmarks.astype(np.float64), template(diffusion.SIZE_PX)).astype(np.float32)


def embedder_a(work: Path, recipe: Recipe, device: str) -> IResNet:
    """Embedder A as a network that can be differentiated: its weights stay.

    Raises:
        ValueError: If it is not trained to its end, or of another design.
    """
    network = load_trained(polished(work / "embedder_a"), polish(recipe), device).model
    if not isinstance(network, IResNet):
        raise ValueError(f"embedder_a: expected a residual network, whose stages are known, got {type(network)}")
    return network.requires_grad_(False)


def embed_renders(folder: Path, onnx: Path, device: str) -> None:
    """Writes the unit vectors of all crops, by the file that is shipped."""
    if (folder / VECTORS).exists():
        return
    raw = embedder(onnx, device)(mapped(folder / RENDERS, CloseUps).crops)
    with whole_file(folder / VECTORS) as file:
        np.save(file, (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32))


def make_reader(made: Path, order: GeneratorOrder, say: Say, device: str) -> None:
    """Trains the regressor that the denoiser learns from: on the generator's own renders, apart from the one that
    certifies, which has other people and another seed."""
    renders = mapped(made / RENDERS, CloseUps)
    seen = _learnt(order, len(renders.labels))
    pictures, crops, attributes, labels = (getattr(renders, name)[:seen] for name in Examples.__slots__)
    own = Examples(pictures, crops, np.array(attributes), np.array(labels))
    train_regressor(own, None, order.reader, made / READER, say, device)


def reader_of(made: Path, order: GeneratorOrder, device: str) -> Regressor:
    """The regressor of a work folder that a denoiser learns from; its weights stay.

    Raises:
        ValueError: If it is not there, or not trained to its end.
    """
    path = made / READER / REGRESSOR
    if not path.is_file():
        raise ValueError(f"expected {READER}/{REGRESSOR} in {made}, found no such file; `facemint weights` makes it")
    kept = torch.load(path, weights_only=True, map_location="cpu")
    if kept["step"] != order.reader.steps:
        raise ValueError(f"expected a reader of {order.reader.steps} steps in {path}, got {kept['step']}")
    network = Regressor()
    network.load_state_dict(kept["model"])
    network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def write_population(folder: Path, order: GeneratorOrder) -> None:
    """Writes mean and covariance of the sources' vectors: whom a sampler may draw."""
    if (folder / POPULATION).exists():
        return
    renders = mapped(folder / RENDERS, CloseUps)
    sources = sources_of(renders)
    vectors = np.load(folder / VECTORS)[sources[sources < _learnt(order, len(renders.labels))]]
    mean, covariance = fit(vectors)
    with whole_file(folder / POPULATION) as file:
        np.savez(file, mean=mean, covariance=covariance, space=SPACE)


def mirror_of(autoencoder: Autoencoder, embed: IResNet | None, reader: Regressor | None) -> Mirror:
    """What a denoiser's estimates are looked at with."""
    return Mirror(autoencoder.decode, embed, None if reader is None else Reader(reader, reader.mean, reader.std))


def beholder_of(network: IResNet, reader: Regressor) -> Beholder:
    """Features of embedder A, and what a reader sees."""
    return Beholder(partial(features_of, network), lambda pictures, crops: reader(pictures, crops)[0])


def features_of(network: IResNet, crops: Float[Tensor, "b 3 112 112"]) -> list[Tensor]:
    """What embedder A has after its stem and after each stage."""
    maps = [network.prelu(network.bn1(network.conv1(crops)))]
    for stage in network.stages:
        maps.append(network.get_submodule(stage)(maps[-1]))
    return maps


def autoencoder_of(made: Path, order: GeneratorOrder, device: str) -> Autoencoder:
    """The autoencoder of a work folder whose latents are cached.

    Raises:
        ValueError: If it is not there, or not trained to its end.
    """
    path = made / AUTOENCODER
    if not path.is_file() or not (made / LATENTS).is_file():
        raise ValueError(f"expected {AUTOENCODER} and {LATENTS} in {made}; `facemint weights` makes them")
    kept = torch.load(path, weights_only=True, map_location="cpu")
    if kept["step"] != order.autoencoder.steps:
        raise ValueError(f"expected an autoencoder of {order.autoencoder.steps} steps in {path}, got {kept['step']}")
    model = Autoencoder(order.autoencoder.shape)
    model.load_state_dict(kept["average"])
    model.requires_grad_(False).eval().to(device)
    read_latents(model, made / LATENTS)
    return model
