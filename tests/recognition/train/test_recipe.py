import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.weights.recipe import WeightsRecipe, embedder_recipe, polish
from recognition.augment import Augment, Compose, Erase, Flip
from recognition.margins import ArcFace, CosFace, Filtered
from recognition.train import Recipe, lr_at
from tests.recognition.train.conftest import RECIPE

ROOT = Path(__file__).resolve().parents[3]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    recipe = replace(RECIPE, epochs=10, warmup_epochs=2.0, peak_lr=0.1)
    rates = [lr_at(step, 100, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 200)
    assert rates[199] == rates[200] == 0.1
    assert rates[600] == pytest.approx(0.05)
    assert rates[999] < 1e-5
    assert np.diff(rates[200:]).max() <= 0


@pytest.mark.parametrize(("schedule", "half_way"), [("cosine", 0.5), ("polynomial", 0.25), ("step", 0.1)])
def test_each_schedule_is_where_its_formula_says_half_way(schedule, half_way):
    recipe = replace(RECIPE, epochs=10, warmup_epochs=0.0, peak_lr=1.0, schedule=schedule)
    assert lr_at(500, 100, recipe) == pytest.approx(half_way)


def test_the_hash_of_a_recipe_changes_with_every_part_of_it():
    recipes = [
        RECIPE,
        replace(RECIPE, seed=1),
        replace(RECIPE, margin=ArcFace(0.3)),
        replace(RECIPE, margin=CosFace(0.2)),
    ]
    recipes.append(replace(RECIPE, augment=Augment(flip=0.1)))
    assert len({recipe.sha256 for recipe in recipes}) == 5
    assert replace(RECIPE, seed=0).sha256 == RECIPE.sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "resnet"},
        {"optimizer": "adam"},
        {"schedule": "linear"},
        {"precision": "fp8"},
        {"dropout": 1.0},
        {"factor": 1.0},
        {"sample_rate": 0.0},
        {"accumulate": 3},
        {"milestones": (1.0,)},
        {"power": 0.0},
        {"clip_norm": math.inf},
        {"batches": "triplets"},
        {"few_pictures": "skip"},
        {"epochs": 0},
        {"batch_size": 1},
        {"peak_lr": -0.1},
        {"peak_lr": math.nan},
        {"warmup_epochs": 2.0},
        {"ema_decay": 1.0},
        {"threads": 0},
    ],
)
def test_a_recipe_out_of_range_names_the_value(changes):
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=name) as error:
        replace(RECIPE, **changes)
    assert str(value) in str(error.value)


def test_a_value_of_another_kind_is_named_where_no_type_checker_looks_on():
    """As it does in the tests, hence a process of its own."""
    refused = [
        ({"epochs": "ten"}, "Recipe.epochs: expected a whole number, got 'ten'"),
        ({"epochs": 1.5}, "Recipe.epochs: expected a whole number, got 1.5"),
        ({"batch_size": True}, "Recipe.batch_size: expected a whole number, got True"),
        ({"seed": None}, "Recipe.seed: expected a whole number, got None"),
        ({"peak_lr": "high"}, "Recipe.peak_lr: expected a number, got 'high'"),
        ({"margin": "arcface"}, "Recipe.margin: expected one of recognition's margins, got 'arcface'"),
        ({"augment": None}, "Recipe.augment: expected one of recognition's augmentations, got None"),
    ]
    code = f"""
from recognition.train import Recipe
for changes in {[changes for changes, _ in refused]}:
    try:
        print(Recipe(**changes))
    except ValueError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert said.stdout.splitlines() == [told for _, told in refused], said.stderr


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="ascending epochs between 0 and 2, got"):
        replace(RECIPE, schedule="step", milestones=(1.5, 1.0))
    with pytest.raises(ValueError, match="divisor of batch_size 16 that leaves at least 2 people, got 16"):
        replace(RECIPE, batches="pk", pictures_per_person=16)
    with pytest.raises(ValueError, match=r"expected micro-batches of equal size, of 2 or more of the 16"):
        replace(RECIPE, accumulate=16)


def test_milestones_are_epochs_from_the_start_each_a_factor_down():
    recipe = replace(RECIPE, epochs=26, schedule="step", peak_lr=0.1, milestones=(12, 20, 24), warmup_epochs=1)
    rates = [lr_at(epoch * 100, 100, recipe) for epoch in range(26)]
    np.testing.assert_allclose(rates[1:], [0.1] * 11 + [0.01] * 8 + [0.001] * 4 + [0.0001] * 2)
    assert lr_at(1199, 100, recipe) == pytest.approx(0.1)
    third = replace(recipe, factor=1 / 3)
    assert lr_at(1200, 100, third) == pytest.approx(0.1 / 3)


def test_the_power_of_the_polynomial_is_its_own_and_constant_stays():
    recipe = replace(RECIPE, epochs=10, warmup_epochs=0.0, peak_lr=0.02, schedule="polynomial", power=1.0)
    assert lr_at(250, 100, recipe) == pytest.approx(0.015)
    assert {lr_at(step, 100, replace(recipe, schedule="constant")) for step in range(1000)} == {0.02}


@pytest.mark.parametrize(
    ("recipe", "known"),
    [
        (Recipe(), "7c4438ede3712c05e64d77d33d5a7636d716e387790f16cb0920821d7793e6b8"),  # conf/trainer/tiny.yaml, too
        (embedder_recipe("residual_a", 1), "50bc55ce7f44a4f5f3e40512831dfbdbfbe7119df794af4758852fca85443487"),
        (embedder_recipe("plain_b", 2), "e17581c6677df69f2f0eb3484fe5b25baf9e93917ffbca3056c22fa1faeda37b"),
        (polish(embedder_recipe("residual_a", 1)), "63f037e1a056bc27e4c883a1afeb3f6b5c3bfb6a246835edfa1fae3a6671930d"),
    ],
)
def test_what_a_recipe_may_say_since_does_not_change_the_hashes_of_those_that_do_not_say_it(recipe, known):
    assert recipe.sha256 == known


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1},
        {"nesterov": False},
        {"weight_decay_on_norms": True},
        {"schedule": "step", "milestones": (1,)},
        {"accumulate": 2},
        {"sample_rate": 0.5},
        {"batches": "pk"},
        {"power": 1.0},
        {"factor": 0.5},
    ],
)
def test_every_new_choice_has_a_hash_of_its_own(changes):
    assert replace(RECIPE, **changes).sha256 != RECIPE.sha256


def test_an_augmentation_of_parts_is_hashed_with_its_parts_and_their_names():
    told = replace(RECIPE, augment=Compose((Flip(), Erase()))).told["augment"]
    assert [part["augmentation"] for part in told["steps"]] == ["Flip", "Erase"]
    hashes = {replace(RECIPE, augment=Compose(steps)).sha256 for steps in ((Flip(),), (Flip(0.1),), (Erase(),), ())}
    assert len(hashes) == 4


def test_a_margin_within_a_margin_is_hashed_by_name():
    inner = ArcFace(0.4), CosFace(0.4)
    told = [replace(RECIPE, margin=Filtered(margin)).told["margin"] for margin in inner]
    assert [(each["name"], each["margin"]["name"]) for each in told] == [
        ("Filtered", "ArcFace"),
        ("Filtered", "CosFace"),
    ]


def test_the_claim_of_the_bundled_weights_is_the_one_of_old():
    claim = json.dumps(WeightsRecipe().measuring, sort_keys=True)
    known = "bd78f1645f6376076a42eb10d2c750b2e50b5ffcc34cf930c306240f99fdcf42"
    assert hashlib.sha256(claim.encode()).hexdigest() == known
