import dataclasses

import numpy as np
import pytest
import torch

from generation import objectives
from generation.diffusion import Denoiser, alpha_bars
from generation.train.generator import GeneratorRecipe, train_generator
from generation.train.mirror import Mirror
from generation.train.photographs import Others, _of_another_person, draw
from tests.generation.small import NARROW
from tests.generation.train.small import DATA, StopError, quiet, stop
from tests.generation.train.two_processes import said_by_both

RECIPE = GeneratorRecipe(
    steps=6,
    batch_size=4,
    warmup_steps=2,
    precision="fp32",
    threads=1,
    checkpoint_every=3,
    partial_dropout=0.25,
    identity_term="none",
    attribute_weight=0.0,
)


def drawn(recipe=RECIPE, step=0, rank=0, ranks=1):
    return draw(DATA, Others(DATA.labels, DATA.sources), recipe, NARROW, step, rank, ranks, "cpu")


def test_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    whole = train_generator(DATA, NARROW, RECIPE, tmp_path / "whole", quiet)
    with pytest.raises(StopError, match="step 3/6"):
        train_generator(DATA, NARROW, RECIPE, tmp_path / "parts", stop)
    looks = []
    continued = train_generator(DATA, NARROW, RECIPE, tmp_path / "parts", quiet, lambda _, step: looks.append(step))
    assert looks == [4, 5, 6]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_the_work_of_another_recipe_is_refused_and_that_of_another_version_of_it(tmp_path):
    once = dataclasses.replace(RECIPE, steps=3)
    train_generator(DATA, NARROW, once, tmp_path, quiet)
    with pytest.raises(ValueError, match=r"'cross_pairs': 0\.2"):
        train_generator(DATA, NARROW, dataclasses.replace(once, cross_pairs=0.2), tmp_path, quiet)
    kept = torch.load(tmp_path / "denoiser.pt", weights_only=True)
    kept["recipe"].pop("identity_power")  # written before there was one
    torch.save(kept, tmp_path / "denoiser.pt")
    with pytest.raises(ValueError, match=r"expected a checkpoint of .*'identity_power'"):
        train_generator(DATA, NARROW, once, tmp_path, quiet)


def train(folder, say=print):
    return train_generator(DATA, NARROW, RECIPE, folder, say)


def test_two_processes_learn_what_one_does(by_two_processes, tmp_path):
    alone, folder = train(tmp_path, quiet), by_two_processes / "test_generator"
    assert said_by_both(folder).count("step 6/6") == 1  # the first process alone says and keeps
    both = Denoiser(NARROW)
    both.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True)["average"])
    # Compared by what they say: AdamW divides a gradient by its size, which magnifies rounding where it is next to 0.
    torch.testing.assert_close(said(alone), said(both), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(said(alone), said(untrained()), atol=1e-3)


@torch.no_grad()
def said(model):
    batch = drawn(step=99)
    told = model.condition(model.context(batch.vectors), batch.attributes, batch.asked, None, batch.circumstances)
    return model(batch.noise, batch.timesteps, told)


def untrained():
    torch.manual_seed(RECIPE.seed)
    return Denoiser(NARROW)


def test_each_process_takes_its_part_of_one_draw():
    whole = drawn()
    for rank in (0, 1):
        part = drawn(rank=rank, ranks=2)
        for field in dataclasses.fields(part):
            assert np.array_equal(getattr(part, field.name), getattr(whole, field.name)[2 * rank : 2 * rank + 2])


def test_a_step_is_drawn_by_its_number_and_the_seed():
    assert torch.equal(drawn(step=3).noise, drawn(step=3).noise)
    assert not torch.equal(drawn(step=3).noise, drawn(step=4).noise)
    assert not torch.equal(drawn(step=3).noise, drawn(dataclasses.replace(RECIPE, seed=32), step=3).noise)


def test_times_are_one_in_each_equal_part():
    times = drawn(dataclasses.replace(RECIPE, batch_size=100)).timesteps
    assert sorted((times // 10).tolist()) == list(range(100))


def test_shares_of_what_is_left_open_are_those_of_the_recipe():
    recipe = dataclasses.replace(
        RECIPE, batch_size=4000, identity_open=0.2, attributes_open=0.3, attribute_open=0.25, partial_dropout=0.5
    )
    batch = drawn(recipe)
    assert (~batch.someone).float().mean() == pytest.approx(0.2, abs=0.02)
    assert (batch.fate < 0.5).float().mean() == pytest.approx(0.5, abs=0.01)
    assert batch.asked.float().mean() == pytest.approx(0.7 * 0.75, abs=0.02)
    nothing_asked = 0.3 + 0.7 * 0.5**2 / 3  # a share s of attributes open, even from 0 to 0.5: E[s^2] = 0.25 / 3
    assert (~batch.asked.any(1)).float().mean() == pytest.approx(nothing_asked, abs=0.02)


def test_circumstances_are_told_of_the_picture_and_left_open_with_all_its_attributes():
    batch = drawn(dataclasses.replace(RECIPE, batch_size=400, attributes_open=0.3, attribute_open=0.0))
    left_open = ~batch.asked.any(1)
    assert 60 < left_open.sum() < 180
    assert batch.circumstances[left_open].isnan().all()
    rows = batch.rows[~left_open.numpy()]
    assert np.array_equal(batch.circumstances[~left_open].numpy(), DATA.circumstances[rows])


def test_a_denoiser_that_is_told_circumstances_is_not_trained_without(tmp_path):
    blind = dataclasses.replace(DATA, circumstances=None)
    with pytest.raises(ValueError, match="circumstances: expected 50 numbers of each picture, got 0"):
        train_generator(blind, NARROW, RECIPE, tmp_path, quiet)
    untold = dataclasses.replace(NARROW, circumstances=0)
    with pytest.raises(ValueError, match="circumstances: expected 0 numbers of each picture, got 50"):
        train_generator(DATA, untold, RECIPE, tmp_path, quiet)
    train_generator(blind, untold, dataclasses.replace(RECIPE, steps=1, warmup_steps=1), tmp_path, quiet)


def test_a_source_is_another_usable_picture_of_the_person_wherever_there_is_one():
    others, usable = Others(DATA.labels, DATA.sources), set(DATA.sources.tolist())
    seen = {row: set() for row in range(len(DATA.labels))}
    for chance in np.linspace(0, 0.999, 12):
        for row, source in enumerate(others.of(np.arange(len(DATA.labels)), np.full(len(DATA.labels), chance))):
            seen[row].add(int(source))
    for row, sources in seen.items():
        of_the_person = {r for r in usable if DATA.labels[r] == DATA.labels[row]} - {row}
        assert sources == (of_the_person or {row})


def test_no_cross_pairs_means_that_every_picture_has_its_own_vector():
    rng = torch.Generator().manual_seed(RECIPE.seed * 1_000_003)
    rows = torch.randint(0, len(DATA.labels), (RECIPE.batch_size,), generator=rng)
    own = drawn(dataclasses.replace(RECIPE, cross_pairs=0.0))
    assert np.array_equal(own.vectors, DATA.vectors[rows])
    crossed = drawn(dataclasses.replace(RECIPE, cross_pairs=1.0, batch_size=200))
    own = drawn(dataclasses.replace(RECIPE, cross_pairs=0.0, batch_size=200))
    alike = torch.isclose(crossed.vectors, own.vectors, atol=1e-6).all(1).float().mean()
    assert alike == pytest.approx(5 / 20, abs=0.1)  # person 1, and the one picture of person 2 that is a source


def test_the_mean_of_a_persons_other_pictures_leaves_the_picture_itself_out():
    others = Others(DATA.labels, DATA.sources)
    rows = np.array([0, 4, 8, 12])
    told = others.mean_of(DATA.vectors, rows, np.full(4, 0.6), 3)
    # Person 0 has three sources, of which 0 is one; person 1 none; person 2 none beside 8; person 3 three beside 12.
    for seen, chosen in zip(told, ([2, 3], [4], [8], [13, 14, 15]), strict=True):
        mean = DATA.vectors[chosen].sum(0)
        if chosen == [2, 3]:  # the one that comes first is taken twice
            mean = mean + DATA.vectors[3]
        np.testing.assert_allclose(seen, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_stranger_is_somebody_else_of_the_batch():
    labels = np.array([3, 3, 5, 3, 5])
    assert _of_another_person(labels).tolist() == [2, 2, 3, 4, 0]
    assert _of_another_person(np.array([1, 1])).tolist() == [0, 1]


SEES = torch.randn(3 * 4 * 4, 8, generator=torch.Generator().manual_seed(4))
MIRROR = Mirror(  # "pictures" of three channels from latents of two, and a "face" that is linear in them
    lambda latents: torch.cat([latents, latents[:, :1]], 1), lambda crops: crops.flatten(1) @ SEES
)


def seen_cosine(model, recipe):
    """Mean cosine of who is seen in x0 estimates and who was asked for."""
    batch = drawn(dataclasses.replace(recipe, batch_size=64), step=99)
    bar = alpha_bars()[batch.timesteps]
    noisy = objectives.noised(batch.latents, batch.noise, bar)
    with torch.no_grad():
        told = model.condition(model.context(batch.vectors), batch.attributes, batch.asked)
        clean = objectives.clean_estimate("v", model(noisy, batch.timesteps, told), noisy, bar)
    early = batch.timesteps < 500
    seen = MIRROR.embed(MIRROR.show(clean, batch.to_crop)[1])
    return torch.nn.functional.cosine_similarity(seen, batch.vectors)[early].mean().item()


def test_identity_terms_draw_pictures_towards_who_was_asked_for(tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=25, batch_size=8, peak_lr=3e-3, identity_open=0.0, cross_pairs=0.0)
    cosines = {}
    for term in ("none", "cosine", "triplet"):
        told = dataclasses.replace(recipe, identity_term=term, identity_weight=3.0)
        model = train_generator(DATA, NARROW, told, tmp_path / term, quiet, mirror=MIRROR)
        cosines[term] = seen_cosine(model, told)
    assert cosines["cosine"] > cosines["none"] + 0.02
    assert cosines["triplet"] > cosines["none"] + 0.02


def test_rows_too_noisy_for_an_identity_term_are_not_decoded(tmp_path):
    decoded = []

    def decode(latents):
        decoded.append(len(latents))
        return torch.cat([latents, latents[:, :1]], 1)

    recipe = dataclasses.replace(
        RECIPE,
        steps=1,
        batch_size=20,
        identity_open=0.0,
        identity_term="cosine",
        looked_below=0.5,
        looked_above=0.2,
    )
    train_generator(DATA, NARROW, recipe, tmp_path, quiet, mirror=Mirror(decode, MIRROR.embed))
    assert decoded == [6]  # of 20 times, one in each twentieth, from 0.2 to 0.5


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"prediction": "x0"}, "prediction: expected one of v, epsilon, got 'x0'"),
        ({"partial_dropout": 1.0}, "partial_dropout: expected 0 to less than 1, got 1.0"),
        ({"cross_pairs": 1.5}, "cross_pairs: expected 0 to 1, got 1.5"),
        ({"cross_mean": 0}, "cross_mean: expected at least 1, got 0"),
        ({"peak_lr": float("nan")}, "peak_lr: expected more than 0, got nan"),
        ({"identity_term": "euclid"}, "identity_term: expected one of none, cosine, triplet, got 'euclid'"),
        ({"looked_above": 0.7}, "looked_above: expected 0 to less than looked_below, got 0.7"),
        ({"attribute_weight": -0.1}, "attribute_weight: expected at least 0, got -0.1"),
        ({"identity_power": -1.0}, "identity_power: expected at least 0, got -1.0"),
        ({"looked_below": 0.0}, "looked_below: expected more than 0, at most 1, got 0.0"),
    ],
)
def test_a_recipe_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        GeneratorRecipe(**wrong)


def test_data_that_do_not_fit_are_refused(tmp_path):
    other = dataclasses.replace(DATA, vectors=np.zeros((20, 9), np.float32))
    with pytest.raises(ValueError, match=r"vectors: expected shape \(20, 8\), got \(20, 9\)"):
        train_generator(other, NARROW, RECIPE, tmp_path, quiet)
    cosine = dataclasses.replace(RECIPE, identity_term="cosine")
    with pytest.raises(ValueError, match="identity_term: expected a mirror that embeds for 'cosine', got none"):
        train_generator(DATA, NARROW, cosine, tmp_path, quiet)
    with pytest.raises(ValueError, match="to_crop: expected what aligns each picture for terms that look"):
        train_generator(dataclasses.replace(DATA, to_crop=None), NARROW, cosine, tmp_path, quiet, mirror=MIRROR)
    told = dataclasses.replace(RECIPE, attribute_weight=0.1)
    with pytest.raises(ValueError, match=r"attribute_weight: expected a mirror with a reader for 0\.1, got none"):
        train_generator(DATA, NARROW, told, tmp_path, quiet, mirror=MIRROR)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step(tmp_path):
    broken = dataclasses.replace(DATA, latents=np.full_like(DATA.latents, np.nan))
    with pytest.raises(ValueError, match="expected a finite loss, got nan at step 0"):
        train_generator(broken, NARROW, RECIPE, tmp_path, quiet)
