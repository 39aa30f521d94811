"""`facemint tune-generator`: a generator trained on, by pictures that it draws itself; under torchrun or not."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import distributed as dist

from generation import diffusion
from generation.diffusion import FaceDiffusion
from generation.train.autoencoder import cache_latents
from generation.train.tune import TuningRecipe
from generation.weights import bundled
from pipeline.progress import say
from pipeline.weights.alone import order_of, processes
from pipeline.weights.generator import calibrated, make_reader, tuned
from pipeline.weights.listing import LISTING, listed, write_listing
from pipeline.weights.made import (
    CIRCUMSTANCES,
    FOLDER,
    LATENTS,
    RENDERS,
    SPACE,
    VECTORS,
    WEIGHTS,
    embed_renders,
    embedder_a_in,
    mirror_of,
    reader_of,
    renders_of,
)
from pipeline.weights.recipe import GeneratorOrder
from pipeline.weights.renders import CloseUps, claim, mapped, rendered
from pipeline.weights.workers import pool
from recognition.files import sha256_of
from stages.generate.bundled import NAME


def tune_alone(cfg: DictConfig) -> None:
    """Trains a generator on by a composed config (conf/tune_generator.yaml) and writes it into the run's folder.

    The folder is one of weights then, as the bundled generator takes it. What there is to begin with, renders and the
    regressor that reads them, goes into the work folder and is not made again.

    Raises:
        ValueError: If a setting is out of range, the start is no generator of the bundled embedder's space, the work
            folder is of another version, or the run's folder holds another training.
    """
    recipe: TuningRecipe = instantiate(cfg.recipe, _convert_="all")
    if not cfg.sheet_minutes > 0:
        raise ValueError(f"sheet_minutes: expected more than 0, got {cfg.sheet_minutes}")
    if cfg.workers < 1:
        raise ValueError(f"workers: expected at least 1, got {cfg.workers}")
    made, run = Path(cfg.work) / FOLDER, Path(cfg.run)
    start = bundled(NAME).verify() if cfg.start is None else Path(cfg.start)
    embedder = bundled("embedder_a").verify() if cfg.embedder_onnx is None else Path(cfg.embedder_onnx)
    model, network = _start_of(start), embedder_a_in(embedder)
    _check_embedder(start, embedder)
    order = order_of(made) if (made / "recipe.json").is_file() else GeneratorOrder()
    with processes() as (rank, device):
        device = cfg.device or device
        if rank == 0:
            claim(made, asdict(order))
            told = {"data": asdict(order), "start": sha256_of(start), "embedder": sha256_of(embedder)}
            claim(run, asdict(recipe) | told)
            _prepared(made, run, order, model, embedder, cfg.workers, device)
            say(f"tune-generator: {recipe.steps} steps on {device}, {os.environ.get('WORLD_SIZE', '1')} processes")
        if dist.is_initialized():
            dist.barrier()
        reader = reader_of(made, order, device)
        network.to(device)
        model.autoencoder.to(device)
        mirror = mirror_of(model.autoencoder, network, reader)
        model = tuned(made, run, order, recipe, model, mirror, network, say, device, run, cfg.sheet_minutes)
        if rank == 0:
            renders, vectors = mapped(made / RENDERS, CloseUps), np.load(run / VECTORS)
            calibrated(renders, vectors, bundled("detector").verify(), order, model, reader, say, device)
            diffusion.save(model, run / WEIGHTS)
            write_listing(run, {NAME: listed(run / WEIGHTS, vectors_of=sha256_of(embedder))})
            say(f"tune-generator: wrote {run / WEIGHTS}; draw with generator=bundled generator.weights={run}")


def _start_of(path: Path) -> FaceDiffusion:
    """A generator whose denoiser alone is to learn.

    Raises:
        ValueError: If it is none, of another space, or one that is told its guidance.
    """
    if not path.is_file():
        raise ValueError(f"start: expected a generator's file, found no {path}")
    model = diffusion.load(path)
    if model.space != SPACE:
        raise ValueError(f"start: expected a generator of space {SPACE!r} in {path}, got {model.space!r}")
    if model.taught is not None:
        raise ValueError(f"start: expected a generator that is told no guidance in {path}, got one that is")
    told = model.denoiser.shape.circumstances
    if told != CIRCUMSTANCES:
        raise ValueError(
            f"start: expected a generator that is told {CIRCUMSTANCES} circumstances in {path}, got {told}"
        )
    for part in (model.autoencoder, model.denoiser):
        part.eval().requires_grad_(False)
    return model


def _check_embedder(start: Path, embedder: Path) -> None:
    """Where the start's folder says whose vectors it has learnt from, the embedder is that one.

    Raises:
        ValueError: If it is another training's.
    """
    if not (start.parent / LISTING).is_file():
        return
    meant, given = bundled(NAME, start.parent).vectors_of, sha256_of(embedder)
    if meant not in ("", given):
        raise ValueError(
            f"embedder_onnx: expected the embedder whose vectors {start} has learnt from, sha256 {meant}, got {given}"
        )


def _prepared(
    made: Path, run: Path, order: GeneratorOrder, model: FaceDiffusion, embedder: Path, workers: int, device: str
) -> None:
    """Makes what is missing of renders, their vectors and latents, and the reader that the denoiser learns from."""
    with pool(workers) as renderers:
        rendered(made / RENDERS, renders_of(order), renderers, device, say)
    renders = mapped(made / RENDERS, CloseUps)
    embed_renders(renders, embedder, run / VECTORS, device)
    # In the start's own statistics, which its denoiser has learnt: they are not measured anew.
    cache_latents(model.autoencoder.to(device), renders.pictures, run / LATENTS, measured=True)
    make_reader(made, order, say, device)
