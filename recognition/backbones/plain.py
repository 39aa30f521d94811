"""PlainNet: convolutions in one straight line, the fastest to train on a CPU."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from recognition.backbones.convolution import INPUT_PX, convolution


class PlainNet(nn.Module):
    """3x3 convolutions in one straight line, each with BN and ReLU, and a global depthwise convolution.

    The inference form of RepVGG (Ding et al., 2021, https://arxiv.org/abs/2101.03697), which is VGG with BN: no
    shortcut, so nothing is read twice, and a CPU trains it fastest. The head is MobileFaceNet's (Chen et al., 2018,
    section 3.1, https://arxiv.org/abs/1804.07573): the global depthwise convolution learns which place of the face
    matters for each channel, where an average would forget the place.

    Args:
        layers: (channels, stride) of each 3x3 convolution.
        stem_width: Channels of the 5x5 stem.
        stem_stride: Stride of the stem.
        dimensions: Length of the embedding.
    """

    def __init__(self, layers: tuple[tuple[int, int], ...], stem_width: int, stem_stride: int, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.stem = _conv_bn_relu(3, stem_width, 5, stem_stride)
        inputs, size_px = stem_width, -(-INPUT_PX // stem_stride)
        body = []
        for width, stride in layers:
            body.append(_conv_bn_relu(inputs, width, 3, stride))
            inputs, size_px = width, -(-size_px // stride)
        self.body = nn.Sequential(*body)
        self.everywhere = nn.Conv2d(inputs, inputs, size_px, groups=inputs, bias=False)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, dimensions, bias=False)
        self.features = nn.BatchNorm1d(dimensions)
        self.features.weight.requires_grad = False
        for module in (*self.stem.modules(), *self.body.modules()):
            if isinstance(module, nn.Conv2d):
                # He et al. (2015), equation 10: without shortcuts the scale of the signal must survive every layer.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b d"]:
        x = self.bn(self.everywhere(self.body(self.stem(x))))
        return self.features(self.fc(x.flatten(1)))


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU())
