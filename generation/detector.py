"""The bundled detector: five landmarks and whether there is a face at all, from a 112x112 picture.

Landmarks are the expectation of a 14x14 heatmap each (integral regression, Sun et al., 2018, https://arxiv.org/abs/1711.08229),
so they are continuous, and a landmark hidden by the head itself is placed where it would be.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generation.layers import Residual, conv

SIZE_PX = 112
LANDMARKS = 5
_REACH = (
    1.5  # half-frames from the centre that the heatmap's coordinates reach: landmarks outside the frame have a place
)


class Detector(nn.Module):
    """Maps RGB pictures, (x - 127.5) / 127.5, to landmarks in pixels and the logit of "there is a face".

    Args:
        width: Channels of the 14x14 trunk.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4, 2, bias=False),  # 28x28
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            conv(16, 32),
            conv(32, width, stride=2),  # 14x14
            Residual(width),
            Residual(width),
        )
        self.context = nn.Sequential(conv(width, width, stride=2), Residual(width))  # 7x7: sees the whole head
        self.heatmaps = nn.Conv2d(2 * width, LANDMARKS, 1)
        self.found = nn.Linear(2 * width, 1)
        ticks = (torch.arange(14) - 6.5) / 7 * _REACH * SIZE_PX / 2 + (SIZE_PX - 1) / 2
        self.register_buffer("ticks_px", ticks, persistent=False)

    def forward(self, pixels: Float[Tensor, "b 3 112 112"]) -> tuple[Float[Tensor, "b 5 2"], Float[Tensor, " b"]]:
        near = self.trunk(pixels)
        far = self.context(near)
        wide = nn.functional.interpolate(far, scale_factor=2.0, mode="nearest")
        heat = self.heatmaps(torch.cat([near, wide], 1)).float().flatten(2).softmax(-1).unflatten(-1, (14, 14))
        x = (heat.sum(2) * self.ticks_px).sum(-1)
        y = (heat.sum(3) * self.ticks_px).sum(-1)
        pooled = torch.cat([far.mean((2, 3)), far.amax((2, 3))], 1)
        return torch.stack([x, y], -1), self.found(pooled).float().squeeze(-1)


class WithProbability(nn.Module):
    """The detector as it is exported: landmarks in pixels and the probability of a face."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Float[Tensor, "b 3 112 112"]) -> tuple[Float[Tensor, "b 5 2"], Float[Tensor, " b"]]:
        landmarks, logit = self.detector(pixels)
        return landmarks, logit.sigmoid()
