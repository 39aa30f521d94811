import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recognition.margins import ArcFace, CosFace, MarginHead

GOLDEN = Path(__file__).parents[1] / "golden" / "margin_losses"


def head_of(weight, margin) -> MarginHead:
    head = MarginHead(*weight.shape, margin).to(weight.dtype)
    head.weight.data = weight
    return head


@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("insightface_arcface_m0.5", ArcFace(0.5, 64.0, "straight_through")),
        ("insightface_cosface_m0.4", CosFace(0.4, 64.0)),
    ],
)
def test_loss_and_gradients_equal_insightface(name, margin):
    recorded = np.load(GOLDEN / f"{name}.npz")
    embeddings = torch.from_numpy(recorded["embeddings"]).requires_grad_()
    labels = torch.from_numpy(recorded["labels"])
    head = head_of(torch.from_numpy(recorded["weight"]), margin)
    logits = head(embeddings, labels)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    np.testing.assert_allclose(logits.detach(), recorded["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss.item(), recorded["loss"], rtol=1e-5)
    np.testing.assert_allclose(embeddings.grad, recorded["grad_embeddings"], atol=2e-6, rtol=1e-4)
    np.testing.assert_allclose(head.weight.grad, recorded["grad_weight"], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "margin"),
    [("insightface_arcface_m0.5", ArcFace(0.5, 64.0)), ("insightface_cosface_m0.4", CosFace(0.4, 64.0))],
)
def test_logits_equal_insightface_in_float64(name, margin):
    recorded = np.load(GOLDEN / f"{name}.npz")
    logits = margin(torch.from_numpy(recorded["cosine_f64"]), torch.from_numpy(recorded["labels"]))
    np.testing.assert_allclose(logits, recorded["logits_f64"], atol=1e-9, rtol=1e-9)


def test_exact_arcface_equals_the_adaface_repository():
    recorded = np.load(GOLDEN / "adafacerepo_arcface_m0.5.npz")
    features = torch.from_numpy(recorded["features"][0]).requires_grad_()
    labels = torch.from_numpy(recorded["labels"][0])
    head = head_of(torch.from_numpy(np.ascontiguousarray(recorded["kernel"].T)), ArcFace(0.5, 64.0, "exact"))
    logits = head(features, labels)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    np.testing.assert_allclose(logits.detach(), recorded["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss.item(), recorded["loss"], rtol=1e-5)
    np.testing.assert_allclose(head.weight.grad.T, recorded["grad_kernel"], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(("key", "margin"), [("arcface", ArcFace(0.5, 64.0)), ("cosface", CosFace(0.4, 64.0))])
def test_a_row_without_a_true_class_gets_no_margin(key, margin):
    recorded = np.load(GOLDEN / "insightface_ignored_labels.npz")
    logits = margin(torch.from_numpy(recorded["cosine"]), torch.from_numpy(recorded["labels"]))
    np.testing.assert_allclose(logits, recorded[f"logits_{key}"], atol=1e-4, rtol=0)


def test_the_exact_gradient_is_the_slope_of_the_formula_and_the_straight_through_one_is_one():
    theta, margin_rad = 1.0, 0.5
    slopes = {}
    for gradient in ("exact", "straight_through"):
        cosine = torch.tensor([[math.cos(theta), 0.1]], dtype=torch.float64, requires_grad=True)
        ArcFace(margin_rad, 1.0, gradient)(cosine, torch.tensor([0]))[0, 0].backward()
        slopes[gradient] = cosine.grad[0, 0].item()
    assert slopes["exact"] == pytest.approx(math.sin(theta + margin_rad) / math.sin(theta))
    assert slopes["straight_through"] == pytest.approx(1.0)


def test_a_face_exactly_at_its_centre_has_finite_gradients():
    for margin in (ArcFace(gradient="exact"), ArcFace(gradient="straight_through"), CosFace()):
        cosine = torch.tensor([[1.0, -1.0]], requires_grad=True)
        margin(cosine, torch.tensor([0])).sum().backward()
        assert torch.isfinite(cosine.grad).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArcFace(margin_rad=-0.1),
        lambda: ArcFace(scale=0),
        lambda: ArcFace(gradient="true"),
        lambda: CosFace(margin_cosine=1.5),
    ],
)
def test_a_margin_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
