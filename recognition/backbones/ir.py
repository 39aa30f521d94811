"""IR and IR-SE: the residual network of TFace, AdaFace and CVLface, with their state dict.

It differs from insightface's IResNet in three places: the shortcut is a 1x1 convolution only where the number of
channels changes (not at the first unit of the first stage), the last BatchNorm has no scale and no shift, and a unit
may weigh its channels. Layers and keys: https://github.com/mk-minchul/AdaFace (net.py, c60eaa7), of which
https://github.com/Tencent/TFace (torchkit/backbone/model_irse.py, 171ec14) and https://github.com/mk-minchul/CVLface
(models/iresnet, d3d09c9) have the same. The IR-SE-50 of TreB1eN/InsightFace_Pytorch is another network: no BatchNorm
between a unit's first convolution and its PReLU, and a last BatchNorm with scale and shift.
"""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from recognition.backbones.convolution import INPUT_PX, convolution


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a number in (0, 1) that the means of all channels decide.

    Hu et al. (2018), equations 2 to 4, https://arxiv.org/abs/1709.01507; as 1x1 convolutions without bias.

    Args:
        channels: Channels that come in and go out.
        reduction: By how much the layer in the middle is narrower.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = convolution(channels, channels // reduction, 1)
        self.fc2 = convolution(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class IRUnit(nn.Module):
    """BN, 3x3 conv, BN, PReLU, 3x3 conv with the stride, BN and perhaps a squeeze-and-excite, added to the shortcut.

    The shortcut takes every stride-th pixel; where the number of channels changes it is a 1x1 convolution with BN.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Stride of the second convolution and of the shortcut.
        squeeze_excite: Whether the channels are weighed.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            convolution(inputs, outputs, 3),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            convolution(outputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
        )
        if squeeze_excite:
            self.res_layer.add_module("se_block", SqueezeExcite(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IR(nn.Module):
    """The residual network of TFace and AdaFace: a 3x3 stem, stages of units that halve the picture each, a linear end.

    `blocks=(3, 4, 14, 3)` is IR-50, and IR-SE-50 with `squeeze_excite`; (3, 13, 30, 3) is what its makers call IR-101.
    AdaFace's own module divides the result by its norm; this one gives it raw, as CVLface's does.

    Args:
        blocks: Units in each stage.
        widths: Channels of each stage; with `squeeze_excite`, multiples of 16.
        stem_width: Channels of the stem.
        squeeze_excite: Whether each unit weighs its channels.
        dimensions: Length of the embedding.
        dropout: Probability of dropping a feature before the linear layer, in [0, 1); 0.4 in all three sources.

    Raises:
        ValueError: If blocks and widths differ in length, or a width is too narrow to be squeezed.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (3, 4, 14, 3),
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stem_width: int = 64,
        squeeze_excite: bool = False,
        dimensions: int = 512,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths):
            raise ValueError(f"IR: expected one width a stage, got {blocks=} {widths=}")
        if squeeze_excite and any(width % 16 for width in widths):
            raise ValueError(f"IR: expected widths that are multiples of 16 to be squeezed, got {widths=}")
        self.dimensions = dimensions
        self.input_layer = nn.Sequential(
            convolution(3, stem_width, 3), nn.BatchNorm2d(stem_width), nn.PReLU(stem_width)
        )
        size_px = INPUT_PX
        for _ in blocks:
            size_px = -(-size_px // 2)
        # Registered before the body, as in the sources: the order of the keys.
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(widths[-1] * size_px**2, dimensions),
            nn.BatchNorm1d(dimensions, affine=False),
        )
        units: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = stem_width
        for count, width in zip(blocks, widths, strict=True):
            for place in range(count):
                units[str(len(units))] = IRUnit(inputs, width, 1 if place else 2, squeeze_excite)
                inputs = width
        self.body = nn.Sequential(units)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # He et al. (2015), equation 14, in all three sources for the linear layer, too.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b d"]:
        return self.output_layer(self.body(self.input_layer(x)))
