"""Models from files: run as insightface runs them, and refused when they are broken, hostile or of something else."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import UNKNOWN_EPOCH, Settings, load_model, model_files
from generation.weights import FOLDER
from recognition.backbones import BACKBONES
from recognition.export import export_onnx


def toy_onnx(path: Path, shape=("N", 3, 112, 112), kind=TensorProto.FLOAT, scaled=False, outputs=1) -> Path:
    """A linear map of 16x16 means; with nodes named as mxnet names its scaling where asked for."""
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    constants = [numpy_helper.from_array(np.random.default_rng(0).normal(size=(147, 8)).astype(dtype), "w")]
    scaling = {"m": 127.5, "s": 1 / 127.5} if scaled else {}
    constants += [numpy_helper.from_array(np.array(value, dtype), name) for name, value in scaling.items()]
    nodes = [helper.make_node("Sub", ["data", "m"], ["sub"], "Sub0")] if scaled else []
    nodes += [helper.make_node("Mul", ["sub", "s"], ["x"], "Mul0")] if scaled else []
    pool = {"kernel_shape": [16, 16], "strides": [16, 16]}
    nodes += [
        helper.make_node("AveragePool", ["x" if scaled else "data"], ["pool"], "pool", **pool),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "w"], ["out"], "dense"),
    ]
    if list(shape[1:]) != [3, 112, 112]:
        nodes = [helper.make_node("ReduceMean", ["data"], ["out"], "mean", axes=[2, 3], keepdims=0)]
    named = [helper.make_tensor_value_info("out", kind, [shape[0], None])]
    if outputs == 2:
        named.append(helper.make_tensor_value_info("flat", kind, [shape[0], 147]))
    graph = helper.make_graph(nodes, "toy", [helper.make_tensor_value_info("data", kind, shape)], named, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture
def crops():
    return np.random.default_rng(1).integers(0, 255, (5, 112, 112, 3)).astype(np.uint8)


def by_hand(crops, order=slice(None)):
    """What the toy makes of scaled crops."""
    x = (crops[..., order].transpose(0, 3, 1, 2).astype(np.float64) - 127.5) / 127.5
    means = x.reshape(len(x), 3, 7, 16, 7, 16).mean((3, 5)).reshape(len(x), 147)
    return means @ np.random.default_rng(0).normal(size=(147, 8)).astype(np.float32)


def test_a_bundled_embedder_gives_what_insightface_gives(crops):
    path = FOLDER / "embedder_a.onnx"
    ours = load_model(path, Settings(device="cpu"))
    theirs = ArcFaceONNX(str(path)).get_feat([np.ascontiguousarray(crop[..., ::-1]) for crop in crops])
    np.testing.assert_allclose(ours(crops), theirs, atol=1e-4)
    assert ours.about["provider"] == "CPUExecutionProvider"
    assert ours.about["checkpoint"] == UNKNOWN_EPOCH


@pytest.mark.parametrize("scaled", [False, True])
def test_scaling_inside_a_graph_is_seen_by_insightfaces_rule(tmp_path, crops, scaled):
    path = toy_onnx(tmp_path / "toy.onnx", scaled=scaled)
    model, theirs = load_model(path), ArcFaceONNX(str(path))
    assert (model.mean, model.std) == (theirs.input_mean, theirs.input_std) == ((0, 1) if scaled else (127.5, 127.5))
    np.testing.assert_allclose(model(crops), by_hand(crops), atol=1e-4)


def test_channels_are_swapped_when_asked_for_and_means_can_be_given(tmp_path, crops):
    path = toy_onnx(tmp_path / "toy.onnx")
    np.testing.assert_allclose(
        load_model(path, Settings(bgr=True))(crops), by_hand(crops, slice(None, None, -1)), atol=1e-4
    )
    other = load_model(path, Settings(mean=0.0, std=255.0))
    assert (other.about["input_mean"], other.about["input_std"]) == (0.0, 255.0)
    assert np.abs(other(crops) - by_hand(crops)).max() > 0.1


@pytest.mark.parametrize("batch", [1, 3])
def test_a_graph_of_a_fixed_batch_is_filled_up(tmp_path, crops, batch):
    model = load_model(toy_onnx(tmp_path / "toy.onnx", shape=(batch, 3, 112, 112)))
    np.testing.assert_allclose(model(crops), by_hand(crops), atol=1e-4)


def test_a_graph_in_half_precision_is_fed_in_it_and_told(tmp_path, crops):
    model = load_model(toy_onnx(tmp_path / "toy.onnx", kind=TensorProto.FLOAT16))
    assert model.about["precision"] == "fp16"
    np.testing.assert_allclose(model(crops), by_hand(crops), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"shape": ("N", 3, 128, 128)}, r"expected input \(N, 3, 112, 112\) of floats, got \['N', 3, 128, 128\]"),
        ({"shape": ("N", 112, 112, 3)}, r"expected input \(N, 3, 112, 112\)"),
        ({"outputs": 2}, r"expected one input and one output, got 1 \(data\) and 2 \(out, flat\)"),
    ],
)
def test_a_graph_of_something_else_is_refused(tmp_path, arguments, fault):
    with pytest.raises(ValueError, match=rf"toy\.onnx: {fault}"):
        load_model(toy_onnx(tmp_path / "toy.onnx", **arguments))


def test_a_graph_that_reads_a_file_elsewhere_is_refused(tmp_path):
    path = toy_onnx(tmp_path / "toy.onnx")
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../etc/passwd"), ("length", "10")):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"toy\.onnx: refused: it reads a tensor from '\.\./\.\./etc/passwd'"):
        load_model(path)


def test_a_missing_an_empty_and_a_strange_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.onnx: expected a model, found none"):
        load_model(tmp_path / "gone.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"empty\.onnx: expected a model, found an empty file"):
        load_model(tmp_path / "empty.onnx")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a\.txt: expected a name ending in \.onnx, \.pt"):
        load_model(tmp_path / "a.txt")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_graph_raises_nothing_but_value_errors(tmp_path, data):
    whole = toy_onnx(tmp_path / "toy.onnx").read_bytes()
    content, path = bytearray(whole), tmp_path / "hurt.onnx"
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(1, len(content) - 1))]
    else:
        text = [at for at in range(len(content)) if at < 12 or at > len(content) - 250]  # not in the weights
        for at in data.draw(st.lists(st.sampled_from(text), min_size=1, max_size=4)):
            content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        model = load_model(path)
        model(np.zeros((2, 112, 112, 3), np.uint8))
    except ValueError as fault:
        assert "hurt.onnx" in str(fault)  # noqa: PT017


@pytest.fixture
def trained(tmp_path):
    """A checkpoint as training leaves it, and its network."""
    torch.manual_seed(0)
    network = BACKBONES["iresnet_tiny"]().eval()
    saved = {"recipe": "c0ffee", "losses": [3.0, 2.0], "model": network.state_dict(), "average": {}}
    torch.save(saved, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt", network, saved


def of_torch(network, crops):
    x = (torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32)) - 127.5) / 127.5
    with torch.inference_mode():
        return network(x).numpy()


def test_our_checkpoint_is_run_and_says_epoch_and_recipe(trained, crops):
    path, network, _ = trained
    model = load_model(path, Settings(backbone="iresnet_tiny", device="cpu"))
    np.testing.assert_allclose(model(crops), of_torch(network, crops), atol=1e-3)  # values reach 50
    assert (model.about["recipe_sha256"], model.about["checkpoint"]) == ("c0ffee", "last epoch so far: epoch 2")
    swapped = load_model(path, Settings(backbone="iresnet_tiny", device="cpu", bgr=True))
    np.testing.assert_allclose(swapped(crops), of_torch(network, crops[..., ::-1].copy()), atol=1e-3)  # values reach 50


def test_a_running_average_is_what_training_gives_so_it_is_what_is_scored(trained, crops):
    path, _, saved = trained
    torch.manual_seed(1)
    average = BACKBONES["iresnet_tiny"]().eval()
    torch.save({**saved, "average": average.state_dict()}, path)
    model = load_model(path, Settings(backbone="iresnet_tiny", device="cpu"))
    np.testing.assert_allclose(model(crops), of_torch(average, crops), atol=1e-3)  # values reach 50


def test_half_precision_is_near_and_told(trained, crops):
    path, network, _ = trained
    model = load_model(path, Settings(backbone="iresnet_tiny", device="cpu", fp16=True))
    one, other = model(crops), of_torch(network, crops)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert (cosine > 0.999).all()
    assert model.about["precision"] == "fp16"


def test_weights_of_others_go_through_the_published_loader(trained, crops, tmp_path):
    _, network, _ = trained
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    model = load_model(tmp_path / "backbone.pth", Settings(backbone="iresnet_tiny", device="cpu"))
    np.testing.assert_allclose(model(crops), of_torch(network, crops), atol=1e-3)  # values reach 50
    assert model.about["channel_order"] == "RGB"


def test_weights_without_a_network_or_of_another_are_refused(trained):
    path, *_ = trained
    with pytest.raises(ValueError, match=r"checkpoint\.pt: backbone: expected the name of the network"):
        load_model(path)
    with pytest.raises(ValueError, match=r"backbone: expected one of .*iresnet_tiny.*, got 'resnext'"):
        load_model(path, Settings(backbone="resnext"))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected the weights of plain_b"):
        load_model(path, Settings(backbone="plain_b"))


class Calls:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_or_damaged_checkpoint_is_refused_and_nothing_of_it_runs(trained, tmp_path):
    path, *_ = trained
    proof = tmp_path / "it-ran"
    whole = path.read_bytes()
    for content in (
        pickle.dumps(Calls(f"touch {proof}")),
        whole[:200],
        whole[: len(whole) // 2],
        whole[:-30],
        b"not a checkpoint",
        pickle.dumps({"recipe": 1}),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt|published"):
            load_model(path, Settings(backbone="iresnet_tiny"))
    assert not proof.exists()


def test_a_run_is_its_recognisers_and_tells_recipe_and_last_epoch(tmp_path):
    with torch.random.fork_rng():
        network = BACKBONES["iresnet_tiny"]()
    for name in ("model", "model_1", "model_10", "model_2"):
        (tmp_path / name).mkdir()
        said = {"recipe_sha256": "ab" * 32, "losses": [1.0] * 8, "seed": 5}
        (tmp_path / name / "model.json").write_text(json.dumps(said))
        (tmp_path / name / "recogniser.onnx").write_bytes(b"x")
    export_onnx(network, tmp_path / "model" / "recogniser.onnx")
    files = model_files(tmp_path)
    assert [file.parent.name for file in files] == ["model", "model_1", "model_2", "model_10"]
    about = load_model(files[0]).about
    assert (about["recipe_sha256"], about["checkpoint"]) == ("ab" * 32, "last epoch, 8 of 8, by rule")
    (tmp_path / "model" / "model.json").rename(tmp_path / "model" / "train.json")  # as `facemint train` leaves it
    assert load_model(files[0]).about == about
    (tmp_path / "model" / "model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model\.json: expected what a training says"):
        load_model(files[0])


def test_a_folder_of_checkpoints_is_not_chosen_from_in_silence(tmp_path):
    for name in ("epoch_1.pt", "epoch_2.pt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected one model, found 2: epoch_1\.pt, epoch_2\.pt.* --choose-on SET"):
        model_files(tmp_path)
    (tmp_path / "epoch_2.pt").unlink()
    assert model_files(tmp_path) == [tmp_path / "epoch_1.pt"]
    with pytest.raises(ValueError, match="found none"):
        model_files(tmp_path / "gone")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"device": "tpu"}, "device: expected cpu or cuda, got 'tpu'"),
        ({"batch": 0}, "batch, threads: expected at least 1 and 0, got 0, 0"),
        ({"mean": 1.0}, "mean, std: expected both or neither"),
        ({"mean": 1.0, "std": 0.0}, "std > 0, got 1.0, 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        Settings(**arguments)
