"""`facemint train-generator`: a denoiser alone, on what `facemint weights` has rendered; under torchrun or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import distributed as dist

from generation.diffusion import Denoiser, DenoiserShape
from generation.train.autoencoder import AutoencoderRecipe
from generation.train.calibrate import CalibrationRecipe
from generation.train.decoder import DecoderRecipe
from generation.train.distil import DistilRecipe
from generation.train.generator import CHECKPOINT, GeneratorRecipe
from generation.train.regressor import RegressorRecipe
from generation.train.tune import TuningRecipe
from pipeline.progress import say
from pipeline.weights.generator import train_denoiser
from pipeline.weights.listing import listed, write_listing
from pipeline.weights.made import FOLDER, WEIGHTS, autoencoder_of, embedder_a, mirror_of, reader_of, shape_of
from pipeline.weights.recipe import GeneratorOrder
from pipeline.weights.renders import claim
from recognition.augment import Augment
from recognition.files import sha256_of
from recognition.margins import CosFace
from recognition.train import Recipe
from stages.generate.bundled import NAME

PATIENCE = timedelta(hours=12)  # of processes, for the one that makes what all of them need


def train_alone(cfg: DictConfig) -> None:
    """Trains the denoiser of a composed config (conf/train_generator.yaml) and writes it into the run's folder.

    The folder is one of weights then, as the bundled generator takes it. Nothing is distilled into this model: where it
    is guided, it takes two or three passes a step.

    Raises:
        ValueError: If a setting is out of range, the work folder is not there or of other recipes than the bundled
            models', there is nothing to start from, or the run's folder holds the training of another recipe or start.
    """
    recipe: GeneratorRecipe = instantiate(cfg.recipe, _convert_="all")
    if not cfg.sheet_minutes > 0:
        raise ValueError(f"sheet_minutes: expected more than 0, got {cfg.sheet_minutes}")
    work, run = Path(cfg.work), Path(cfg.run)
    made, embedder = work / FOLDER, work / "embedder_a.onnx"
    order = order_of(made)
    if not embedder.is_file():
        raise ValueError(f"work: expected the embedder whose vectors {made} holds, found no {embedder}")
    start = None if cfg.start is None else start_of(Path(cfg.start), shape_of(made, order), recipe.prediction)
    with processes() as (rank, device):
        device = cfg.device or device
        autoencoder = autoencoder_of(made, order, device)
        embed = None if recipe.identity_term == "none" else embedder_a(work, embedder_a_of(work), device)
        reader = reader_of(made, order, device) if recipe.attribute_weight else None
        mirror = mirror_of(autoencoder, embed, reader)
        if rank == 0:
            claim(run, asdict(recipe) | {"data": asdict(order)} | ({"start": sha256_of(start)} if start else {}))
            say(f"train-generator: {recipe.steps} steps on {device}, {os.environ.get('WORLD_SIZE', '1')} processes")
        train_denoiser(made, run, order, recipe, autoencoder, mirror, say, device, cfg.sheet_minutes, start=start)
        if rank == 0:
            write_listing(run, {NAME: listed(run / WEIGHTS, vectors_of=sha256_of(embedder))})
            say(f"train-generator: wrote {run / WEIGHTS}; draw with generator=bundled generator.weights={run}")


def start_of(place: Path, shape: DenoiserShape, prediction: str) -> Path:
    """The checkpoint of another training, in whose folder or at which `place` is.

    Raises:
        ValueError: If there is none, or its denoiser has other tensors, or predicts something else.
    """
    path = place / CHECKPOINT if place.is_dir() else place
    if not path.is_file():
        raise ValueError(f"start: expected the folder of another training, with {CHECKPOINT}, found no {path}")
    kept = _checkpoint(path)
    found = {name: tuple(tensor.shape) for name, tensor in kept["average"].items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in Denoiser(shape).state_dict().items()}
    other = next((name for name in sorted(wanted | found) if wanted.get(name) != found.get(name)), None)
    if other is not None:
        expected, got = (shapes.get(other, "nothing") for shapes in (wanted, found))
        raise ValueError(f"start: expected a denoiser of the same shape in {path}, with {other} {expected}, got {got}")
    predicted = kept["recipe"].get("prediction", prediction)  # a student's recipe names none
    if predicted != prediction:
        raise ValueError(f"start: expected a denoiser that predicts {prediction!r} in {path}, got {predicted!r}")
    return path


def _checkpoint(path: Path) -> dict[str, Any]:
    """What a training has kept."""
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, UnpicklingError) as error:
        raise ValueError(f"start: expected the checkpoint of a training in {path}, got another file") from error
    if not isinstance(kept, dict) or not {"recipe", "average"} <= kept.keys():
        raise ValueError(f"start: expected the checkpoint of a training in {path}, with an average, got something else")
    return kept


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
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()


def order_of(made: Path) -> GeneratorOrder:
    """What the generator's part of a work folder was made from.

    Raises:
        ValueError: If there is none, or it is of a version with other settings.
    """
    told = _claimed(made)
    try:
        return _order(told)
    except (KeyError, TypeError) as error:
        raise ValueError(f"work: expected the work of this version in {made}, got another's: {error}") from error


def _order(told: dict[str, Any]) -> GeneratorOrder:
    autoencoder = told["autoencoder"] | {"widths": tuple(told["autoencoder"]["widths"])}
    student = told["student"]
    if student is not None:
        student |= {name: tuple(student[name]) for name in ("guidance_identity", "guidance_attributes")}
    nested = {
        "autoencoder": AutoencoderRecipe(**autoencoder),
        "reader": RegressorRecipe(**told["reader"]),
        "denoiser": GeneratorRecipe(**told["denoiser"]),
        "student": student and DistilRecipe(**student),
        "decoder": DecoderRecipe(**told["decoder"]),
        "tuning": tuple(TuningRecipe(**each) for each in told["tuning"]),
        "calibration": CalibrationRecipe(
            **told["calibration"] | {"attributes": tuple(told["calibration"]["attributes"])}
        ),
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
