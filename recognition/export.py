"""Writes a backbone as an ONNX file that insightface takes for one of its own recognition models."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from recognition.backbones import INPUT_PX


def export_onnx(model: nn.Module, path: Path) -> None:
    """Writes the float32 graph, atomically: `input.1` (N, 3, 112, 112) -> `embedding` (N, d), any N.

    The input is RGB (x - 127.5) / 127.5, the output raw.

    BatchNorm that follows a convolution or the last linear layer is folded into it; one that comes before a padded
    convolution cannot be, because the padding is zero after it.
    """
    model = _with_folded_head(copy.deepcopy(model).cpu().float().eval())
    part = path.with_suffix(".part")
    # insightface takes a graph with a node "Sub..." and a node "Mul..." among its first eight for one that normalises
    # its input itself. The exporter names nodes by their path in the network, /conv1/Conv and so on: none is named so.
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, INPUT_PX, INPUT_PX),),
        str(part),
        input_names=["input.1"],
        output_names=["embedding"],
        dynamic_axes={"input.1": {0: "N"}, "embedding": {0: "N"}},
        opset_version=17,
        dynamo=False,  # the other exporter needs onnxscript, which the factory does not install
    )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _with_folded_head(model: nn.Module) -> nn.Module:
    """Replaces `fc` and `features`, where a model has them, by one linear layer."""
    if isinstance(model.fc, nn.Linear) and isinstance(model.features, nn.BatchNorm1d):
        model.fc = fuse_linear_bn_eval(model.fc, model.features)
        model.features = nn.Identity()
    return model
