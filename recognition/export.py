"""Writes a backbone as an ONNX file that insightface takes for one of its own recognition models."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from recognition.backbones import INPUT_PX
from recognition.files import whole_path


def export_onnx(model: nn.Module, path: Path) -> None:
    """Writes the float32 graph, atomically: `input.1` (N, 3, 112, 112) -> `embedding` (N, d), any N.

    The input is RGB (x - 127.5) / 127.5, the output raw.

    BatchNorm that follows a convolution or the last linear layer is folded into it; one that comes before a padded
    convolution cannot be, because the padding is zero after it.
    """
    model = _with_folded_head(copy.deepcopy(model).cpu().float().eval())
    # insightface takes a graph with a node "Sub..." and a node "Mul..." among its first eight for one that normalises
    # its input itself. The exporter names nodes by their path in the network, /conv1/Conv and so on: none is named so.
    with whole_path(path) as part:
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


def _with_folded_head(model: nn.Module) -> nn.Module:
    """Replaces each linear layer that a BatchNorm follows by one linear layer that does both."""
    for module in model.modules():
        names = list(module._modules)
        for name, after in pairwise(names):
            linear, norm = module._modules[name], module._modules[after]
            if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                setattr(module, name, _folded(linear, norm))
                setattr(module, after, nn.Identity())
    return model


def _folded(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    if not norm.affine:  # torch's function asks for a scale and a shift
        norm.weight = nn.Parameter(torch.ones(norm.num_features))
        norm.bias = nn.Parameter(torch.zeros(norm.num_features))
    return fuse_linear_bn_eval(linear, norm)
