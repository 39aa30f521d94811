"""The small identity-conditioned latent diffusion model, put together from diffusers' parts.

An autoencoder turns a picture into a grid of latents (Rombach et al., 2022, https://arxiv.org/abs/2112.10752). A UNet
denoises latents; it is told who by an identity vector and how by a photograph's attributes, each of which may be left
open. Nothing here draws a random number or knows a face embedder: noise, vectors and losses come from the caller.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Bool, Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

SIZE_PX = 112
FOLD = 2  # pixels a side that become channels before the first convolution: a quarter of the work at full resolution


@dataclass(frozen=True)
class AutoencoderShape:
    """Channels at 56, 28 and 14 pixels, and channels of the latents."""

    widths: tuple[int, ...] = (32, 64, 128)
    latent_channels: int = 4


class Autoencoder(nn.Module):
    """Pictures in [-1, 1] <-> latents of zero mean and unit variance: diffusers' KL autoencoder on folded pixels.

    `mean` and `std` per latent channel are measured once the encoder is trained (`measure`), and make the latents what
    a diffusion model expects of its data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        self.shape = shape
        levels, pixels = len(shape.widths), 3 * FOLD**2
        self.kl: Any = AutoencoderKL(
            in_channels=pixels,
            out_channels=pixels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=shape.widths,
            latent_channels=shape.latent_channels,
            norm_num_groups=16,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        self.register_buffer("mean", torch.zeros(shape.latent_channels, 1, 1))
        self.register_buffer("std", torch.ones(shape.latent_channels, 1, 1))

    def posterior(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Mean and log variance of the raw latents of each picture."""
        distribution = self.kl.encode(F.pixel_unshuffle(pixels, FOLD)).latent_dist
        return distribution.mean, distribution.logvar

    def encode(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        """Latents, the mean of the posterior, normalised per channel."""
        return (self.posterior(pixels)[0] - self.mean) / self.std

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Pictures, not clipped, from normalised latents."""
        return self.decode_raw(latents * self.std + self.mean)

    def decode_raw(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        return F.pixel_shuffle(self.kl.decode(latents).sample, FOLD)

    def measure(self, raw: Float[Tensor, "n c h w"]) -> None:
        """Sets `mean` and `std` from the raw latents of many pictures."""
        self.mean.copy_(raw.mean((0, 2, 3))[:, None, None])
        self.std.copy_(raw.std((0, 2, 3))[:, None, None])


@dataclass(frozen=True)
class Control:
    """How the model is told one attribute.

    Attributes:
        name: As the plan names it.
        low: Smallest value; told as -1.
        high: Largest value, told as 1; what is larger is told as this.
        styles: Number of styles of an attribute that is a choice (0, 1, ...); 0 for a quantity.
        logarithmic: Whether ratios matter, not differences.
    """

    name: str
    low: float
    high: float
    styles: int = 0
    logarithmic: bool = False


@dataclass(frozen=True)
class DenoiserShape:
    """Everything that fixes the denoiser's tensors.

    Attributes:
        controls: What it is told of a photograph, in the order of the columns of an attribute table.
        identity_dimensions: Length of an identity vector.
        widths: Channels at each level; each level has half the side of the one before.
        layers: Residual blocks per level going down; one more going up.
        heads: Attention heads.
        token_width: Length of a token.
        identity_tokens: Tokens that the projected identity is spread over.
        context_width: Length of the projected identity.
        latent_channels: Channels of the latents.
        latent_size: Side of the latents.
        circumstances: How many numbers it is told of what no attribute names. The first 3 * latent_size**2 are the
            backdrop, red first, in [-1, 1], each cell where its latents are. 0: it is told none.
    """

    controls: tuple[Control, ...]
    identity_dimensions: int = 128
    widths: tuple[int, ...] = (96, 192)
    layers: int = 1
    heads: int = 4
    token_width: int = 128
    identity_tokens: int = 8
    context_width: int = 256
    latent_channels: int = 4
    latent_size: int = 14
    circumstances: int = 0

    @property
    def backdrop(self) -> int:
        """Numbers of the backdrop."""
        return 3 * self.latent_size**2 if self.circumstances else 0


FREQUENCIES = (1, 2, 4)  # quarter turns of sine and cosine over half an attribute's range
FEATURES = 1 + 2 * len(FREQUENCIES)
BACKDROP_CHANNELS = 4  # red, green, blue, and whether there is one


@dataclass(frozen=True, eq=False)
class Condition:
    """What the UNet is told: tokens to attend to, one vector that shifts and scales every block, and the backdrop.

    The backdrop lies beside the latents, with a channel of ones where it is told; no channels where it never is.
    """

    tokens: Float[Tensor, "b n t"]
    pooled: Float[Tensor, "b p"]
    backdrop: Float[Tensor, "b k h w"]


class Denoiser(nn.Module):
    """diffusers' UNet2DConditionModel with cross-attention on identity tokens and attribute tokens."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.shape = shape
        count, width, context = len(shape.controls), shape.token_width, shape.context_width
        self.project = nn.Linear(shape.identity_dimensions, context)
        self.nobody = nn.Parameter(torch.zeros(context))  # the context of an identity left open
        self.spread = nn.Linear(context, shape.identity_tokens * width)
        self.code = nn.Parameter(torch.randn(count, FEATURES, width) * FEATURES**-0.5)
        self.place = nn.Parameter(torch.randn(count, width) * 0.5)  # which attribute a token is about
        self.open = nn.Parameter(torch.randn(count, width) * 0.5)  # the token of an attribute left open
        self.pool = nn.Sequential(nn.Linear(context + count * width, context), nn.SiLU(), nn.Linear(context, context))
        self.push = nn.Linear(2, context)  # the guidance that a distilled model is asked for
        nn.init.zeros_(self.push.weight)
        nn.init.zeros_(self.push.bias)
        if shape.circumstances < 0 or 0 < shape.circumstances <= shape.backdrop:
            raise ValueError(f"circumstances: expected 0 or more than {shape.backdrop}, got {shape.circumstances}")
        if shape.circumstances:
            self.day = nn.Linear(shape.circumstances - shape.backdrop, context, bias=False)
        cross = len(shape.widths)
        self.unet: Any = UNet2DConditionModel(
            sample_size=shape.latent_size,
            in_channels=shape.latent_channels + (BACKDROP_CHANNELS if shape.circumstances else 0),
            out_channels=shape.latent_channels,
            down_block_types=("CrossAttnDownBlock2D",) * cross,
            up_block_types=("CrossAttnUpBlock2D",) * cross,
            block_out_channels=shape.widths,
            layers_per_block=shape.layers,
            cross_attention_dim=width,
            attention_head_dim=shape.heads,  # diffusers' name for the number of heads
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=context,
        )
        # Written out: on a CPU without matrix tiles the fused attention of torch 2.13 takes 2 to 8 times as long
        # backwards in bfloat16.
        self.unet.set_attn_processor(AttnProcessor())  # type: ignore[attr-defined]

    def context(self, identity: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """The projected identity, which partial dropout acts on. Vectors are scaled to unit variance per component."""
        return self.project(identity * identity.shape[1] ** 0.5)

    def condition(
        self,
        context: Float[Tensor, "b c"],
        attributes: Float[Tensor, "b a"],
        asked: Bool[Tensor, "b a"],
        guidance: Float[Tensor, "b 2"] | None = None,
        circumstances: Float[Tensor, "b n"] | None = None,
    ) -> Condition:
        """What contexts and attributes tell, of which only those asked for are looked at.

        Args:
            guidance: Of identity and of attributes, for a model that was distilled to give guided predictions in one
                pass; None is a guidance of 1.
            circumstances: Rows of NaN are left open; None leaves all open.
        """
        features = self.features(attributes.float()).to(self.code.dtype)
        told = torch.einsum("baf,afw->baw", features, self.code) + self.place
        told = torch.where(asked[..., None], told, self.open)
        who = self.spread(context).unflatten(1, (self.shape.identity_tokens, self.shape.token_width))
        pooled = self.pool(torch.cat([context, told.flatten(1)], 1))
        if guidance is not None:
            pooled = pooled + self.push(guidance.to(pooled.dtype) - 1)
        backdrop, day = self._circumstances(circumstances, pooled)
        return Condition(torch.cat([who, told], 1), pooled + day, backdrop)

    def _circumstances(
        self, circumstances: Float[Tensor, "b n"] | None, like: Float[Tensor, "b p"]
    ) -> tuple[Float[Tensor, "b k s s"], Float[Tensor, "b p"]]:
        """The backdrop, and what the other numbers add to the pooled vector."""
        side = self.shape.latent_size
        if not self.shape.circumstances:
            return like.new_zeros(len(like), 0, side, side), torch.zeros_like(like)
        if circumstances is None:
            return like.new_zeros(len(like), BACKDROP_CHANNELS, side, side), torch.zeros_like(like)
        told = (~circumstances[:, :1].isnan()).to(like.dtype)
        numbers = circumstances.nan_to_num(0.0).to(like.dtype)
        backdrop = numbers[:, : self.shape.backdrop].unflatten(1, (3, side, side))
        there = told[:, :, None, None].expand(-1, 1, side, side)
        return torch.cat([backdrop, there], 1), self.day(numbers[:, self.shape.backdrop :])

    def forward(
        self, latents: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """What the model predicts (v or epsilon, as it was trained) of noisy latents."""
        beside = condition.backdrop.to(latents.dtype)
        told = torch.cat([latents, beside], 1).contiguous(memory_format=torch.channels_last)
        return self.unet(told, timesteps, condition.tokens, class_labels=condition.pooled).sample

    def features(self, attributes: Float[Tensor, "b a"]) -> Float[Tensor, "b a f"]:
        """What `code` makes tokens of: one of few for a choice; a quantity, and sines and cosines of it."""
        columns = [_feature(control, attributes[:, i]) for i, control in enumerate(self.shape.controls)]
        return torch.stack(columns, 1)


def _feature(control: Control, value: Float[Tensor, " b"]) -> Float[Tensor, "b f"]:
    """A choice as one of few, a quantity as itself and sines and cosines of it."""
    if control.styles:
        return F.one_hot(value.nan_to_num().round().long().clamp(0, control.styles - 1), FEATURES).to(value.dtype)
    value = value.nan_to_num(control.low).clamp(control.low, control.high)
    low, high = value.new_tensor(control.low), value.new_tensor(control.high)
    if control.logarithmic:
        value, low, high = value.log(), low.log(), high.log()
    u = 2 * (value - low) / (high - low) - 1
    waves = [wave(u * (torch.pi / 2 * k)) for k in FREQUENCIES for wave in (torch.sin, torch.cos)]
    return torch.stack([u, *waves], 1)


PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon"}  # ours: diffusers' names
NOISE_SCHEDULE: dict[str, Any] = {
    # Cosine (Nichol and Dhariwal, 2021, equation 17): a grid of 14 x 14 loses its content sooner than one of 64 x 64.
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "rescale_betas_zero_snr": True,  # the last step is pure noise, as sampling begins (Lin et al., 2024, algorithm 1)
    "timestep_spacing": "trailing",
}


def noise_schedule(prediction: str = "v") -> dict[str, Any]:
    """The arguments of diffusers' schedulers for a model that predicts "v" or "epsilon".

    Noise cannot be told from pure noise, so a model that predicts epsilon has a last step that is not quite pure.

    Raises:
        ValueError: If the prediction is neither.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction: expected one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    return NOISE_SCHEDULE | {"rescale_betas_zero_snr": prediction == "v", "prediction_type": PREDICTIONS[prediction]}


def alpha_bars(prediction: str = "v") -> Float[Tensor, " t"]:
    """Cumulative products of 1 - beta at the 1000 times of training."""
    scheduler: Any = DDIMScheduler(**noise_schedule(prediction))
    return scheduler.alphas_cumprod.float()


class Taught(NamedTuple):
    """Lowest and highest guidance of identity, and of attributes; what lies outside was never seen in training."""

    identity: tuple[float, float]
    attributes: tuple[float, float]


@dataclass(frozen=True, eq=False)
class FaceDiffusion:
    """The whole generator: what makes latents of a person's photograph, and what makes pictures of latents.

    Attributes:
        autoencoder: Its decoder draws; its encoder is for training.
        denoiser: In the latents of that autoencoder.
        space: Of the embedder whose unit vectors the denoiser is conditioned on.
        prediction: "v" or "epsilon": what the denoiser was trained to predict.
        taught: The guidance that a distilled denoiser can be told, which then gives a guided prediction in one pass;
            None for a denoiser that takes a pass for each condition.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    space: str
    prediction: str = "v"
    taught: Taught | None = None

    def to(self, device: str, dtype: torch.dtype) -> FaceDiffusion:
        """Moves both networks, in place, for inference: no gradients, channels last."""
        for network in (self.autoencoder, self.denoiser):
            network.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.eval().requires_grad_(False)
        return self


def save(model: FaceDiffusion, path: Path) -> None:
    """Writes one .safetensors file: numbers in half precision, and in its header all that builds the networks."""
    tensors = {
        f"{part}.{name}": value.detach().cpu().to(torch.float16).contiguous()
        for part, network in (("autoencoder", model.autoencoder), ("denoiser", model.denoiser))
        for name, value in network.state_dict().items()
    }
    about = {
        "autoencoder": asdict(model.autoencoder.shape),
        "denoiser": asdict(model.denoiser.shape),
        "space": model.space,
        "prediction": model.prediction,
        "taught": model.taught,
    }
    part = path.with_suffix(".part")
    save_file(tensors, part, {HEADER: json.dumps(about, sort_keys=True)})
    os.replace(part, path)


HEADER = "facemint"  # the one entry of the file's metadata


def load(path: Path) -> FaceDiffusion:
    """Reads a file that `save` wrote, in single precision.

    Raises:
        ValueError: If the file is no such file, or its tensors are not those that its header describes.
    """
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"expected {path.name} to be a safetensors file, got: {error}") from error
    if header is None:
        raise ValueError(
            f"expected {path.name} to say what model it is in its metadata under {HEADER!r}, found nothing"
        )
    try:
        model = _built(json.loads(header))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected {path.name} to describe a model of this version, got {header}: {error}") from error
    _fill(model, tensors, path.name)
    return model


def _built(about: dict[str, Any]) -> FaceDiffusion:
    """The networks that a header describes, with the weights that they are born with."""
    shapes = {part: about[part] | {"widths": tuple(about[part]["widths"])} for part in ("autoencoder", "denoiser")}
    controls = tuple(Control(**control) for control in about["denoiser"]["controls"])
    noise_schedule(about["prediction"])
    return FaceDiffusion(
        Autoencoder(AutoencoderShape(**shapes["autoencoder"])),
        Denoiser(DenoiserShape(**shapes["denoiser"] | {"controls": controls})),
        about["space"],
        about["prediction"],
        about["taught"] and Taught(*((float(low), float(high)) for low, high in about["taught"])),
    )


def _fill(model: FaceDiffusion, tensors: dict[str, Tensor], name: str) -> None:
    for part, network in (("autoencoder", model.autoencoder), ("denoiser", model.denoiser)):
        prefix = f"{part}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(f"expected {name} to hold the tensors of its {part}, got: {error}") from error


@torch.no_grad()
def decoded(autoencoder: Autoencoder, latents: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b s s 3"]:
    """RGB bytes of latents, on the latents' device."""
    dtype = next(autoencoder.parameters()).dtype
    pictures = autoencoder.decode(latents.to(dtype).contiguous(memory_format=torch.channels_last)).float()
    return (pictures.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
