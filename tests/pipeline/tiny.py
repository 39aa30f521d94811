"""A weights folder like the bundled one, of tiny networks: two spaces that see the same faces differently."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.stages.conftest import write_detector

SPACES = {"embedder_a": "bundled-a-2", "embedder_b": "bundled-b-2"}
DIMENSIONS = 32


def write_weights(folder: Path) -> Path:
    """`detector`, `embedder_a` and `embedder_b`, and the `weights.json` that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_detector(folder / "detector.onnx", wander=3.0)
    listing = {"detector": {"file": "detector.onnx", "space": "", "dimensions": 0}}
    for seed, (name, space) in enumerate(SPACES.items()):
        _write_embedder(folder / f"{name}.onnx", seed)
        listing[name] = {"file": f"{name}.onnx", "space": space, "dimensions": DIMENSIONS}
    for entry in listing.values():
        entry["sha256"] = hashlib.sha256((folder / str(entry["file"])).read_bytes()).hexdigest()
    (folder / "weights.json").write_text(json.dumps(listing))
    return folder


def _write_embedder(path: Path, seed: int) -> None:
    """A random projection of the blurred crop: enough to tell two crops apart, and the same ones together."""
    rng = np.random.default_rng(seed)
    constants = {"weight": rng.standard_normal((3 * 14 * 14, DIMENSIONS)).astype(np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["blurred"], "Pool_0", kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["blurred"], ["features"], "Flatten_0"),
        helper.make_node("MatMul", ["features", "weight"], ["embedding"], "Gemm_0"),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 112, 112])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIMENSIONS])
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [pixels], [out], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
