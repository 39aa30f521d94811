import numpy as np
import onnx
import pytest
import torch
from insightface.model_zoo import get_model

from recognition.backbones import BACKBONES
from recognition.export import export_onnx
from recognition.train import embed


@pytest.fixture(scope="module", params=["iresnet_tiny", "residual_a", "plain_b"])
def exported(request, tmp_path_factory):
    """A backbone with norms as after training, and its file."""
    torch.manual_seed(0)
    model = BACKBONES[request.param]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    export_onnx(model, path)
    return model.eval(), path


def test_insightface_reads_the_export_and_computes_what_torch_computes(exported):
    model, path = exported
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    reader = get_model(str(path), providers=["CPUExecutionProvider"])
    assert (reader.input_mean, reader.input_std, reader.input_name) == (127.5, 127.5, "input.1")
    through_insightface = reader.get_feat([crop[:, :, ::-1] for crop in crops])  # it takes BGR
    expected = embed(model, crops, flip=False)
    scale = expected.std()  # random weights make large numbers
    np.testing.assert_allclose(through_insightface / scale, expected / scale, atol=1e-4, rtol=0)


def test_the_export_takes_any_number_of_pictures(exported):
    _, path = exported
    reader = get_model(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        assert reader.get_feat([np.zeros((112, 112, 3), np.uint8)] * count).shape == (count, 128)


def test_the_export_is_small_and_its_norms_are_folded(exported):
    model, path = exported
    assert path.stat().st_size <= 4_000_000
    graph = onnx.load(path).graph
    left = sum(node.op_type == "BatchNormalization" for node in graph.node)
    before_a_padded_convolution = sum(name.endswith("bn1") and "layer" in name for name, _ in model.named_modules())
    flattened = hasattr(model, "bn2")
    assert left == before_a_padded_convolution + flattened


def test_exporting_leaves_the_model_alone(exported):
    model, _ = exported
    assert isinstance(model.features, torch.nn.BatchNorm1d)
