"""Every part of conf/, as a run would build it: its file, composed with what a run's config gives it."""

import functools
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from stages.sample.population import fit

CONF = Path(__file__).parents[2] / "conf"


def names(part):
    return sorted(path.stem for path in (CONF / part).glob("*.yaml"))


@functools.cache
def composed(part, name):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"{part}={name}", "images_per_identity=4", "people=8", "chunk_people=4"])


def container(part, name, run, **arguments):
    config = composed(part, name).copy()
    with open_dict(config):
        config.run = str(run)
        for argument, value in arguments.items():
            config[part][argument] = value
    return OmegaConf.to_container(config[part], resolve=True)


def build(part, name, run, **arguments):
    return instantiate(container(part, name, run, **arguments), _convert_="all")


@pytest.fixture
def statistics(tmp_path):
    """Statistics of a population, which no clone ships."""
    mean, covariance = fit(np.random.default_rng(0).standard_normal((400, 128)).astype(np.float32))
    np.savez(tmp_path / "statistics.npz", mean=mean, covariance=covariance)
    return tmp_path / "statistics.npz"
