"""Every file of conf/ composes into a run, and every target in it exists and takes the arguments beside it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from generation.weights import FOLDER
from pipeline.cli import CONF
from pipeline.meaning import fingerprint, meaning, plain
from pipeline.preflight import STEPS, targets

FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml") if path.parent != CONF)
REQUIRED = {  # what a user must say with these files
    Path("protocols/files.yaml"): ["protocols.folder=sets"],
}


@functools.cache
def composed(*words: str) -> DictConfig:
    """The config of these words. Not to be written to."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_it_composes_and_itstargets_take_their_arguments(file: Path) -> None:
    cfg = composed(f"{file.parent}={file.stem}", *REQUIRED.get(file, []))
    whole = OmegaConf.to_container(cfg, resolve=True)
    parts = {name: part for name, part in whole.items() if isinstance(part, dict)}
    assert len(parts) >= 10
    assert [line for name, part in parts.items() for line in targets(name, part)] == []


def test_the_default_run_has_every_step_in_order() -> None:
    assert tuple(composed().steps) == STEPS


def test_the_demo_and_the_gap_are_of_the_sizes_that_they_promise() -> None:
    demo, gap = composed("experiment=demo"), composed("experiment=gap")
    assert (demo.people, demo.images_per_identity, demo.protocols.pairs) == (128, 16, 600)
    assert (gap.people, gap.images_per_identity, gap.protocols.pairs) == (2500, 20, 3000)
    assert (demo.recognisers, gap.recognisers) == (1, 3)
    assert demo.runner.pools.belt.actors == 2


@pytest.mark.parametrize(
    "word",
    ["runner=local", "run=elsewhere", "generator.threads=2", "trainer.epochs=3", "recognisers=3", "name=other"],
)
def test_runner_place_threads_and_trainer_do_not_change_what_a_dataset_is_made_from(word: str) -> None:
    assert fingerprint(meaning(composed(word))) == fingerprint(meaning(composed()))


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "people=5",
        "chunk_people=4",
        "jpeg_quality=90",
        "enrol.max_cosine=0.1",
        "planner.attributes.yaw_deg.std=1",
        "judge.rules.own_identity.min_cosine=0.31",
        "embedder=bundled_b",
        "generator.size_px=128",
    ],
)
def test_everything_else_does(word: str) -> None:
    assert fingerprint(meaning(composed(word))) != fingerprint(meaning(composed()))


@pytest.mark.parametrize("sampler", ["population", "two_stage"])
def test_a_dataset_is_made_from_weights_and_not_from_their_folder(tmp_path: Path, sampler: str) -> None:
    def made_from(folder: Path | None) -> str:
        words = [] if folder is None else [f"generator.weights={folder}"]
        return fingerprint(meaning(composed("generator=bundled", f"sampler={sampler}", *words)))

    for name in ("here", "there", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.json").write_text((FOLDER / "weights.json").read_text())
    listing = json.loads((FOLDER / "weights.json").read_text())
    listing["generator"]["sha256"] = "0" * 64
    (tmp_path / "other" / "weights.json").write_text(json.dumps(listing))
    assert made_from(tmp_path / "here") == made_from(tmp_path / "there") == made_from(None)
    assert made_from(tmp_path / "other") != made_from(None)
    assert made_from(tmp_path / "nowhere") != made_from(None)  # preflight refuses it


@pytest.mark.parametrize("name", ["detector", "embedder_a", "population"])
def test_a_dataset_is_made_from_the_weights_of_every_part(tmp_path: Path, name: str) -> None:
    part = "sampler" if name == "population" else "embedder"
    words = ("generator=bundled", "sampler=population", f"{part}.weights={tmp_path}")
    listing = json.loads((FOLDER / "weights.json").read_text())
    (tmp_path / "weights.json").write_text(json.dumps(listing))
    before = fingerprint(meaning(composed(*words)))
    listing[name]["sha256"] = "0" * 64
    (tmp_path / "weights.json").write_text(json.dumps(listing))
    assert fingerprint(meaning(composed(*words))) != before


def test_the_control_is_rendered_in_the_wild_whatever_the_dataset_is_made_with() -> None:
    cfg, other = composed(), composed("planner=wild", "planner.attributes.yaw_deg.std=5", "sampler=sphere")
    assert plain(other.control) == plain(cfg.control)
    assert plain(cfg.control.planner) == plain(cfg.planner)
    assert "background" in cfg.control.planner.attributes
    assert "background" not in other.planner.attributes


def test_the_trainer_of_the_control_is_that_of_the_recogniser() -> None:
    assert "trainer" not in plain(composed().control)
