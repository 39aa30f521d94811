from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from generation import objectives
from generation.diffusion import alpha_bars
from stages.embed.align import similarity, template

GOLDEN = Path(__file__).parents[1] / "golden" / "idbooth_triplet" / "triplet.npz"


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def latents():
    return normal(6, 4, 5, 5)


@pytest.fixture
def noise():
    return normal(6, 4, 5, 5, seed=1)


BARS = torch.tensor([0.9999, 0.9, 0.5, 0.1, 0.01, 0.001])


@pytest.mark.parametrize("kind", ["v", "epsilon"])
def test_what_is_to_be_predicted_leads_back_to_latents_and_noise(kind, latents, noise):
    noisy = objectives.noised(latents, noise, BARS)
    wanted = objectives.target(kind, latents, noise, BARS)
    torch.testing.assert_close(objectives.clean_estimate(kind, wanted, noisy, BARS), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(objectives.noise_estimate(kind, wanted, noisy, BARS), noise, atol=1e-5, rtol=1e-5)


def test_v_of_pure_noise_is_the_picture_with_its_sign_changed(latents, noise):
    nothing = torch.zeros(6)
    assert torch.equal(objectives.target("v", latents, noise, nothing), -latents)
    assert torch.equal(objectives.clean_estimate("v", -latents, noise, nothing), latents)


def test_noised_latents_of_unit_variance_keep_it(latents):
    rows = normal(4000, 1, 2, 2, seed=2)
    noisy = objectives.noised(rows, normal(4000, 1, 2, 2, seed=3), torch.full((4000,), 0.3))
    assert noisy.var() == pytest.approx(1, abs=0.03)


def test_an_unknown_prediction_is_refused(latents, noise):
    with pytest.raises(ValueError, match="'epsilon' or 'v', got 'x0'"):
        objectives.target("x0", latents, noise, BARS)


def test_min_snr_weights_are_those_of_the_paper():
    gamma, bars = 5.0, alpha_bars("v")[[0, 100, 500, 900, 998]]
    for bar, v, epsilon in zip(
        bars.tolist(),
        objectives.min_snr_weight("v", bars, gamma),
        objectives.min_snr_weight("epsilon", bars, gamma),
        strict=True,
    ):
        snr = bar / (1 - bar)
        assert v == pytest.approx(min(snr, gamma) / (snr + 1), rel=1e-3)
        assert epsilon == pytest.approx(min(snr, gamma) / snr, rel=1e-3)


def test_min_snr_weights_are_finite_where_there_is_no_signal():
    nothing = torch.zeros(1)
    assert objectives.min_snr_weight("v", nothing, 5.0).item() == 0
    assert objectives.min_snr_weight("epsilon", nothing, 5.0).item() == 1


def test_a_weight_of_half_counts_a_row_half():
    predicted, wanted = torch.zeros(2, 1, 1, 1), torch.tensor([2.0, 4.0])[:, None, None, None]
    assert objectives.denoising_loss(predicted, wanted, torch.tensor([1.0, 0.5])).item() == (4 + 8) / 2


def test_partial_dropout_drops_components_and_keeps_the_mean():
    context, p = torch.ones(2000, 50), 0.25
    kept = torch.rand(2000, 50, generator=torch.Generator().manual_seed(0)) >= p
    dropped = objectives.partially_dropped(context, kept, p)
    assert torch.equal(dropped == 0, ~kept)
    assert torch.equal(dropped[kept], torch.full((int(kept.sum()),), 1 / 0.75))
    assert dropped.mean() == pytest.approx(1, abs=0.01)


def test_an_identity_left_open_is_nobody_whole_and_the_others_are_untouched():
    context, nobody = normal(4, 7), normal(7, seed=1)
    someone = torch.tensor([True, False, True, False])
    told = objectives.with_identity_open(context, nobody, someone)
    assert torch.equal(told[someone], context[someone])
    assert torch.equal(told[~someone], nobody.expand(2, 7))


def test_pictures_are_placed_as_the_embedder_aligns_them():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (3, 9, 9, 3)).astype(np.float32)
    pictures = np.stack([cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC) for picture in coarse])
    landmarks = template(112) + rng.normal(0, 6, (3, 5, 2))
    landmarks[1] = landmarks[1] * 0.6 + 40  # a small face aside: a part of the crop is off the picture
    to_crop = similarity(landmarks, template(112))
    black = np.stack([cv2.warpAffine(p, m, (112, 112)) for p, m in zip(pictures, to_crop, strict=True)])
    assert (black[1] == 0).any()
    edge = cv2.BORDER_REPLICATE
    expected = np.stack(
        [cv2.warpAffine(p, m, (112, 112), borderMode=edge) for p, m in zip(pictures, to_crop, strict=True)]
    )
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    placed = objectives.placed(pixels, torch.from_numpy(to_crop).float())
    off = np.abs((placed.permute(0, 2, 3, 1).numpy() + 1) * 127.5 - expected)
    assert off.mean() < 0.3  # warpAffine rounds places to 1/32 of a pixel
    assert np.quantile(off, 0.999) < 4


def test_a_picture_placed_where_it_is_stays_as_it_is():
    pixels = normal(2, 3, 20, 20).clamp(-1, 1)
    same = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(objectives.placed(pixels, same), pixels, atol=1e-5, rtol=0)


def test_pictures_are_placed_as_exactly_where_a_training_computes_in_half_precision():
    pixels = torch.nn.functional.interpolate(normal(2, 3, 14, 14), size=112, mode="bicubic")
    to_crop = torch.tensor([[[1.13, 0.0, -7.3], [0.0, 1.13, -5.9]]]).expand(2, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = objectives.placed(pixels, to_crop)
    assert torch.equal(mixed, objectives.placed(pixels, to_crop))


def test_kl_is_that_of_two_normal_distributions():
    mean, log_variance = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(objectives.kl_divergence(mean, log_variance), expected)


def test_an_edge_that_is_missing_is_seen_and_another_brightness_is_not():
    edge = torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 1.0
    assert objectives.edge_distance(edge, torch.zeros_like(edge)).item() == pytest.approx(4 / 12)
    assert objectives.edge_distance(edge, edge + 3).item() == 0


def test_perceptual_distance_looks_at_directions_of_features():
    ours, turned = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    ours[:, 0], turned[:, 1] = 5.0, 1.0
    assert objectives.perceptual_distance([ours, ours], [ours * 3, turned]).item() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN, allow_pickle=False)


@pytest.mark.parametrize(("suffix", "dtype", "within"), [("", torch.float32, 1e-6), ("_f64", torch.float64, 1e-7)])
def test_identity_terms_are_those_recorded_from_id_booth(golden, suffix, dtype, within):
    seen, wanted, other = (torch.from_numpy(golden[k]).to(dtype) for k in ("anchor", "positive", "negative"))
    weight = objectives.lateness_weight(torch.from_numpy(golden["timesteps"]), int(golden["num_train_timesteps"]))
    np.testing.assert_allclose(weight, golden["weight"], atol=1e-6)
    for term, name, gradient in (
        (lambda x: objectives.identity_triplet(x, wanted, other), "triplet", "grad_anchor"),
        (lambda x: objectives.identity_distance(x, wanted), "identity", "grad_anchor_identity"),
    ):
        x = seen.clone().requires_grad_()
        value = term(x)
        np.testing.assert_allclose(value.detach(), golden[name + suffix], atol=within, rtol=within)
        weighted = weight * value
        np.testing.assert_allclose(weighted.detach(), golden[f"weighted_{name}{suffix}"], atol=within, rtol=within)
        weighted.sum().backward()
        np.testing.assert_allclose(x.grad, golden[gradient + suffix], atol=within, rtol=1e-5)


def test_a_face_near_enough_to_its_person_has_no_triplet_loss_and_no_pull():
    seen = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = objectives.identity_triplet(seen, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), margin=0.9)
    loss.sum().backward()
    assert loss.item() == 0
    assert torch.equal(seen.grad, torch.zeros(1, 2))
