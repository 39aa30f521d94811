from functools import partial

import numpy as np
import onnx
import pytest
import torch
from insightface.model_zoo import get_model
from torch import nn

from recognition.backbones import BACKBONES, IR
from recognition.backbones.ir import IRUnit
from recognition.backbones.iresnet import IResNetBlock
from recognition.backbones.published import ChannelSwap
from recognition.export import export_onnx, load_onnx
from recognition.train import embed

MODELS = {
    **{name: BACKBONES[name] for name in ("iresnet_tiny", "residual_a", "plain_b")},
    "mobilefacenet": partial(BACKBONES["mobilefacenet"], dimensions=128),
    "ir_se": partial(IR, (1, 2, 1), (16, 32, 32), stem_width=16, squeeze_excite=True, dimensions=128),
    "swapped": lambda: ChannelSwap(BACKBONES["iresnet_tiny"]()),
}


@pytest.fixture(scope="module", params=list(MODELS))
def exported(request, tmp_path_factory):
    """A backbone with norms as after training, and its file."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
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


def test_the_export_has_no_norm_left_but_those_before_a_padded_or_a_flattened_layer(exported):
    model, path = exported
    kept = 0
    for module in model.modules():
        kinds = [type(child) for child in module.children()]
        if isinstance(module, IResNetBlock):
            kept += 1  # bn1
        elif isinstance(module, IRUnit):
            kept += 1  # res_layer.0
        elif nn.Dropout in kinds:
            kept += 1  # before the flattening
    graph = onnx.load(path).graph
    assert sum(node.op_type == "BatchNormalization" for node in graph.node) == kept
    assert path.stat().st_size <= 4.1 * sum(p.numel() for p in model.parameters()) + 100_000


def test_exporting_leaves_the_model_alone(exported):
    model, _ = exported
    assert any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    assert not any(isinstance(module, nn.Identity) for module in model.modules())
    assert all(module.weight is None for module in model.modules() if getattr(module, "affine", True) is False)


DESIGNS = ["iresnet_tiny", "residual_a", "plain_b"]


@pytest.mark.parametrize("exported", DESIGNS, indirect=True)
def test_what_was_exported_is_read_back_as_the_network_that_it_was(exported):
    model, path = exported
    again = MODELS[path.stem]()
    load_onnx(again, path)
    assert not again.training
    crops = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    crops.requires_grad_(True)
    expected = model(crops)
    scale = expected.std().item()
    torch.testing.assert_close(again(crops) / scale, expected / scale, atol=1e-4, rtol=0)
    ours, theirs = (torch.autograd.grad(network(crops).square().sum(), crops)[0] for network in (again, model))
    torch.testing.assert_close(ours / theirs.std(), theirs / theirs.std(), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("exported", ["iresnet_tiny"], indirect=True)
def test_a_network_of_another_design_is_refused_and_so_is_what_is_no_onnx(exported, tmp_path):
    _, path = exported
    with pytest.raises(ValueError, match="expected a network of the design asked for in"):
        load_onnx(MODELS["residual_a"](), path)
    (tmp_path / "x.onnx").write_text("no network")
    with pytest.raises(ValueError, match="expected an ONNX file in"):
        load_onnx(MODELS["iresnet_tiny"](), tmp_path / "x.onnx")
