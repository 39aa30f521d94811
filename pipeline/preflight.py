"""Preflight: does everything exist and fit? Asked before a model is loaded or a file is written.

Every check returns the faults that it found, a line each; all are told at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from generation.weights import Weights, bundled
from generation.world import SPACE
from pipeline.meaning import fingerprint, fitting, meaning, plain
from pipeline.rundir import RunDir

STEPS = ("sample", "plan", "make", "control", "train", "verify", "report")
PARTS = ("sampler", "planner", "generator", "embedder", "judge", "runner", "trainer", "protocols", "witness")
OF_CONTROL = ("control.sampler", "control.planner", "control.generator", "control.judge")
OF_SAMPLER = (
    "sampler.people",
    "sampler.planner",
    "sampler.generator",
    "sampler.embedder",
)  # of one that takes pictures
INNER_PARTS = ("enrol.planner", *OF_CONTROL, *OF_SAMPLER)
CHEAP = (
    *("planner", "enrol.planner", "control.planner", "sampler.planner", "sampler.people", "sampler"),
    *("runner", "trainer", "protocols", "judge"),
)
PLANNERS = {
    "planner": "generator",
    "enrol.planner": "generator",
    "control.planner": "control.generator",
    "sampler.planner": "sampler.generator",
}
BELTS = (["generate", "embed", "enrol"], ["generate", "embed", "judge", "pack"], ["photograph"])
NEEDED = {"faiss": 'pip install "facemint[cpu]"', "onnxruntime": 'pip install "facemint[cpu]"'}
BYTES_PER_PICTURE = 16_000  # a 112x112 JPEG of quality 95 and its members' tar blocks take 10 to 14 kB
BYTES_PER_CROP = 112 * 112 * 3  # decoded, for training
BYTES_PER_PAIR = 20_000
BYTES_OF_MODELS = 300_000_000  # of each seed: two checkpoints with their optimizers' state


class ConfigError(ValueError):
    """A run that cannot begin. `problems` has one line per fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def check(cfg: DictConfig, run: RunDir) -> None:
    """Raises ConfigError unless the run can begin.

    Args:
        cfg: The composed config.
        run: Where it is to go.
    """
    problems = [*_numbers(cfg), *_steps(cfg), *_installed()]
    parts = {name: plain(OmegaConf.select(cfg, name)) for name in (*PARTS, *INNER_PARTS)}
    unbound = {name: list(targets(name, part)) for name, part in parts.items() if part is not None}
    problems += [line for name, lines in unbound.items() if not _repeats(name, parts) for line in lines]
    fit = {name: part for name, part in parts.items() if part is not None and not unbound[name]}
    built = dict(_built(fit, problems))
    problems += [*_attributes(fit, built), *_spaces(fit), *_stations(built), *_device(fit)]
    problems += [*_unbuilt(fit)] or [*_memory(fit)]  # of settings in range alone a size can be told
    problems += [*precision(fit.get("trainer", {})), *_belongs(cfg, run), *_disk(cfg, run)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _numbers(cfg: DictConfig) -> Iterator[str]:
    limits = {
        "seed": (0, 2**32 - 1),
        "people": (2, 10**6),
        "images_per_identity": (1, 1000),
        "chunk_people": (1, 10**6),
        "jpeg_quality": (1, 100),
        "recognisers": (1, 100),
    }
    for name, (low, high) in limits.items():
        value = OmegaConf.select(cfg, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            yield f"{name}: expected a whole number from {low} to {high}, got {value!r}"
    enrol = cfg.enrol
    if enrol is not None and not (enrol.over_plan >= 1 and -1 <= enrol.max_cosine <= 1 and enrol.min_found >= 1):
        yield (
            "enrol: expected over_plan >= 1, max_cosine in [-1, 1] and min_found >= 1, "
            f"got {enrol.over_plan}, {enrol.max_cosine} and {enrol.min_found}"
        )


def _steps(cfg: DictConfig) -> Iterator[str]:
    if not OmegaConf.is_list(cfg.steps):
        yield f"steps: expected a list such as [verify,report], got {cfg.steps!r}"
        return
    for step in cfg.steps:
        if step not in STEPS:
            yield f"steps: expected some of {', '.join(STEPS)}, got {step}"


def _installed() -> Iterator[str]:
    for module, remedy in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            yield f"{module}: expected it to be installed ({remedy}), found no such module"


def targets(where: str, part: Any) -> Iterator[str]:
    """Every `_target_` can be imported, and takes the arguments beside it."""
    if isinstance(part, list):
        for number, item in enumerate(part):
            yield from targets(f"{where}[{number}]", item)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        yield from targets(f"{where}.{key}", value)
    if "_target_" in part:
        yield from _target(where, part)


def _target(where: str, part: Mapping[str, Any]) -> Iterator[str]:
    try:
        callee = _locate(part["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{where}: expected a _target_ that can be imported, got {part['_target_']} ({error})"
        return
    given = {key: value for key, value in part.items() if not (key.startswith("_") and key.endswith("_"))}
    taken = inspect.signature(callee)
    try:
        taken.bind(**given)
    except TypeError as error:
        names = ", ".join(taken.parameters) or "none"
        yield f"{where}: expected arguments of {part['_target_']} ({names}), got {', '.join(given) or 'none'}: {error}"


def _locate(target: str) -> Any:
    module, _, name = target.rpartition(".")
    if not module:
        raise ValueError("no module in its name")
    return getattr(importlib.import_module(module), name)


def _repeats(name: str, parts: Mapping[str, Any]) -> bool:
    """Whether a part of the control or of the sampler is the dataset's own, whose faults are told already."""
    return name in (*OF_CONTROL, *OF_SAMPLER) and parts[name] == parts.get(name.rpartition(".")[2])


def _takes_pictures(sampler: Mapping[str, Any]) -> bool:
    """Whether a sampler holds networks, and so is built no sooner than people are sampled."""
    return "embedder" in sampler


def _built(parts: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Parts that are cheap to build, built, since their constructors know their ranges. Adds what they refuse."""
    for name in CHEAP:
        if name not in parts or _takes_pictures(parts[name]):
            continue
        try:
            yield name, build(parts[name])
        except ValueError as error:
            if not _repeats(name, parts):
                problems.append(f"{name}: {error}")


def build(part: Mapping[str, Any]) -> Any:
    """A part from its config, as plain data.

    Raises:
        ValueError: If a constructor refuses its arguments, with what it said: whatever it raises, Hydra wraps it.
    """
    try:
        return instantiate(dict(part), _convert_="all")
    except InstantiationException as error:
        raise ValueError(innermost(error)) from error


def innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def _attributes(
    parts: Mapping[str, Any], built: Mapping[str, Any], planners: Iterable[tuple[str, str]] = tuple(PLANNERS.items())
) -> Iterator[str]:
    """The plan names only attributes that the generator honours, in the generator's ranges."""
    for planner, generator in planners:
        if planner not in built or generator not in parts or (_repeats(planner, parts) and _repeats(generator, parts)):
            continue
        target = parts[generator]["_target_"]
        honoured = _locate(target)
        for name, (low, high) in built[planner].ranges.items():
            if name not in honoured.controls:
                known = ", ".join(honoured.controls)
                yield f"{planner}: expected attributes that {target} honours ({known}), got {name}"
                continue
            least, most = getattr(honoured, "ranges", {}).get(name, (low, high))
            if not least <= low <= high <= most:
                within, given = f"{least:g} to {most:g}", f"{low:g} to {high:g}"
                yield f"{planner}.attributes.{name}: expected values that {target} honours, {within}, got {given}"


def space_of(part: Mapping[str, Any]) -> str | None:
    """The space that a part's config names, or that its constructor defaults to."""
    if "space" in part:
        return part["space"]
    parameter = inspect.signature(_locate(part["_target_"])).parameters.get("space")
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _spaces(parts: Mapping[str, Any]) -> Iterator[str]:
    """Same space or no run (law 5)."""
    for sampler, generator in (("sampler", "generator"), ("control.sampler", "control.generator")):
        if sampler in parts and generator in parts:
            drawn, wanted = space_of(parts[sampler]), space_of(parts[generator])
            if drawn != wanted:
                yield f"{sampler}: expected people in the space of the {generator}, {wanted!r}, got {drawn!r}"
    yield from _spaces_of_pictures(parts)
    yield from _trainings(parts)
    if "enrol.planner" not in parts and "sampler" in parts and "embedder" in parts:
        drawn, judged = space_of(parts["sampler"]), space_of(parts["embedder"])
        if drawn != judged:
            yield f"enrol: expected portraits, as people drawn in {drawn!r} cannot be judged in {judged!r}, got none"
    if "witness" in parts and "embedder" in parts and space_of(parts["witness"]) == space_of(parts["embedder"]):
        yield f"witness: expected another space than the embedder's (law 7), got {space_of(parts['witness'])!r} twice"


def _trainings(parts: Mapping[str, Any]) -> Iterator[str]:
    """Nor do the trainings of an embedder whose space has one name share vectors (law 5): all mean the same weights."""
    if "embedder" not in parts:
        return
    space, seen = space_of(parts["embedder"]), _vectors_of(parts["embedder"])
    for name in ("sampler", "generator"):
        if name not in parts or space_of(parts[name]) != space:
            continue
        meant = _vectors_of(parts[name])
        if seen and meant and meant != seen:
            yield (
                f"{name}: expected weights that have learnt from the embedder's vectors ({space}, sha256 {seen[:12]}), "
                f"got ones that have learnt from another training's ({meant[:12]}); weights=DIR takes all from there"
            )


def _vectors_of(part: Mapping[str, Any]) -> str:
    """Hash of the embedder that a part's vectors are of; "" where it does not say, or its weights are not there."""
    asked = getattr(_locate(part["_target_"]), "vectors_of", None)
    try:
        return "" if asked is None else asked(**fitting(asked, part))
    except ValueError:  # `_weights` tells
        return ""


def _spaces_of_pictures(parts: Mapping[str, Any]) -> Iterator[str]:
    """A sampler that takes pictures draws what its embedder sees; its generator takes its people, or what it draws."""
    if "sampler" not in parts or not _takes_pictures(parts["sampler"]):
        return
    drawn, seen = space_of(parts["sampler"]), space_of(parts["sampler"]["embedder"])
    if drawn != seen:
        yield f"sampler.embedder: expected that of the sampler's space, {drawn!r}, got {seen!r}"
    whose, generator = ("sampler.people" if "people" in parts["sampler"] else "sampler"), parts["sampler"]["generator"]
    if whose == "sampler" and not hasattr(_locate(generator["_target_"]), "strangers"):
        made_by = generator["_target_"]
        yield f"sampler.generator: expected one that makes unconditional pictures (strangers), got {made_by}"
    shown, wanted = space_of(parts["sampler"].get("people", parts["sampler"])), space_of(generator)
    if shown != wanted:
        yield f"{whose}: expected people in the space of the sampler.generator, {wanted!r}, got {shown!r}"


def _stations(built: Mapping[str, Any]) -> Iterator[str]:
    """The runner has a place for every station of every step."""
    for belt in BELTS if "runner" in built else ():
        try:
            built["runner"].check(belt)
        except ValueError as error:
            yield f"runner: {error}"


def _unbuilt(parts: Mapping[str, Any]) -> Iterator[str]:
    """Parts that are built by workers alone say what they know without it, where they have a method that does:
    `check_settings`, whether these are in range; `check_weights`, whether those on disk are those that their space
    names."""
    for name in ("generator", "embedder", "witness", "sampler.generator", "sampler.embedder"):
        if name not in parts or _repeats(name, parts):
            continue
        for question in ("check_settings", "check_weights"):
            ask = getattr(_locate(parts[name]["_target_"]), question, None)
            try:
                if ask is not None:
                    ask(**fitting(ask, parts[name]))
            except (ValueError, OSError) as error:
                yield f"{name}: {innermost(error)}"


def _device(parts: Mapping[str, Any]) -> Iterator[str]:
    """The generator's GPU is there, and its workers hold a part of it: Ray hides all GPUs from those that hold none."""
    device, runner = str(parts.get("generator", {}).get("device", "cpu")), parts.get("runner", {})
    if device == "cpu":
        return
    for name, pool in runner.get("pools", {}).items():
        if "generate" in pool["stations"] and not pool.get("num_gpus"):
            yield f"runner.pools.{name}.num_gpus: expected more than 0 for generator.device={device}, got 0"
    import torch

    if runner.get("address") is None and not torch.cuda.is_available():
        yield f"generator.device: expected cpu where torch sees no CUDA device, got {device}"


def _memory(parts: Mapping[str, Any]) -> Iterator[str]:
    """The workers' batches fit into memory. A part whose batches are large has a `memory_bytes` that says how large."""
    generator = parts.get("generator", {})
    estimate = getattr(_locate(generator["_target_"]), "memory_bytes", None) if generator else None
    free = free_memory(generator.get("device", "cpu")) if estimate is not None else None
    if estimate is None or free is None:
        return
    each = estimate(**fitting(estimate, generator))
    workers = _makers(parts.get("runner", {}))
    if workers * each > free:
        batch = f"{workers} workers with batches of {generator.get('batch_size', 'the default size')}"
        yield f"generator: expected {workers * each / 1e9:.1f} GB of free memory for {batch}, got {free / 1e9:.1f} GB"


def precision(trainer: Mapping[str, Any], device: str | None = None) -> Iterator[str]:
    """fp16 needs a GPU, which the device is, or which is there where none is named."""
    if trainer.get("precision") != "fp16":
        return
    import torch

    if not (device or "cuda").startswith("cuda") or not torch.cuda.is_available():
        yield "trainer.precision: expected bf16 or fp32 on a CPU, got fp16, which needs CUDA"


def _makers(runner: Mapping[str, Any]) -> int:
    """Workers that generate at the same time on this machine."""
    pools = runner.get("pools", {}).values()
    return sum(pool.get("actors", 1) for pool in pools if "generate" in pool["stations"]) or 1


def free_memory(device: str) -> int | None:
    """Bytes; None where nobody says, or where there is no such device, which the generator tells."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _belongs(cfg: DictConfig, run: RunDir) -> Iterator[str]:
    """A run directory goes on with the plan that it was begun with."""
    made_from = fingerprint(meaning(cfg))
    found = {path: _made_from(path) for path in (run.identities, run.plan, *sorted(run.ledger.glob("*.parquet"))[:1])}
    other = next((path for path, written in found.items() if written not in (None, made_from)), None)
    if other is None:
        return
    changes = _changes(run, cfg)
    told = "; ".join(changes) or f"weights or a version, made_from {found[other]} there, {made_from} here"
    yield f"run: expected the config that {run.root} was begun with, or another run=DIR, got changes: {told}"


def _made_from(path: Path) -> str | None:
    if not path.is_file():
        return None
    metadata = pq.read_schema(path).metadata or {}
    return metadata.get(b"made_from", b"nothing that it says").decode()


def _changes(run: RunDir, cfg: DictConfig) -> list[str]:
    before = OmegaConf.load(run.config) if run.config.is_file() else None
    if not isinstance(before, DictConfig):
        return []
    old, new = _flat(meaning(before)), _flat(meaning(cfg))
    return [
        f"{key} was {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(tree, dict):
        return {prefix: json.dumps(tree)}
    return {
        name: leaf for key, value in tree.items() for name, leaf in _flat(value, f"{prefix}.{key}".strip(".")).items()
    }


def _disk(cfg: DictConfig, run: RunDir) -> Iterator[str]:
    """The run's directory can be written to, and its disk has room."""
    folder = next(folder for folder in (run.root, *run.root.resolve().parents) if folder.exists())
    if not folder.is_dir():
        yield f"run: expected a directory, got {folder}, which is a file"
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"room?")
    except OSError as error:
        yield f"run: expected a directory that can be written to, got {folder} ({error.strerror})"
        return
    if any(_numbers(cfg)):
        return
    sets = 2 if "control" in cfg.steps else 1
    each = BYTES_PER_PICTURE + BYTES_PER_CROP * ("train" in cfg.steps)
    needed = cfg.people * cfg.images_per_identity * each * sets + BYTES_OF_MODELS * cfg.recognisers
    needed += int(OmegaConf.select(cfg, "protocols.pairs", default=0)) * 5 * BYTES_PER_PAIR
    there = [path for end in ("*.tar", "*.u8") for path in run.root.rglob(end)] if run.root.exists() else []
    written = sum(path.stat().st_size for path in there)
    free = shutil.disk_usage(folder).free
    if needed - written > free:
        missing_gb = (needed - written) / 1e9
        yield f"run: expected {missing_gb:.1f} GB free for {run.root}, got {free / 1e9:.1f} GB on {folder}"


# --- evaluate --------------------------------------------------------------------------------------------------------

EVALUATED = ("generator", "truth", "sampler", "planner", "enrol.planner", "embedder", "witness", "judge", "runner")
PHOTOGRAPHED = tuple((planner, maker) for planner in ("planner", "enrol.planner") for maker in ("generator", "truth"))
BYTES_PER_PICTURE_KEPT = 45_000  # compressed pixels and what was seen in them


def check_evaluation(cfg: DictConfig, folder: Path) -> None:
    """Raises ConfigError unless the evaluation can begin.

    Args:
        cfg: The composed config.
        folder: Where it is to go.
    """
    problems = [*_evaluation_numbers(cfg), *_installed()]
    parts = {name: plain(OmegaConf.select(cfg, name)) for name in EVALUATED}
    unbound = {name: list(targets(name, part)) for name, part in parts.items() if part is not None}
    problems += [line for lines in unbound.values() for line in lines]
    fit = {name: part for name, part in parts.items() if part is not None and not unbound[name]}
    built = dict(_built(fit, problems))
    problems += [*_attributes(fit, built, PHOTOGRAPHED), *_evaluation_spaces(fit), *_portraits(cfg, built)]
    problems += [*_evaluation_belt(built), *_device(fit), *_unbuilt(fit), *_regressor(cfg), *_training(cfg)]
    problems += [] if problems else [*_room(folder, _evaluation_bytes(cfg))]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _evaluation_numbers(cfg: DictConfig) -> Iterator[str]:
    limits = {
        "seed": (0, 2**32 - 1),
        "people": (4, 10**6),
        "images_per_identity": (2, 1000),
        "chunk_people": (1, 10**6),
        "asked_portraits": (1, 999),
        "sheet_people": (1, 100),
        "steps_people": (2, 10**6),
    }
    for name, (low, high) in limits.items():
        value = OmegaConf.select(cfg, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            yield f"{name}: expected a whole number from {low} to {high}, got {value!r}"
    if not OmegaConf.is_list(cfg.steps) or not all(isinstance(steps, int) and steps >= 1 for steps in cfg.steps):
        yield f"steps: expected a list of whole numbers of at least 1, got {cfg.steps}"
    if not (-1 <= cfg.enrol.max_cosine <= 1 and cfg.enrol.min_found >= 1):
        given = f"{cfg.enrol.max_cosine}, {cfg.enrol.min_found}"
        yield f"enrol: expected max_cosine in [-1, 1] and min_found >= 1, got {given}"


def _evaluation_spaces(parts: Mapping[str, Any]) -> Iterator[str]:
    """The generator can be asked for unseen people, or for the sampler's; the witness is not the judge (law 7)."""
    if "truth" in parts and space_of(parts["truth"]) != SPACE:
        yield f"truth: expected renders of the world, {SPACE!r}, got {space_of(parts['truth'])!r}"
    if {"generator", "embedder", "witness"} - parts.keys():
        return
    wanted, judged = space_of(parts["generator"]), space_of(parts["embedder"])
    yield from _trainings(parts)
    if "sampler" in parts and space_of(parts["sampler"]) != wanted:
        drawn = space_of(parts["sampler"])
        yield f"sampler: expected people in the space of the generator, {wanted!r}, got {drawn!r}"
    if "sampler" not in parts and wanted not in (SPACE, judged):
        yield (
            f"embedder: expected the space that the generator is conditioned on, {wanted!r}, since unseen people are "
            f"asked for by their portraits' embeddings, got {judged!r}"
        )
    if space_of(parts["witness"]) == judged:
        yield f"witness: expected another space than the embedder's (law 7), got {judged!r} twice"
    framings = {name: getattr(_locate(parts[name]["_target_"]), "framing", None) for name in ("generator", "truth")}
    if None not in framings.values() and framings["generator"] != framings["truth"]:
        remedy = "generator@truth=close_up" if framings["generator"] == "close-up" else "generator@truth=rendered"
        ours, theirs = framings["generator"], framings["truth"]
        yield f"truth: expected {ours} renders, as the generator's pictures are ({remedy}), got {theirs}"


def _portraits(cfg: DictConfig, built: Mapping[str, Any]) -> Iterator[str]:
    """Some portraits ask for a person, and at least one other is its reference."""
    if "enrol.planner" in built and not cfg.asked_portraits < built["enrol.planner"].images_per_identity:
        yield (
            f"asked_portraits: expected fewer than the {built['enrol.planner'].images_per_identity} of enrol.planner, "
            f"since the others are the reference, got {cfg.asked_portraits}"
        )


def _evaluation_belt(built: Mapping[str, Any]) -> Iterator[str]:
    if "runner" in built:
        try:
            built["runner"].check(["generate", "embed"])
        except ValueError as error:
            yield f"runner: {error}"


def regressor_of(cfg: DictConfig) -> Weights:
    """The regressor that an evaluation's config names."""
    return bundled("regressor", cfg.regressor_weights)


def _regressor(cfg: DictConfig) -> Iterator[str]:
    try:
        regressor_of(cfg).verify()
    except ValueError as error:
        yield f"regressor_weights: {innermost(error)}"


def _training(cfg: DictConfig) -> Iterator[str]:
    if cfg.training is not None and not any(Path(cfg.training).glob("*.npz")):
        yield f"training: expected a folder of renders named *.npz, got {cfg.training}"


def _evaluation_bytes(cfg: DictConfig) -> int:
    sweep = len(cfg.steps) * cfg.steps_people if "steps" in cfg.generator else 0
    portraits = 2 * cfg.enrol.planner.images_per_identity * cfg.people
    return int((2 * cfg.people + sweep) * cfg.images_per_identity + portraits) * BYTES_PER_PICTURE_KEPT


def _room(folder: Path, needed: int) -> Iterator[str]:
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        yield f"run: expected {needed / 1e9:.1f} GB free for {folder}, got {free / 1e9:.1f} GB on {there}"
