"""`facemint train-generator`: a denoiser alone, on what `facemint weights` has rendered; under torchrun or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import distributed as dist

from generation.train.autoencoder import AutoencoderRecipe
from generation.train.decoder import DecoderRecipe
from generation.train.distil import DistilRecipe
from generation.train.generator import GeneratorRecipe, Mirror
from pipeline.progress import say
from pipeline.weights.generator import FOLDER, WEIGHTS, autoencoder_of, embedder_a, train_denoiser
from pipeline.weights.recipe import GeneratorOrder
from pipeline.weights.renders import claim
from recognition.augment import Augment
from recognition.margins import CosFace
from recognition.train import Recipe


def train_alone(cfg: DictConfig) -> None:
    """Trains the denoiser of a composed config (conf/train_generator.yaml) and writes it into the run's folder.

    Raises:
        ValueError: If a setting is out of range, the work folder is not there or of other recipes than the bundled
            models', or the run's folder holds the training of another recipe.
    """
    recipe: GeneratorRecipe = instantiate(cfg.recipe, _convert_="all")
    if not cfg.sheet_minutes > 0:
        raise ValueError(f"sheet_minutes: expected more than 0, got {cfg.sheet_minutes}")
    work, run = Path(cfg.work), Path(cfg.run)
    made = work / FOLDER
    order = order_of(made)
    with processes() as (rank, device):
        device = cfg.device or device
        autoencoder = autoencoder_of(made, order, device)
        mirror = None
        if recipe.identity_term != "none":
            mirror = Mirror(autoencoder.decode, embedder_a(work, embedder_a_of(work), device))
        if rank == 0:
            claim(run, asdict(recipe) | {"data": asdict(order)})
            say(f"train-generator: {recipe.steps} steps on {device}, {os.environ.get('WORLD_SIZE', '1')} processes")
        train_denoiser(made, run, order, recipe, autoencoder, mirror, say, device, cfg.sheet_minutes)
        if rank == 0:
            say(f"train-generator: wrote {run / WEIGHTS}")


@contextmanager
def processes() -> Iterator[tuple[int, str]]:
    """This process's rank and device; where torchrun has started several, joined with the others."""
    local, cuda = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.is_available()
    device = f"cuda:{local}" if cuda else "cpu"
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, device
        return
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()


def order_of(made: Path) -> GeneratorOrder:
    """What the generator's part of a work folder was made from.

    Raises:
        ValueError: If there is none.
    """
    told = _claimed(made)
    autoencoder = told["autoencoder"] | {"widths": tuple(told["autoencoder"]["widths"])}
    ranges = {name: tuple(told["student"][name]) for name in ("guidance_identity", "guidance_attributes")}
    nested = {
        "autoencoder": AutoencoderRecipe(**autoencoder),
        "denoiser": GeneratorRecipe(**told["denoiser"]),
        "student": DistilRecipe(**told["student"] | ranges),
        "decoder": DecoderRecipe(**told["decoder"]),
    }
    return GeneratorOrder(**told | nested)


def embedder_a_of(work: Path) -> Recipe:
    """How embedder A of a work folder was trained, the first time."""
    told = _claimed(work)["embedder_a"]
    return Recipe(**told | {"margin": CosFace(**told["margin"]), "augment": Augment(**told["augment"])})


def _claimed(folder: Path) -> dict[str, Any]:
    path = folder / "recipe.json"
    if not path.is_file():
        raise ValueError(f"work: expected a folder that `facemint weights` has worked in, found no {path}")
    return json.loads(path.read_text())
