import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from recognition.margins import IGNORED, AdaFace, ArcFace, CosFace, ElasticFace, Filtered, Margin

GOLDEN = Path(__file__).parents[1] / "golden" / "margin_losses"
INSIGHTFACE = {
    "insightface_arcface_m0.5": ArcFace(0.5, 64.0, "straight_through"),
    "insightface_cosface_m0.4": CosFace(0.4, 64.0),
    "insightface_arcface_m0.5_filter0.4": Filtered(ArcFace(0.5, 64.0, "straight_through"), 0.4),
    "insightface_cosface_m0.4_filter0.2": Filtered(CosFace(0.4, 64.0), 0.2),
}
MARGINS = [
    ArcFace(0.5, 64.0, "exact"),
    ArcFace(0.5, 64.0, "straight_through"),
    CosFace(0.4, 64.0),
    AdaFace(),
    ElasticFace("arc", 0.5, 0.05),
    ElasticFace("arc_plus", 0.5, 0.0175),
    ElasticFace("cos", 0.35, 0.05),
    ElasticFace("cos_plus", 0.35, 0.025),
    Filtered(ArcFace(0.5, 64.0), 0.4),
    Filtered(AdaFace(), 0.4),
]
FLOAT32 = {"logits": {"atol": 1e-4, "rtol": 0}, "loss": {"rtol": 1e-5}, "grad": {"atol": 2e-6, "rtol": 1e-4}}
FLOAT64 = {name: {"atol": 1e-9, "rtol": 1e-9} for name in FLOAT32}


def computed(features, centres, labels, logits_of) -> dict[str, np.ndarray]:
    """Logits, mean cross-entropy and gradients with respect to raw features, unit features and raw centres (C, D)."""
    features, centres = (torch.from_numpy(np.array(x)).requires_grad_() for x in (features, centres))
    labels = torch.from_numpy(np.array(labels))
    unit = F.normalize(features)
    unit.retain_grad()
    logits = logits_of(unit @ F.normalize(centres).T, labels, features.detach().norm(dim=1))
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return {
        "logits": logits.detach().numpy(),
        "loss": loss.detach().numpy(),
        "raw": features.grad.numpy(),
        "unit": unit.grad.numpy(),
        "centres": centres.grad.numpy(),
    }


@pytest.mark.parametrize("name", INSIGHTFACE)
def test_loss_and_gradients_equal_insightface(name):
    recorded = np.load(GOLDEN / f"{name}.npz")
    found = computed(recorded["embeddings"], recorded["weight"], recorded["labels"], INSIGHTFACE[name].module())
    np.testing.assert_allclose(found["logits"], recorded["logits"], **FLOAT32["logits"])
    np.testing.assert_allclose(found["loss"], recorded["loss"], **FLOAT32["loss"])
    np.testing.assert_allclose(found["raw"], recorded["grad_embeddings"], **FLOAT32["grad"])
    np.testing.assert_allclose(found["centres"], recorded["grad_weight"], **FLOAT32["grad"])


@pytest.mark.parametrize("name", [name for name in INSIGHTFACE if "filter" not in name])
def test_loss_and_gradients_equal_insightface_in_float64(name):
    recorded = np.load(GOLDEN / f"{name}.npz")
    embeddings, weight = (recorded[key].astype(np.float64) for key in ("embeddings", "weight"))
    found = computed(embeddings, weight, recorded["labels"], INSIGHTFACE[name].module())
    for key, name in (("logits", "logits"), ("loss", "loss"), ("raw", "grad_embeddings"), ("centres", "grad_weight")):
        np.testing.assert_allclose(found[key], recorded[f"{name}_f64"], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "margin"),
    [("arcface_m0.5", ArcFace(0.5, 64.0, "exact")), ("cosface_m0.4", CosFace(0.4, 64.0))],
)
def test_exact_margins_equal_the_adaface_repository(name, margin):
    recorded = np.load(GOLDEN / f"adafacerepo_{name}.npz")
    found = computed(recorded["features"][0], recorded["kernel"].T, recorded["labels"][0], margin.module())
    np.testing.assert_allclose(found["logits"], recorded["logits"], **FLOAT32["logits"])
    np.testing.assert_allclose(found["loss"], recorded["loss"], **FLOAT32["loss"])
    np.testing.assert_allclose(found["raw"], recorded["grad_raw_features"], **FLOAT32["grad"])
    np.testing.assert_allclose(found["unit"], recorded["grad_normalised_embeddings"], **FLOAT32["grad"])
    np.testing.assert_allclose(found["centres"].T, recorded["grad_kernel"], **FLOAT32["grad"])


@pytest.mark.parametrize("decay", [0.01, 1.0])
@pytest.mark.parametrize(("suffix", "tolerance"), [("", FLOAT32), ("_f64", FLOAT64)])
def test_three_steps_of_adaface_equal_the_adaface_repository(decay, suffix, tolerance):
    recorded = np.load(GOLDEN / f"adaface_talpha{decay}.npz")
    dtype = np.float64 if suffix else np.float32
    module = AdaFace(0.4, 0.333, 64.0, decay).module().to(torch.float64 if suffix else torch.float32)
    np.testing.assert_allclose([module.mean, module.std], [20, 100])
    for step in range(3):
        features, kernel = recorded["features"][step].astype(dtype), recorded["kernel"].astype(dtype)
        found = computed(features, kernel.T, recorded["labels"][step], module)
        np.testing.assert_allclose(module.mean, recorded[f"batch_mean{suffix}"][step + 1], rtol=1e-6)
        np.testing.assert_allclose(module.std, recorded[f"batch_std{suffix}"][step + 1], rtol=1e-6)
        np.testing.assert_allclose(found["logits"], recorded[f"logits{suffix}"][step], **tolerance["logits"])
        np.testing.assert_allclose(found["loss"], recorded[f"loss{suffix}"][step], **tolerance["loss"])
        for key, name in (("raw", "raw_features"), ("unit", "normalised_embeddings")):
            np.testing.assert_allclose(found[key], recorded[f"grad_{name}{suffix}"][step], **tolerance["grad"])
        np.testing.assert_allclose(found["centres"].T, recorded[f"grad_kernel{suffix}"][step], **tolerance["grad"])


@pytest.mark.parametrize("variant", ["arc", "arc_plus", "cos", "cos_plus"])
def test_elastic_margins_equal_the_elasticface_repository(variant):
    recorded = np.load(GOLDEN / f"elastic_{variant}.npz")
    module = ElasticFace(variant, recorded["mean"].item(), recorded["std"].item()).module()
    margins = torch.from_numpy(recorded["margins"][:, 0])
    found = computed(
        recorded["features"][0],
        recorded["kernel"].T,
        recorded["labels"][0],
        lambda cosine, labels, norms: module.with_margins(cosine, labels, margins),
    )
    np.testing.assert_allclose(found["logits"], recorded["logits"], **FLOAT32["logits"])
    np.testing.assert_allclose(found["loss"], recorded["loss"], **FLOAT32["loss"])
    np.testing.assert_allclose(found["raw"], recorded["grad_raw_features"], **FLOAT32["grad"])
    np.testing.assert_allclose(found["centres"].T, recorded["grad_kernel"], **FLOAT32["grad"])


@pytest.mark.parametrize(("key", "margin"), [("arcface", ArcFace(0.5, 64.0)), ("cosface", CosFace(0.4, 64.0))])
def test_a_row_without_a_true_class_is_as_insightface_has_it(key, margin):
    recorded = np.load(GOLDEN / "insightface_ignored_labels.npz")
    cosine, labels = (torch.from_numpy(recorded[name]) for name in ("cosine", "labels"))
    np.testing.assert_allclose(
        margin.module()(cosine, labels, torch.ones(6)), recorded[f"logits_{key}"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_a_row_without_a_true_class_gets_no_margin_and_changes_no_other_row(margin):
    cosine, norms = torch.linspace(-0.9, 0.3, 24).reshape(4, 6), torch.tensor([10.0, 20, 30, 40])
    labels = torch.tensor([0, IGNORED, 5, 2])
    torch.manual_seed(3)
    logits = margin.module()(cosine, labels, norms)
    torch.testing.assert_close(logits[1], 64 * cosine[1])
    alone = logits.clone()
    alone[[0, 2, 3], [0, 5, 2]] = 64 * cosine[[0, 2, 3], [0, 5, 2]]
    torch.testing.assert_close(alone, 64 * cosine)
    assert (logits[[0, 2, 3], [0, 5, 2]] < 64 * cosine[[0, 2, 3], [0, 5, 2]]).all()


@settings(max_examples=50, deadline=None)
@given(theta=st.floats(0.1, 2.0), margin_rad=st.floats(0.0, 1.0))
def test_the_exact_gradient_is_the_slope_of_the_formula_and_the_straight_through_one_is_one(theta, margin_rad):
    slopes = {}
    for gradient in ("exact", "straight_through"):
        cosine = torch.tensor([[math.cos(theta), 0.1]], dtype=torch.float64, requires_grad=True)
        logits = ArcFace(margin_rad, 1.0, gradient).module()(cosine, torch.tensor([0]), torch.ones(1))
        assert logits[0, 0].item() == pytest.approx(math.cos(theta + margin_rad))
        logits[0, 0].backward()
        slopes[gradient] = cosine.grad[0, 0].item()
    ratio = math.sin(theta + margin_rad) / math.sin(theta)
    assert slopes["exact"] / slopes["straight_through"] == pytest.approx(ratio)
    assert slopes["straight_through"] == pytest.approx(1.0)


@pytest.mark.parametrize("margin", MARGINS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_face_exactly_at_its_centre_or_opposite_to_it_has_finite_gradients(margin, dtype):
    cosine = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=dtype, requires_grad=True)
    logits = margin.module().to(dtype)(cosine, torch.tensor([0, 1]), torch.tensor([20.0, 25.0], dtype=dtype))
    logits.sum().backward()
    assert logits.dtype == dtype
    assert torch.isfinite(logits).all()
    assert torch.isfinite(cosine.grad).all()


def test_adaface_is_arcface_for_the_poorest_pictures_and_cosface_for_the_average_one():
    cosine, labels = torch.tensor([[0.6, 0.1], [0.6, 0.1], [0.6, 0.1]]), torch.tensor([0, 0, 0])
    module = AdaFace(margin=0.4, concentration=1.0).module().eval()
    module.std.fill_(1.0)
    poor, average, good = module(cosine, labels, torch.tensor([0.001, 20.0, 100.0]))[:, 0] / 64
    assert poor.item() == pytest.approx(math.cos(math.acos(0.6) + 0.4), abs=1e-6)
    assert average.item() == pytest.approx(0.6 - 0.4, abs=1e-6)
    assert good.item() == pytest.approx(math.cos(math.acos(0.6) - 0.4) - 0.8, abs=1e-6)


def test_adaface_leaves_its_statistics_alone_outside_training_and_takes_infinite_norms_for_100():
    module = AdaFace(decay=1.0).module().eval()
    cosine, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    module(cosine, labels, torch.tensor([1.0, 2.0]))
    assert (module.mean.item(), module.std.item()) == (20.0, 100.0)
    module.train()(cosine, labels, torch.tensor([math.inf, 0.0]))
    assert module.mean.item() == pytest.approx(50.0005)
    assert module.state_dict().keys() == {"mean", "std"}


def test_one_face_has_no_standard_deviation():
    with pytest.raises(ValueError, match="at least 2 faces in a batch, got 1"):
        AdaFace().module()(torch.zeros(1, 3), torch.tensor([0]), torch.ones(1))


def test_elastic_margins_come_from_the_global_generator_with_mean_and_deviation_as_told():
    module, labels = ElasticFace("cos", 0.35, 0.05, 1.0).module(), torch.zeros(20_000, dtype=torch.int64)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(-module(torch.zeros(20_000, 1), labels, torch.ones(20_000))[:, 0])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].mean().item() == pytest.approx(0.35, abs=0.002)
    assert draws[0].std().item() == pytest.approx(0.05, abs=0.002)


def test_elastic_plus_deals_by_the_sorting_permutation_as_its_authors_do():
    cosine = torch.tensor([[0.1], [0.7], [0.4]])
    margins = torch.tensor([0.3, 0.1, 0.2])
    module = ElasticFace("cos_plus", 0.2, 0.1, 1.0).module()
    lowered = module.with_margins(cosine, torch.zeros(3, dtype=torch.int64), margins)
    permutation, rising = [1, 2, 0], [0.1, 0.2, 0.3]  # the highest cosine is face 1's
    torch.testing.assert_close(cosine[:, 0] - lowered[:, 0], torch.tensor([rising[place] for place in permutation]))


def test_filtered_classes_have_a_logit_and_a_gradient_of_zero_and_the_own_class_never_is_one():
    cosine = torch.tensor([[0.9, 0.5, 0.3]], requires_grad=True)
    logits = Filtered(CosFace(0.1, 10.0), 0.4).module()(cosine, torch.tensor([0]), torch.ones(1))
    torch.testing.assert_close(logits, torch.tensor([[8.0, 0.0, 3.0]]))
    logits.sum().backward()
    torch.testing.assert_close(cosine.grad, torch.tensor([[10.0, 0.0, 10.0]]))


def test_the_fields_by_which_earlier_recipes_are_hashed_are_the_same():
    assert asdict(ArcFace(0.5, 32.0)) == {"margin_rad": 0.5, "scale": 32.0, "gradient": "straight_through"}
    assert asdict(CosFace(0.2, 24.0)) == {"margin_cosine": 0.2, "scale": 24.0}


def test_every_margin_is_one_and_no_two_are_hashed_alike():
    assert all(isinstance(margin, Margin) and margin.scale == 64 for margin in MARGINS)
    told = [str({"name": type(margin).__name__, **asdict(margin)}) for margin in MARGINS]
    assert len(set(told)) == len(MARGINS)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: ArcFace(margin_rad=-0.1), "ArcFace.margin_rad"),
        (lambda: ArcFace(scale=0), "ArcFace.scale"),
        (lambda: ArcFace(gradient="true"), "ArcFace.gradient"),
        (lambda: CosFace(margin_cosine=1.5), "CosFace.margin_cosine"),
        (lambda: CosFace(scale=math.inf), "CosFace.scale"),
        (lambda: AdaFace(margin=-0.4), "AdaFace.margin"),
        (lambda: AdaFace(concentration=0), "AdaFace.concentration"),
        (lambda: AdaFace(decay=0), "AdaFace.decay"),
        (lambda: AdaFace(scale=math.nan), "AdaFace.scale"),
        (lambda: ElasticFace("sphere", 0.5, 0.05), "ElasticFace.variant"),
        (lambda: ElasticFace("cos", 1.2, 0.05), "ElasticFace.mean"),
        (lambda: ElasticFace("arc", 0.5, -0.05), "ElasticFace.std"),
        (lambda: ElasticFace("arc", 0.5, 0.05, -1.0), "ElasticFace.scale"),
        (lambda: Filtered(CosFace(), 0.0), "Filtered.max_cosine"),
    ],
)
def test_a_margin_out_of_range_is_refused(make, fault):
    with pytest.raises(ValueError, match=f"{fault}: expected"):
        make()
