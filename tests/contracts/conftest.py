"""Every part of conf/, as a run would build it: its file, composed with what a run's config gives it."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from stages.sample.population import fit

CONF = Path(__file__).parents[2] / "conf"


def names(part):
    return sorted(path.stem for path in (CONF / part).glob("*.yaml"))


def container(part, name, run, **arguments):
    config = OmegaConf.create({"run": str(run), "images_per_identity": 4, "seed": 0, "people": 8, "chunk_people": 4})
    config[part] = OmegaConf.merge(OmegaConf.load(CONF / part / f"{name}.yaml"), arguments)
    return OmegaConf.to_container(config, resolve=True)[part]


def build(part, name, run, **arguments):
    return instantiate(container(part, name, run, **arguments), _convert_="all")


@pytest.fixture
def statistics(tmp_path):
    """Statistics of a population, which no clone ships."""
    mean, covariance = fit(np.random.default_rng(0).standard_normal((400, 128)).astype(np.float32))
    np.savez(tmp_path / "statistics.npz", mean=mean, covariance=covariance)
    return tmp_path / "statistics.npz"
