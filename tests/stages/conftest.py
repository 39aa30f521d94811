"""Small weights for the embedder: networks of formula and chance, listed as the bundled ones are."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.embed.align import template

SPACE, DIMENSIONS = "tiny-1", 24


def write_graph(path, nodes, constants, outputs):
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 112, 112])
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [pixels], named, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_detector(path, wander=0.0):
    """Landmarks on the template, pushed about by what the picture shows; a face wherever the picture is not dark."""
    rng = np.random.default_rng(0)
    constants = {
        "weight": (wander * rng.standard_normal((147, 10))).astype(np.float32),
        "bias": template(112).reshape(10).astype(np.float32),
        "rows": np.array([-1, 5, 2], dtype=np.int64),
        "gain": np.full((1, 1), 10, dtype=np.float32),
        "offset": np.full(1, 7.5, dtype=np.float32),
        "flat": np.array([-1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["points"]),
        helper.make_node("Reshape", ["points", "rows"], ["landmarks"]),
        helper.make_node("ReduceMean", ["features"], ["brightness"], axes=[1], keepdims=1),
        helper.make_node("Gemm", ["brightness", "gain", "offset"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("Reshape", ["probability", "flat"], ["found"]),
    ]
    write_graph(path, nodes, constants, {"landmarks": ["N", 5, 2], "found": ["N"]})


def write_embedder(path, scale=1.0, first_nodes=("Conv_0", "Relu_0")):
    rng = np.random.default_rng(1)
    constants = {
        "kernel": rng.standard_normal((8, 3, 5, 5)).astype(np.float32),
        "weight": (scale * rng.standard_normal((8 * 14 * 14, DIMENSIONS)) / 40).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["seen"], first_nodes[0], strides=[8, 8], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["seen"], ["lit"], first_nodes[1]),
        helper.make_node("Flatten", ["lit"], ["features"], "Flatten_0"),
        helper.make_node("MatMul", ["features", "weight"], ["embedding"], "Gemm_0"),
    ]
    write_graph(path, nodes, constants, {"embedding": ["N", DIMENSIONS]})


def write_listing(folder):
    spaces = {"detector": ("", 0), "embedder_a": (SPACE, DIMENSIONS)}
    listing = {
        name: {
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest(),
            "space": space,
            "dimensions": dimensions,
        }
        for name, (space, dimensions) in spaces.items()
    }
    (folder / "weights.json").write_text(json.dumps(listing))


@pytest.fixture
def weights(tmp_path):
    write_detector(tmp_path / "detector.onnx", wander=3.0)
    write_embedder(tmp_path / "embedder_a.onnx")
    write_listing(tmp_path)
    return tmp_path
