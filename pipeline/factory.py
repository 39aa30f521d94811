"""The composition root: Hydra in, lazy builders out; runs the steps that were asked for; returns the swept metric."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from generation.weights import FOLDER
from pipeline import preflight, steps
from pipeline.meaning import PARTS_THAT_DECIDE, fingerprint, meaning, plain
from pipeline.progress import say
from pipeline.rundir import RunDir


def run(cfg: DictConfig, anew: bool = False, only_check: bool = False) -> float | None:
    """Runs the steps of a config in the run directory that Hydra has chosen.

    Args:
        cfg: The composed config.
        anew: Whether the steps were asked for by name, and are done again even where nothing changed.
        only_check: Whether preflight is all that is wanted.
    Returns:
        Mean accuracy of the recognisers over the protocols, once it is verified; what a sweep compares.
    Raises:
        ConfigError: If the run cannot begin.
    """
    run_dir = RunDir(where())
    with open_dict(cfg):
        cfg.run = str(run_dir.root)
    preflight.check(cfg, run_dir)
    if only_check:
        leave_no_trace(run_dir.root)
        say(f"check: the run can begin in {run_dir.root}")
        return None
    _remember(cfg, run_dir)
    runner = builder(cfg.runner)()
    order = order_of(cfg)
    for step in [step for step in preflight.STEPS if step in cfg.steps]:  # belt order, whatever the order of the words
        _do(step, cfg, run_dir, order, runner, anew)
    return steps.mean_accuracy(run_dir)


def leave_no_trace(folder: Path) -> None:
    """Removes the folder that Hydra has made for what did not begin, if nothing is in it."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _do(step: str, cfg: DictConfig, run_dir: RunDir, order: steps.Order, runner: Any, anew: bool) -> None:
    if step == "sample":
        steps.sample(run_dir, order, runner)
    elif step == "plan":
        steps.plan(run_dir, order)
    elif step == "make":
        steps.make(run_dir, order, runner)
    elif step == "control":
        control(cfg, run_dir, runner)
    elif step == "train":
        steps.train(run_dir, builder(cfg.trainer), fingerprint(plain(cfg.trainer)), cfg.recognisers, anew)
    elif step == "verify":
        eyes = builder(cfg.witness), fingerprint(plain(cfg.witness)), cfg.witness_images
        steps.verify(run_dir, builder(cfg.protocols), *eyes, cfg.recognisers, runner, anew)
    else:
        generator: Any = get_class(cfg.generator["_target_"])
        steps.report(run_dir, cfg.name, generator.licence, _listing(cfg))


def control(cfg: DictConfig, run_dir: RunDir, runner: Any) -> None:
    """Makes the control: renders of as many other people, as many as the dataset kept, in a run inside the run."""
    size = steps.size(run_dir)
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.run = str(run_dir.control.root)
        cfg.people, cfg.images_per_identity = size.people, size.for_control
        cfg.seed = steps.stream(cfg.seed, "control")
        cfg.enrol = None
        for name in ("sampler", "planner", "generator", "judge"):
            cfg[name] = cfg.control[name]
    order = order_of(cfg)
    steps.begin_control(run_dir.control, order)
    steps.sample(run_dir.control, order, runner, "control sample")
    steps.plan(run_dir.control, order, "control plan")
    steps.make(run_dir.control, order, runner, "control make")


def builder(part: DictConfig) -> Callable[[], Any]:
    """A lazy, picklable builder of a part: nothing is imported or loaded until it is called, in whatever process."""
    return partial(instantiate, plain(part), _convert_="all")


def order_of(cfg: DictConfig) -> steps.Order:
    """What the dataset of a config is made from."""
    space = str(preflight.space_of(plain(cfg.sampler)))
    portraits = None if cfg.enrol is None else _portraits(cfg)
    return steps.Order(
        made_from=fingerprint(meaning(cfg)),
        space=space,
        reference_space=space if portraits is None else str(preflight.space_of(plain(cfg.embedder))),
        portraits=portraits,
        people=cfg.people,
        seed=cfg.seed,
        chunk_people=cfg.chunk_people,
        jpeg_quality=cfg.jpeg_quality,
        **{name: builder(cfg[name]) for name in PARTS_THAT_DECIDE},
    )


def _listing(cfg: DictConfig) -> Path | None:
    """Where the measuring models are listed, if they are bundled ones."""
    folder = Path(cfg.embedder.get("weights") or FOLDER)
    return folder / "weights.json" if (folder / "weights.json").exists() else None


def _portraits(cfg: DictConfig) -> steps.Portraits:
    enrol = cfg.enrol
    return steps.Portraits(builder(enrol.planner), enrol.min_found, enrol.over_plan, enrol.max_cosine)


def _remember(cfg: DictConfig, run_dir: RunDir) -> None:
    """Writes the config and the words that made it, so that `run=DIR` alone goes on. The steps are not part of it."""
    words = [word for word in HydraConfig.get().overrides.task if word.split("=")[0] not in ("run", "steps")]
    run_dir.overrides.parent.mkdir(parents=True, exist_ok=True)
    steps.write_text(run_dir.config, OmegaConf.to_yaml(cfg))
    steps.write_text(run_dir.overrides, yaml.safe_dump(words, width=1000) if words else "[]\n")


def in_a_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def where() -> Path:
    """The run directory that Hydra has chosen."""
    return Path(HydraConfig.get().runtime.output_dir)
