"""MobileFaceNet as insightface trains it: wider than the paper's, with insightface's state dict.

Chen et al. (2018), https://arxiv.org/abs/1804.07573, as in https://github.com/deepinsight/insightface
(recognition/arcface_torch/backbones/mobilefacenet.py, 7fadd42). Three habits of that source are kept, because published
weights depend on them: the second stage convolves its 128 channels in 64 groups of two, where the paper's is depthwise;
the inner width of a stage does not grow with `scale`; and the global depthwise convolution is of 512 channels always.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from recognition.backbones.convolution import convolution


class _Layers(nn.Module):
    """A sequence by the name `layers`: every level of the state dict's keys has it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Added(_Layers):
    """The same, added to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class MobileFaceNet(nn.Module):
    """MobileFaceNet of arcface_torch: `mbf` with the defaults, `mbf_large` with `blocks=(2, 8, 12, 4)` and `scale=4`.

    Args:
        blocks: Bottlenecks in each of the four stages; a first stage of 1 is one grouped convolution.
        scale: Width of all stages in multiples of the paper's 64 and 128 channels.
        dimensions: Length of the embedding.
    """

    def __init__(self, blocks: tuple[int, int, int, int] = (1, 4, 6, 2), scale: int = 2, dimensions: int = 512) -> None:
        super().__init__()
        self.dimensions = dimensions
        narrow, wide = 64 * scale, 128 * scale
        first = _stage(narrow, blocks[0], 128) if blocks[0] != 1 else _conv_bn_prelu(narrow, narrow, 3, groups=64)
        self.layers = nn.ModuleList(
            [
                _conv_bn_prelu(3, narrow, 3, stride=2),
                first,
                _Layers(*_bottleneck(narrow, narrow, 128, stride=2)),
                _stage(narrow, blocks[1], 128),
                _Layers(*_bottleneck(narrow, wide, 256, stride=2)),
                _stage(wide, blocks[2], 256),
                _Layers(*_bottleneck(wide, wide, 512, stride=2)),
                _stage(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = _conv_bn_prelu(wide, 512, 1)
        everywhere = nn.Conv2d(512, 512, 7, groups=512, bias=False)
        self.features = _Layers(
            _Layers(everywhere, nn.BatchNorm2d(512)),
            nn.Flatten(),
            nn.Linear(512, dimensions, bias=False),
            nn.BatchNorm1d(dimensions),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b d"]:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


def _conv_bn_prelu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> _Layers:
    return _Layers(convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def _bottleneck(inputs: int, outputs: int, inner: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Widened to `inner` channels, convolved depthwise, projected without an activation."""
    return (
        _conv_bn_prelu(inputs, inner, 1),
        _conv_bn_prelu(inner, inner, 3, stride, groups=inner),
        _Layers(convolution(inner, outputs, 1), nn.BatchNorm2d(outputs)),
    )


def _stage(channels: int, count: int, inner: int) -> _Layers:
    return _Layers(*(_Added(*_bottleneck(channels, channels, inner)) for _ in range(count)))
