"""Losses of the bundled generator: plain functions of tensors, each with its equation. They draw no random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

Features = Callable[[Tensor], Sequence[Tensor]]  # crops in [-1, 1] -> maps (b, c, h, w), coarse to fine or the reverse


def kl_divergence(mean: Float[Tensor, "b c h w"], log_variance: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """KL of the posterior from a standard normal, in nats per latent number (Kingma and Welling, 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def edge_distance(ours: Float[Tensor, "b c h w"], theirs: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbouring pixels' differences: what a blurred picture has wrong."""
    gap = ours - theirs
    return gap.diff(dim=2).abs().mean() + gap.diff(dim=3).abs().mean()


def perceptual_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Mean over layers of the squared distance of feature vectors of unit length (LPIPS's distance, Zhang et al., 2018,
    equation 1, https://arxiv.org/abs/1801.03924, with all weights alike)."""
    distances = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(distances).mean()


def placed(pixels: Float[Tensor, "b 3 s s"], to_crop: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b 3 s s"]:
    """Pictures moved as `to_crop` says (x, y of a picture -> x, y of its crop), bilinear; outside, the edge goes on.

    Differentiable; what the embedder's own alignment does to a picture of the crop's size.
    """
    # Never in half precision: places in bfloat16 are wrong by up to a third of a pixel.
    with torch.autocast(pixels.device.type, enabled=False):
        return _placed(pixels.float(), to_crop.float())


def _placed(pixels: Float[Tensor, "b 3 s s"], to_crop: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b 3 s s"]:
    size = pixels.shape[-1]
    linear, shift = to_crop[:, :, :2], to_crop[:, :, 2:]
    back = torch.linalg.inv(linear)
    # Pixel p lies at u = (2 p + 1) / size - 1 in grid_sample's units, so p = (size - 1) / 2 + u size / 2.
    centre = (size - 1) / 2
    offset = (back @ (centre - shift) - centre) * (2 / size)
    grid = F.affine_grid(torch.cat([back, offset], 2), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def noised(
    latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], alpha_bar: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise (Ho et al., 2020, equation 4)."""
    a = alpha_bar[:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def target(
    kind: str, latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], alpha_bar: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """What the model is to predict: "epsilon", or "v" = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x (Salimans and
    Ho, 2022, appendix D, https://arxiv.org/abs/2202.00512)."""
    if kind == "epsilon":
        return noise
    if kind != "v":
        raise ValueError(f"kind: expected 'epsilon' or 'v', got {kind!r}")
    a = alpha_bar[:, None, None, None]
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def clean_estimate(
    kind: str, predicted: Float[Tensor, "b c h w"], noisy: Float[Tensor, "b c h w"], alpha_bar: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The x0 that a prediction implies; for "epsilon", alpha_bar must not be 0."""
    a = alpha_bar[:, None, None, None]
    if kind == "v":
        return a.sqrt() * noisy - (1 - a).sqrt() * predicted
    return (noisy - (1 - a).sqrt() * predicted) / a.sqrt()


def noise_estimate(
    kind: str, predicted: Float[Tensor, "b c h w"], noisy: Float[Tensor, "b c h w"], alpha_bar: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The noise that a prediction implies."""
    a = alpha_bar[:, None, None, None]
    return predicted if kind == "epsilon" else (1 - a).sqrt() * noisy + a.sqrt() * predicted


def min_snr_weight(kind: str, alpha_bar: Float[Tensor, " b"], gamma: float) -> Float[Tensor, " b"]:
    """min(SNR, gamma) as a weight of x0, turned into one of the prediction: over SNR for epsilon, over SNR + 1 for v
    (Hang et al., 2023, section 3.4, https://arxiv.org/abs/2303.09556)."""
    snr = alpha_bar / (1 - alpha_bar)
    if kind == "epsilon":
        return (gamma / snr).clamp(max=1)  # min(SNR, gamma) / SNR, which is 1 where SNR is 0
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    predicted: Float[Tensor, "b c h w"], wanted: Float[Tensor, "b c h w"], weight: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Weighted mean squared error."""
    return (weight * (predicted.float() - wanted).square().mean((1, 2, 3))).mean()


def with_identity_open(
    context: Float[Tensor, "b c"], nobody: Float[Tensor, " c"], someone: Bool[Tensor, " b"]
) -> Float[Tensor, "b c"]:
    """The projected identity, or the learned context of nobody where a row's identity is left open."""
    return torch.where(someone[:, None], context, nobody.to(context.dtype))


def partially_dropped(context: Float[Tensor, "b c"], kept: Bool[Tensor, "b c"], p: float) -> Float[Tensor, "b c"]:
    """Contextual partial dropout (Boutros et al., 2023, IDiff-Face, section 3.3): components of the projected identity
    dropped with probability p, the others scaled by 1 / (1 - p)."""
    return context * kept / (1 - p)


def identity_distance(seen: Float[Tensor, "b d"], wanted: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """1 - cosine of the face that is seen and the one that was asked for: 0 for the same, 2 for the opposite."""
    return 1 - F.cosine_similarity(seen, wanted, dim=1)


def identity_triplet(
    seen: Float[Tensor, "b d"], wanted: Float[Tensor, "b d"], other: Float[Tensor, "b d"], margin: float = 1.0
) -> Float[Tensor, " b"]:
    """max(0, d(seen, wanted) - d(seen, other) + margin) with d = 1 - cosine: nearer to who was asked for than to
    somebody else (ID-Booth, 2025; margin and distance as in its training script)."""
    return (identity_distance(seen, wanted) - identity_distance(seen, other) + margin).clamp(min=0)


def lateness_weight(timesteps: Int[Tensor, " b"], times: int, power: float = 2.0) -> Float[Tensor, " b"]:
    """(1 - t / T)^power; with 2, ID-Booth's weight of an identity term: an estimate from noise shows no face yet."""
    return (1 - timesteps / times).pow(power)


def number_distance(seen: Float[Tensor, "*b"], wanted: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Smooth L1 of standardised numbers, a square within 0.3: what differs by more counts by how much, not squared."""
    return F.smooth_l1_loss(seen, wanted, beta=0.3, reduction="none")


def style_distance(logits: Float[Tensor, "b s"], wanted: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Cross entropy of what a choice looks like, in nats."""
    return F.cross_entropy(logits, wanted, reduction="none")
