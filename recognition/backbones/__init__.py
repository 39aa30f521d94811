"""Networks from a 112x112 face to a raw embedding.

Every backbone maps `Float32["b 3 112 112"]` (RGB, (x - 127.5) / 127.5) to `Float32["b d"]`, not normalised: the norm of
the raw vector carries quality, and flip fusion sums raw vectors. It tells d as `dimensions`. `BACKBONES` names the
configurations that a recipe may ask for:

    name                 parameters   multiply-adds
    iresnet18                24.0 M         2,610 M   insightface's r18
    iresnet34                34.1 M         4,460 M   r34
    iresnet50                43.6 M         6,309 M   r50
    iresnet100               65.2 M        12,090 M   r100
    iresnet200              118.8 M        23,419 M   r200
    mobilefacenet            2.06 M           438 M   mbf
    mobilefacenet_large      6.31 M         1,816 M   mbf_large
    ir50                     43.6 M         6,296 M   the IR-50 of TFace, AdaFace and CVLface
    ir_se50                  43.8 M         6,297 M   the same, weighing its channels
    iresnet_tiny             0.64 M            24 M   what a laptop trains in a minute
    residual_a               0.88 M            45 M   the bundled embedder A
    plain_b                  0.65 M            73 M   the bundled embedder B

Names that do not say so differ: "IR-50", "IResNet-50" and "ResNet-50" are used for each other in papers. Weights of
others are loaded by `recognition.backbones.published`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from recognition.backbones.convolution import INPUT_PX
from recognition.backbones.ir import IR
from recognition.backbones.iresnet import IResNet
from recognition.backbones.mobilefacenet import MobileFaceNet
from recognition.backbones.plain import PlainNet

__all__ = [
    "BACKBONES",
    "INPUT_PX",
    "IR",
    "IResNet",
    "MobileFaceNet",
    "PlainNet",
]

# `dropout=` may be given where the design has one: to the iresnets (0 as published) and the irs (0.4 as published).
BACKBONES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "iresnet18": partial(IResNet, blocks=(2, 2, 2, 2)),
        "iresnet34": partial(IResNet, blocks=(3, 4, 6, 3)),
        "iresnet50": partial(IResNet, blocks=(3, 4, 14, 3)),
        "iresnet100": partial(IResNet, blocks=(3, 13, 30, 3)),
        "iresnet200": partial(IResNet, blocks=(6, 26, 60, 6)),
        "mobilefacenet": MobileFaceNet,
        "mobilefacenet_large": partial(MobileFaceNet, blocks=(2, 8, 12, 4), scale=4),
        "ir50": IR,
        "ir_se50": partial(IR, squeeze_excite=True),
        "iresnet_tiny": partial(
            IResNet,
            blocks=(1, 2, 1),
            widths=(32, 64, 128),
            strides=(2, 2, 2),
            stem_width=24,
            stem_kernel=5,
            stem_stride=4,
            dimensions=128,
        ),
        "residual_a": partial(
            IResNet,
            blocks=(1, 3, 1),
            widths=(48, 80, 128),
            strides=(2, 2, 2),
            stem_width=32,
            stem_kernel=5,
            stem_stride=4,
            dimensions=128,
        ),
        "plain_b": partial(
            PlainNet,
            layers=((48, 1), (96, 2), (96, 1), (96, 1), (128, 2), (128, 1), (128, 1)),
            stem_width=32,
            stem_stride=4,
            dimensions=128,
        ),
    }
)
