import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import multiprocessing, nn
from torch.nn import functional as F

from recognition.margins import AdaFace, ArcFace, CosFace, ElasticFace, Filtered
from recognition.partial_fc import PartialFC, _initial, part_of
from tests.recognition import spread
from tests.recognition.test_margins import GOLDEN, INSIGHTFACE

MARGINS = [
    ArcFace(0.3, 16.0, "exact"),
    ArcFace(0.3, 16.0, "straight_through"),
    CosFace(0.2, 16.0),
    AdaFace(0.3, scale=16.0, decay=0.4),
    ElasticFace("arc", 0.3, 0.1, 16.0),
    ElasticFace("arc_plus", 0.3, 0.1, 16.0),
    ElasticFace("cos", 0.2, 0.1, 16.0),
    ElasticFace("cos_plus", 0.2, 0.1, 16.0),
    Filtered(ArcFace(0.3, 16.0), 0.2),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    """What two processes found, in the order of their ranks."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(spread.one_of, (2, folder, MARGINS), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def head_of(weight: torch.Tensor, margin, sample_rate: float = 1.0) -> PartialFC:
    head = PartialFC(*weight.shape, margin, sample_rate).to(weight.dtype)
    head.load_whole(weight)
    return head


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_two_processes_compute_what_one_computes(two, margin):
    one, parts = spread.steps(margin), [told[str(margin)] for told in two]
    assert [(part["first"], part["count"]) for part in parts] == [(0, 4), (4, 3)]
    for step in range(spread.STEPS):
        for part in parts:
            assert part["loss"][step] == pytest.approx(one["loss"][step], abs=1e-5)
            torch.testing.assert_close(part["centres"][step], one["centres"][step], atol=1e-5, rtol=1e-5)
        embeddings = torch.cat([part["embeddings"][step] for part in parts])
        torch.testing.assert_close(embeddings, one["embeddings"][step], atol=1e-5, rtol=1e-5)
    for name, value in one["margin"].items():
        assert all(torch.equal(value, part["margin"][name]) for part in parts)


def test_the_first_centres_do_not_depend_on_the_number_of_processes(two):
    one = spread.steps(MARGINS[0])["initial"]
    assert all(torch.equal(told[str(MARGINS[0])]["initial"], one) for told in two)


def test_a_checkpoint_of_two_processes_is_that_of_one(two):
    whole = torch.arange(35).float().reshape(7, 5)
    assert torch.equal(head_of(whole, CosFace()).whole_weight(), whole)
    assert torch.equal(two[0]["mine"], whole[:4])
    assert torch.equal(two[1]["mine"], whole[4:])
    for told in two:
        assert torch.equal(told["loaded"], whole)
        assert told["momentum"][:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_two_processes_share_the_softmax_over_what_each_of_them_sampled(two):
    first, second = (told["sampled"] for told in two)
    assert first["loss"] == second["loss"]
    for step in range(spread.STEPS):
        assert torch.equal(first["centres"][step], second["centres"][step])
        sampled = first["centres"][step].any(1).nonzero().squeeze(1)
        assert len(sampled) == 4  # half of 4 and of 3, rounded
        assert (sampled < 4).sum() == 2
        assert {0, 6} <= set(sampled.tolist())
        embeddings, labels = spread.batch(step, spread.FEW)
        cosine = F.normalize(embeddings) @ F.normalize(first["initial"][sampled]).T
        logits = MARGINS[0].module()(cosine, torch.searchsorted(sampled, labels), embeddings.norm(dim=1))
        assert first["loss"][step] == pytest.approx(F.cross_entropy(logits, torch.searchsorted(sampled, labels)).item())


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("sizes", r"batches of one size on all processes, got \[4, 3\]"),
        ("labels", r"values in \[0, 7\), got some from 0 to 7"),
        ("classes", "at least one for each of 2, got 1"),
        ("made before", r"expected rank and processes \(0, 1\), got \(., 2\)"),
    ],
)
def test_both_processes_refuse_what_one_of_them_does_wrong(two, fault, line):
    assert all(re.search(line, told["refused"][fault]) for told in two)


@pytest.mark.parametrize("name", INSIGHTFACE)
def test_loss_and_gradients_equal_insightfaces_partial_fc_but_for_its_clamp(name):
    recorded = np.load(GOLDEN / f"{name}.npz")
    embeddings, labels = (torch.from_numpy(recorded[key]) for key in ("embeddings", "labels"))
    head = head_of(torch.from_numpy(recorded["weight"]), INSIGHTFACE[name])
    loss = head(embeddings.requires_grad_(), labels)
    loss.backward()
    np.testing.assert_allclose(loss.item(), recorded["loss"], rtol=1e-5)
    np.testing.assert_allclose(embeddings.grad, recorded["pfc_grad_embeddings"], atol=2e-6, rtol=1e-4)
    np.testing.assert_allclose(head.weight.grad, recorded["pfc_grad_weight"], atol=2e-6, rtol=1e-4)
    with torch.no_grad():
        each = torch.stack([head(embeddings[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    clamped = each.clamp(max=-np.log(1e-30)).mean().item()
    np.testing.assert_allclose(clamped, recorded["pfc_loss"], rtol=1e-5)


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_without_sampling_it_is_the_full_softmax(margin):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(30, 8, generator=generator).requires_grad_()
    raw, labels = torch.randn(12, 8, generator=generator) * 9, torch.randint(30, (12,), generator=generator)
    mine, theirs = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    head, module = head_of(weight.detach(), margin), margin.module()
    torch.manual_seed(1)
    loss = head(mine, labels)
    loss.backward()
    torch.manual_seed(1)
    cosine = (theirs / theirs.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=1, keepdim=True)).T
    expected = F.cross_entropy(module(cosine, labels, raw.norm(dim=1)), labels)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(head.weight.grad, weight.grad, atol=1e-6, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), classes=st.integers(1, 40), sample_rate=st.floats(0.01, 1.0))
def test_sampling_keeps_every_positive_and_its_share_and_leaves_the_others_alone(data, classes, sample_rate):
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=12)))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    head = PartialFC(classes, 4, CosFace(0.1, 4.0), sample_rate)
    seen = []
    head.margin.register_forward_pre_hook(lambda module, given: seen.append(given))
    head(torch.randn(len(labels), 4), labels).backward()
    (cosine, places, _), touched = seen[0], head.weight.grad.any(1)
    positives = set(labels.tolist())
    assert cosine.shape[1] == max(len(positives), round(sample_rate * classes), 1)
    assert touched.sum() <= cosine.shape[1]
    if cosine.shape[1] > 1:  # a softmax of one class has no gradient
        assert touched[labels].all()
    assert (places >= 0).all()
    assert len(places.unique()) == len(positives)


def test_sampled_columns_are_the_batchs_own_classes_where_the_labels_say():
    torch.manual_seed(0)
    head = PartialFC(50, 6, CosFace(0.1, 4.0), 0.2)
    labels = torch.tensor([49, 0, 17, 17])
    centres, places = head._sample(labels)
    assert centres.shape == (10, 6)
    assert torch.equal(centres[places], head.weight[labels])


def test_another_step_samples_other_negatives_and_a_seed_repeats_them():
    head = PartialFC(100, 3, CosFace(), 0.3)
    samples = []
    for seed in (4, None, 4):
        if seed is not None:
            torch.manual_seed(seed)
        samples.append(head._sample(torch.tensor([1]))[0])
    assert torch.equal(samples[0], samples[2])
    assert not torch.equal(samples[0], samples[1])


def test_processes_that_are_seeded_alike_sample_unlike_places():
    chosen = []
    for rank in (0, 1):
        head = head_of(torch.arange(300.0).reshape(100, 3), CosFace(), 0.3)
        head.rank = rank
        torch.manual_seed(0)
        chosen.append(head._sample(torch.tensor([1]))[0])
    assert not torch.equal(chosen[0], chosen[1])


def test_processes_of_unlike_counts_take_as_many_numbers_from_the_generator():
    after = []
    for classes in (10, 11):
        head = PartialFC(classes, 3, CosFace(), 0.5)
        torch.manual_seed(0)
        head._sample(torch.tensor([1]))
        after.append(torch.rand(1))
    assert after[0] == after[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_in_and_the_loss_is_float32_under_autocast_too(dtype):
    torch.manual_seed(0)
    head = PartialFC(40, 16, ArcFace(0.5, 64.0))
    seen = []
    head.margin.register_forward_hook(lambda module, given, logits: seen.append(logits.dtype))
    raw, labels = torch.randn(6, 16).to(dtype), torch.arange(6)
    embeddings = raw.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(embeddings, labels)
    loss.backward()
    assert (seen, loss.dtype, embeddings.grad.dtype) == ([torch.float32], torch.float32, dtype)
    assert torch.equal(loss, head(raw.float(), labels))
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_the_largest_losses_are_finite(margin):
    """Every face at the opposite of its own centre and exactly at another's: far beyond where exp overflows."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    head = head_of(weight, margin if isinstance(margin, Filtered) else replace(margin, scale=1e4))
    embeddings = torch.tensor([[6e4, 0.0], [-6e4, 0.0]], dtype=torch.float16).requires_grad_()
    loss = head(embeddings, torch.tensor([1, 0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_a_loss_beyond_the_clamp_of_insightface_is_told_in_full():
    head = head_of(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), CosFace(0.0, 100.0))
    assert head(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).item() == pytest.approx(200.0)


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(1, 200), dimensions=st.integers(1, 40), processes=st.integers(1, 8), seed=st.integers(0, 99))
def test_centres_drawn_in_blocks_are_those_of_one_draw(classes, dimensions, processes, seed):
    parts = []
    for rank in range(processes):
        torch.manual_seed(seed)
        first, count = part_of(classes, rank, processes)
        parts.append(_initial(classes, dimensions, first, count, block=16))
        after = torch.rand(1)
    torch.manual_seed(seed)
    assert torch.equal(torch.cat(parts), torch.empty(classes, dimensions).normal_(0.0, 0.01))
    assert after == torch.rand(1)


def test_one_process_keeps_nothing_but_its_centres_and_the_margins_state():
    assert PartialFC(5, 3, ArcFace()).state_dict().keys() == {"weight"}
    assert PartialFC(5, 3, AdaFace()).state_dict().keys() == {"weight", "margin.mean", "margin.std"}
    assert isinstance(PartialFC(5, 3, CosFace()).weight, nn.Parameter)


def test_one_process_of_a_group_is_as_one_without(tmp_path: Path):
    alone = spread.steps(MARGINS[0])
    meet = f"file://{tmp_path / 'meet'}"
    torch.distributed.init_process_group("gloo", meet, timedelta(seconds=60), world_size=1, rank=0)
    try:
        in_group = spread.steps(MARGINS[0])
    finally:
        torch.distributed.destroy_process_group()
    assert in_group["loss"] == alone["loss"]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: PartialFC(0, 4, CosFace()), r"PartialFC\.classes: expected at least one for each of 1, got 0"),
        (lambda: PartialFC(4, 0, CosFace()), r"PartialFC\.dimensions: expected at least 1, got 0"),
        (lambda: PartialFC(4, 4, CosFace(), 0.0), r"PartialFC\.sample_rate: expected a value in \(0, 1\], got 0\.0"),
        (lambda: PartialFC(4, 4, CosFace(), 1.5), r"sample_rate: expected a value in \(0, 1\], got 1\.5"),
        (lambda: PartialFC(4, 4, CosFace())(torch.ones(1, 4), torch.tensor([4])), "got some from 4 to 4"),
        (lambda: PartialFC(4, 4, CosFace())(torch.ones(1, 4), torch.tensor([-1])), "got some from -1 to -1"),
        (lambda: PartialFC(4, 4, CosFace())(torch.ones(0, 4), torch.ones(0).long()), "got an empty batch"),
        (lambda: PartialFC(4, 4, CosFace())(torch.ones(1, 5), torch.tensor([0])), "expected length 4, got 5"),
        (lambda: PartialFC(4, 4, CosFace()).load_whole(torch.ones(5, 4)), r"4 centres of length 4, got \(5, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(make, fault):
    with pytest.raises(ValueError, match=fault):
        make()
