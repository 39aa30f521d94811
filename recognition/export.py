"""Writes a backbone as an ONNX file that insightface takes for one of its own recognition models; reads it back."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
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


@torch.no_grad()
def load_onnx(model: nn.Module, path: Path) -> None:
    """Fills a backbone with what `export_onnx` wrote of one of the same design: a network that can be differentiated.

    A BatchNorm that the file has folded into the layer before it keeps that layer's bias, and nothing else to do.

    Raises:
        ValueError: If the file is no ONNX, or is of another design.
    """
    try:
        graph = onnx.load(path, format="protobuf").graph  # whatever the file is called
    except DecodeError as error:
        raise ValueError(f"expected an ONNX file in {path}, got: {error}") from error
    tensors = {kept.name: torch.from_numpy(numpy_helper.to_array(kept).copy()) for kept in graph.initializer}
    read = {}
    for node in graph.node:
        values = [tensors[name] for name in node.input if name in tensors]
        if node.op_type == "Identity" and values:  # of equal tensors the exporter keeps one
            tensors[node.output[0]] = values[0]
        elif values:
            read[_module_of(node.name)] = values
    modules = {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    folded = {name for name, module in modules.items() if isinstance(module, FOLDED) and name not in read}
    unlike = sorted(read.keys() ^ (modules.keys() - folded))
    if unlike:
        raise ValueError(f"expected a network of the design asked for in {path}, got another; they differ in {unlike}")
    for name in folded:
        _leave_alone(modules[name])
    following = dict(pairwise(modules))
    for name, values in read.items():
        states = [*modules[name].parameters(recurse=False), *_statistics(modules[name])]
        if len(values) > len(states):  # the bias of a layer that has none, but a BatchNorm after it
            states.append(modules[following[name]].bias)
        for state, value in zip(states, values, strict=True):
            state.copy_(value.reshape(state.shape))
    model.eval()


FOLDED = (nn.BatchNorm1d, nn.BatchNorm2d)


def _module_of(node: str) -> str:
    """A node's module: "layer1.0.conv1" of "/layer1/layer1.0/conv1/Conv"."""
    places: list[str] = []
    for part in node.split("/")[1:-1]:
        if "." in part:  # a place in a row of modules, named after the row
            places.pop()
        places.append(part)
    return ".".join(places)


def _statistics(module: nn.Module) -> list[torch.Tensor]:
    return [kept for name, kept in module.named_buffers(recurse=False) if name.startswith("running_")]


def _leave_alone(norm: nn.Module) -> None:
    """Makes a BatchNorm of what comes in what goes out."""
    assert isinstance(norm, FOLDED)
    mean, variance = _statistics(norm)
    norm.weight.fill_(1)
    norm.bias.zero_()
    mean.zero_()
    variance.fill_(1 - norm.eps)
