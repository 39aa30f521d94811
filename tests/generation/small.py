"""Small networks that have learnt nothing, but in which nothing is zero: every input changes every output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from generation.diffusion import (
    Autoencoder,
    AutoencoderShape,
    Control,
    Denoiser,
    DenoiserShape,
    FaceDiffusion,
    Taught,
    save,
)
from generation.world import ATTRIBUTES, CONTROLS

UNTOLD = ("background", "noise", "jpeg_quality")
STYLES = {"glasses": 4, "hat": 4}
TOLD = tuple(
    Control(name, ATTRIBUTES[name].low, ATTRIBUTES[name].high, STYLES.get(name, 0), name == "low_resolution_px")
    for name in CONTROLS
    if name not in UNTOLD
)
AUTOENCODER = AutoencoderShape(widths=(16, 16, 32))
DENOISER = DenoiserShape(
    TOLD, widths=(16, 32), heads=2, token_width=16, identity_tokens=2, context_width=32, circumstances=3 * 14**2 + 9
)
NARROW = DenoiserShape(  # for trainings: two controls, latents of 4 x 4, two numbers beside a backdrop
    TOLD[:2],
    identity_dimensions=8,
    widths=(32, 32),
    heads=2,
    token_width=8,
    identity_tokens=2,
    context_width=16,
    latent_channels=2,
    latent_size=4,
    circumstances=3 * 4**2 + 2,
)


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Numbers instead of the zeros that parts of a network are born with."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value += torch.randn(value.shape, generator=rng) * 0.05
    return network


def denoiser(shape: DenoiserShape = DENOISER, seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    return stirred(Denoiser(shape), seed).eval().requires_grad_(False)


def autoencoder(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return stirred(Autoencoder(AUTOENCODER), seed).eval().requires_grad_(False)


TAUGHT = Taught((1.0, 4.0), (1.0, 3.0))


def generator(space: str = "bundled-a-2", prediction: str = "v", taught: Taught | None = None) -> FaceDiffusion:
    return FaceDiffusion(autoencoder(), denoiser(), space, prediction, taught)


def write_generator(folder: Path, taught: Taught | None = None) -> None:
    """A folder of bundled weights that has a generator alone."""
    path = folder / "generator.safetensors"
    save(generator(taught=taught), path)
    entry = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "space": "", "dimensions": 0}
    (folder / "weights.json").write_text(json.dumps({"generator": entry}))
