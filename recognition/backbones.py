"""Networks from a 112x112 face to a raw embedding.

Every backbone maps `Float32["b 3 112 112"]` (RGB, (x - 127.5) / 127.5) to `Float32["b d"]`, not normalised: the norm of
the raw vector carries quality, and flip fusion sums raw vectors. `BACKBONES` names the configurations that a recipe may
ask for.

`IResNet` keeps the state-dict layout of insightface's arcface_torch, so that its checkpoints load with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

INPUT_PX = 112


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is ceil(input / stride) pixels wide."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class IResNetBlock(nn.Module):
    """BN, 3x3 conv, BN, PReLU, 3x3 conv with the stride, BN, added to the input (projected if its shape changes).

    The "IR" unit of ArcFace (Deng et al., 2019), section 3.1: https://arxiv.org/abs/1801.07698

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Stride of the second convolution.
        project: Whether the shortcut is a 1x1 convolution with BN. True for the first block of a stage.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs)
        # Registered last, and only where there is one: the order of the keys in arcface_torch.
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """The improved residual network of ArcFace, with the state-dict layout and the maths of arcface_torch.

    With the defaults for widths, strides and stem, `blocks=(2, 2, 2, 2)` is iresnet18; (3, 4, 6, 3) is 34, (3, 4, 14,
    3) is 50, (3, 13, 30, 3) is 100. A wider stem stride and fewer channels make the sizes that a laptop trains.

    Args:
        blocks: Residual blocks in each stage.
        widths: Channels of each stage.
        strides: Stride of the first block of each stage.
        stem_width: Channels of the stem.
        stem_kernel: Kernel of the stem in pixels, odd.
        stem_stride: Stride of the stem.
        dimensions: Length of the embedding.
        dropout: Probability of dropping a feature before the last linear layer, in [0, 1).

    Raises:
        ValueError: If blocks, widths and strides differ in length.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        widths: tuple[int, ...] = (64, 128, 256, 512),
        strides: tuple[int, ...] = (2, 2, 2, 2),
        stem_width: int = 64,
        stem_kernel: int = 3,
        stem_stride: int = 1,
        dimensions: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not len(blocks) == len(widths) == len(strides):
            raise ValueError(f"IResNet: expected one width and one stride a stage, got {blocks=} {widths=} {strides=}")
        self.dimensions = dimensions
        self.conv1 = _conv(3, stem_width, stem_kernel, stem_stride)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.prelu = nn.PReLU(stem_width)
        self.stages = tuple(f"layer{i + 1}" for i in range(len(blocks)))
        inputs, size_px = stem_width, -(-INPUT_PX // stem_stride)
        for stage, count, width, stride in zip(self.stages, blocks, widths, strides, strict=True):
            first = IResNetBlock(inputs, width, stride, project=True)
            rest = (IResNetBlock(width, width, 1, project=False) for _ in range(count - 1))
            self.add_module(stage, nn.Sequential(first, *rest))
            inputs, size_px = width, -(-size_px // stride)
        self.bn2 = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs * size_px**2, dimensions)
        self.features = nn.BatchNorm1d(dimensions)
        # Frozen at 1, as in arcface_torch: a learned scale would only undo the normalisation that follows.
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, x: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b d"]:
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.features(self.fc(self.dropout(self.bn2(x)).flatten(1)))


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
    return nn.Sequential(_conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU())


# Sizes: multiply-adds of one forward pass, and parameters.
BACKBONES: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "iresnet18": partial(IResNet, blocks=(2, 2, 2, 2)),  # 24.0 M parameters
        "iresnet34": partial(IResNet, blocks=(3, 4, 6, 3)),  # 34.1 M parameters
        "iresnet50": partial(IResNet, blocks=(3, 4, 14, 3)),  # 43.6 M parameters
        "iresnet100": partial(IResNet, blocks=(3, 13, 30, 3)),  # 65.2 M parameters
        "iresnet_tiny": partial(  # 24 M multiply-adds, 0.64 M parameters: what a laptop trains in a minute
            IResNet,
            blocks=(1, 2, 1),
            widths=(32, 64, 128),
            strides=(2, 2, 2),
            stem_width=24,
            stem_kernel=5,
            stem_stride=4,
            dimensions=128,
        ),
        "residual_a": partial(  # 45 M multiply-adds, 0.88 M parameters: the bundled embedder A
            IResNet,
            blocks=(1, 3, 1),
            widths=(48, 80, 128),
            strides=(2, 2, 2),
            stem_width=32,
            stem_kernel=5,
            stem_stride=4,
            dimensions=128,
        ),
        "plain_b": partial(  # 73 M multiply-adds, 0.65 M parameters: the bundled embedder B
            PlainNet,
            layers=((48, 1), (96, 2), (96, 1), (96, 1), (128, 2), (128, 1), (128, 1)),
            stem_width=32,
            stem_stride=4,
            dimensions=128,
        ),
    }
)
