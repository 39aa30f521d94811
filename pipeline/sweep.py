"""A sweep, looked back on: what a config key was in each of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.meaning import plain
from pipeline.rundir import RunDir

ABSENT = object()


def value_of(run: RunDir, key: str) -> Any:
    """What a key is in the config that a run was made with: a number, a word, a truth value, None, or a list.

    Raises:
        ValueError: If the run has no config, or the key is not in it, or has keys below it.
    """
    if not run.config.is_file():
        raise ValueError(f"expected a run directory, with {run.config}, found no such file")
    try:
        value = plain(OmegaConf.select(OmegaConf.load(run.config), key, default=ABSENT))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{run.config}: expected {key} in it, got: {error}") from error
    if value is ABSENT:
        raise ValueError(f"over: expected {key} in the config of every run, found none in {run.config}")
    if isinstance(value, dict):
        raise ValueError(f"over: expected a key with one value, got {key}, which has {', '.join(value)}")
    return value


def values_of(runs: Sequence[RunDir], key: str) -> dict[str, Any]:
    """What a key is in each run, by the run's path as it was given."""
    return {str(run.root): value_of(run, key) for run in runs}
