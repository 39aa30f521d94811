"""IResNet: the improved residual network of ArcFace, with insightface's state dict."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from recognition.backbones.convolution import INPUT_PX, convolution


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
        self.conv1 = convolution(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = convolution(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs)
        # Registered last, and only where there is one: the order of the keys in arcface_torch.
        self.downsample = (
            nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """The improved residual network of ArcFace, with the state-dict layout and the maths of arcface_torch.

    With the defaults for widths, strides and stem, `blocks=(2, 2, 2, 2)` is iresnet18; (3, 4, 6, 3) is 34, (3, 4, 14,
    3) is 50, (3, 13, 30, 3) is 100, (6, 26, 60, 6) is 200. A wider stem stride and fewer channels make the sizes that
    a laptop trains.

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
        self.conv1 = convolution(3, stem_width, stem_kernel, stem_stride)
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
