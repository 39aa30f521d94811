"""The convolution that every family is built of, and the side of the picture that comes in."""

from __future__ import annotations

from torch import nn

INPUT_PX = 112


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is ceil(input / stride) pixels wide; `kernel` is odd."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
