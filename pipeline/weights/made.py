"""What a work folder holds of the generator: renders, vectors, latents, and the networks that look at drawings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from generation import diffusion
from generation.close_up import close_up_circumstances
from generation.diffusion import Autoencoder, Control, DenoiserShape
from generation.regressor import Regressor
from generation.train.autoencoder import CHECKPOINT as AUTOENCODER
from generation.train.autoencoder import read_latents
from generation.train.likeness import Beholder
from generation.train.mirror import Mirror, Reader
from generation.train.photographs import Photographs
from generation.train.regressor import CHECKPOINT as REGRESSOR
from generation.world import ATTRIBUTES, CONTROLS
from generation.world.circumstances import NUMBERS
from generation.world.scenes import generator_attributes
from pipeline.weights.measuring import SPACES, embedder, polished
from pipeline.weights.recipe import GeneratorOrder, WeightsRecipe, polish
from pipeline.weights.renders import CloseUps, Order, mapped
from recognition.backbones import BACKBONES, IResNet
from recognition.export import load_onnx
from recognition.files import whole_file
from recognition.train import Recipe, load_trained
from stages.embed.align import similarity, template

PEOPLE_STREAM = 7_005  # of SeedSequence: its people are no other model's, and no run's
FOLDER = "generator"  # of the work folder
RENDERS, VECTORS, LATENTS = "renders", "vectors.npy", "latents.npz"
READER = "reader"  # folder of the regressor that the denoiser learns from
WEIGHTS, POPULATION = "generator.safetensors", "population.npz"
SPACE = SPACES["embedder_a"]

# A background is a circumstance; noise and JPEG are done to finished pictures, as no latent has room for them.
UNTOLD = ("background", "noise", "jpeg_quality")
STYLES = {"glasses": 4, "hat": 4}
CIRCUMSTANCES = 3 * DenoiserShape.latent_size**2 + NUMBERS  # a backdrop and more
PIXELS = "low_resolution_px"  # told by ratios; from 140 on, the side of a close-up's render, nothing is lost
PIXELS_RANGE = (16.0, 140.0)


def told_controls() -> tuple[Control, ...]:
    """What the denoiser is told of a photograph, in the order of the world's controls."""
    ranges = {name: (attribute.low, attribute.high) for name, attribute in ATTRIBUTES.items()} | {PIXELS: PIXELS_RANGE}
    return tuple(
        Control(name, *ranges[name], STYLES.get(name, 0), name == PIXELS) for name in CONTROLS if name not in UNTOLD
    )


def renders_of(order: GeneratorOrder) -> Order:
    """What is rendered for an order."""
    return Order(order.people, order.pictures, PEOPLE_STREAM, generator_attributes, order.seed, CloseUps)


def circumstances_of_renders(renders: CloseUps, rows: slice | Int64[np.ndarray, " r"]) -> Float32[np.ndarray, "r c"]:
    """What a denoiser is told of some renders beside their attributes."""
    attributes, seeds = np.array(renders.attributes[rows]), np.array(renders.seeds[rows])
    return close_up_circumstances(attributes, seeds, DenoiserShape.latent_size)


def shape_of(made: Path, order: GeneratorOrder) -> DenoiserShape:
    """Of a denoiser of the vectors and latents that a work folder holds."""
    dimensions = np.load(made / VECTORS, mmap_mode="r").shape[1]
    channels = order.autoencoder.shape.latent_channels
    return DenoiserShape(
        told_controls(), identity_dimensions=dimensions, latent_channels=channels, circumstances=CIRCUMSTANCES
    )


def photographs_of(made: Path, order: GeneratorOrder, kept: Path | None = None) -> Photographs:
    """What a denoiser is trained on: all photographs but those of the people held out.

    Args:
        made: The folder of the renders.
        kept: That of their vectors and latents; by default the same.
    Raises:
        ValueError: If renders, vectors or latents are not there, or are not of the same pictures.
    """
    renders, kept = mapped(made / RENDERS, CloseUps), kept or made
    for name in (VECTORS, LATENTS):
        if not (kept / name).is_file():
            raise ValueError(f"expected {name} in {kept}, found no such file; `facemint weights` makes it")
    with np.load(kept / LATENTS, allow_pickle=False) as cached:
        latents = cached["latents"]
    vectors = np.load(kept / VECTORS)
    if not len(renders.labels) == len(vectors) == len(latents):
        raise ValueError(
            f"expected as many vectors and latents in {kept} as renders in {made}, "
            f"got {len(vectors)} and {len(latents)} of {len(renders.labels)}"
        )
    seen = learnt(order, len(renders.labels))
    columns = [CONTROLS.index(control.name) for control in told_controls()]
    sources = sources_of(renders)
    return Photographs(
        latents[:seen],
        vectors[:seen],
        np.ascontiguousarray(renders.attributes[:seen, columns]),
        np.array(renders.labels[:seen]),
        sources[sources < seen],
        alignments(renders)[:seen],
        circumstances_of_renders(renders, slice(seen)).astype(np.float16),
    )


def learnt(order: GeneratorOrder, rows: int) -> int:
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


def embedder_a_in(path: Path) -> IResNet:
    """Embedder A of an ONNX file, as a network that can be differentiated: its weights stay.

    Raises:
        ValueError: If the file is not there, or holds another design.
    """
    if not path.is_file():
        raise ValueError(f"embedder_onnx: expected embedder A's ONNX file, found no {path}")
    network = BACKBONES[WeightsRecipe().embedder_a.backbone]()
    load_onnx(network, path)
    assert isinstance(network, IResNet)
    return network.requires_grad_(False)


def embed_renders(renders: CloseUps, onnx: Path, path: Path, device: str) -> None:
    """Writes the unit vectors of all crops, by the file that is shipped, unless they are there."""
    if path.exists():
        return
    raw = embedder(onnx, device)(renders.crops)
    with whole_file(path) as file:
        np.save(file, (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32))


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
