"""Every recipe of conf/trainer/: it says its source, builds, and trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recognition.partial_fc import PartialFC
from recognition.train import Pictures, Recipe, lr_at, networks, train
from tests.contracts.conftest import CONF, build, names
from tests.recognition.train.conftest import faces

TRAINERS = names("trainer")
PUBLISHED = {"ir50_arcface", "ir50_adaface", "idiff", "hsface", "admis", "mbf_proxy"}


class EnoughError(Exception):
    pass


def first_epoch(recipe: Recipe, pictures: Pictures, folder) -> list[float]:
    """Losses of the recipe's first epoch."""
    told = []

    def enough(model, epoch):
        raise EnoughError

    with pytest.raises(EnoughError):
        train(pictures, recipe, folder, on_progress=told.append, on_epoch=enough, say=lambda line: None)
    return [at.loss for at in told]


@pytest.fixture(params=TRAINERS)
def recipe(request, tmp_path):
    return build("trainer", request.param, tmp_path)


def test_every_published_recipe_is_there():
    assert set(TRAINERS) >= PUBLISHED | {"tiny"}
    assert len({build("trainer", name, "run").sha256 for name in TRAINERS}) == len(TRAINERS)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_number_says_where_it_comes_from(name):
    text = (CONF / "trainer" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert "http" in text.split("_target_")[0] or "arcface_torch" in text.split("_target_")[0]


def test_its_networks_fit_together(recipe):
    with torch.device("meta"):
        model = networks.backbone(recipe, torch.device("meta"))
    drops = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert drops in ([], [recipe.dropout])
    head = PartialFC(10, model.dimensions, recipe.margin)
    assert np.isfinite(float(head(torch.randn(4, model.dimensions), torch.arange(4)).detach()))
    rates = [lr_at(step, 100, recipe) for step in range(100 * recipe.epochs)]
    assert max(rates) == pytest.approx(recipe.peak_lr)
    assert rates[-1] < recipe.peak_lr / 99


def test_it_trains_two_steps(recipe, tmp_path):
    """With the smallest network in the place of its own: the next test takes a real one."""
    small = replace(recipe, backbone="iresnet_tiny", batch_size=8, threads=1, peak_lr=min(recipe.peak_lr, 0.01))
    (loss,) = first_epoch(small, Pictures(*faces(4, 4)), tmp_path)
    assert np.isfinite(loss)


def test_a_large_network_takes_a_step(tmp_path):
    recipe = replace(build("trainer", "ir50_adaface", tmp_path), batch_size=2, precision="fp32", threads=1)
    assert np.isfinite(first_epoch(recipe, Pictures(*faces(2, 1)), tmp_path)).all()
