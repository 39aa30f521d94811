"""Scores models on verification sets: what `facemint verify` does, apart from its words and its table."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fruits import fruits, one_thread
from benchmarks.models import WEIGHTS, Loaded, Settings, checkpoints, load_model, model_files
from benchmarks.protocols import BATCH, Measured, Protocol, entry, measure
from benchmarks.seeds import mean_score, paired_verdict
from benchmarks.sets import Opening, Set, open_sets
from benchmarks.templates import SETTINGS, TemplateSet, embed_pictures, score_templates
from benchmarks.tinyface import TinyFace, score_tinyface
from benchmarks.verdicts import model_verdict
from benchmarks.verify import PROTOCOL
from pipeline.progress import Watch, say
from pipeline.verification.fruits import whole_pipeline
from recognition.files import sha256_of
from stages.embed.align import crop_of

FORMAT = "facemint-verify-1"
BY_RULE = "the last epoch is scored, by rule"


@dataclass(frozen=True)
class Order:
    """What is to be verified, and how.

    Args:
        model: A file, a run directory, or, with `choose_on`, a folder of checkpoints.
        protocols: Paths of sets.
        against: Another model, or run directory of as many recognisers, to be compared with.
        settings: How models are loaded. theirs: How `against` is; None: alike.
        opening: How sets are opened.
        flip: Whether the mirror image is added.
        choose_on: Name of the set on which the best of a folder's checkpoints is chosen; None: nothing is chosen.
        template_settings: Of IJB: keys of `benchmarks.templates.SETTINGS`.
        timed: Whether the whole pipeline is timed (FRUITS).
        work: Where features of IJB go while they are needed; None: the system's place for such files.
    Raises:
        ValueError: If there are no protocols, or a setting is unknown.
    """

    model: Path
    protocols: Sequence[Path]
    against: Path | None = None
    settings: Settings = field(default_factory=Settings)
    theirs: Settings | None = None
    opening: Opening = field(default_factory=Opening)
    flip: bool = True
    choose_on: str | None = None
    template_settings: Sequence[str] = ("N1D1F1",)
    timed: bool = False
    work: Path | None = None

    def __post_init__(self) -> None:
        if not self.protocols:
            raise ValueError("protocols: expected at least one verification set, got none")
        unknown = [each for each in self.template_settings if each not in SETTINGS]
        if unknown or not self.template_settings:
            raise ValueError(f"ijb: expected some of {', '.join(SETTINGS)}, got {', '.join(unknown) or 'none'}")


@dataclass(frozen=True, eq=False)
class Scored:
    """One model on all sets: what it is, its entries, and its pairs where a set has them."""

    about: Mapping[str, Any]
    protocols: Mapping[str, dict[str, Any]]
    measured: Mapping[str, Measured]


def verify_order(order: Order) -> dict[str, Any]:
    """Scores what is ordered. All files are opened, and all that can be wrong with them is said, before scoring.

    Raises:
        ValueError: If a model or a set cannot be read or does not do; names file and fault.
    """
    sets = _sets(order)
    candidates = checkpoints(order.model) if order.choose_on and order.model.is_dir() else []
    files = [] if candidates else model_files(order.model)
    others = [] if order.against is None else model_files(order.against)
    _check_backbones(order, candidates or files, others)
    models = [load_model(file, order.settings) for file in files]
    rivals = [load_model(file, order.theirs or order.settings) for file in others]
    if rivals and len(rivals) != len(models):
        raise ValueError(f"against: expected as many models on both sides, got {len(models)} and {len(rivals)}")
    chosen: dict[str, Any] = {"chosen_on": None, "checkpoint": BY_RULE}
    if order.choose_on:
        model, chosen = _chosen(order, candidates, sets)
        models = [model]
    ours = [_scored(model, sets, order) for model in models]
    theirs = [_scored(model, sets, order) for model in rivals]
    told = _side(ours)
    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        **chosen,
        **told,
        "flip": order.flip,
        "mean_accuracy": _mean_accuracy(told["protocols"]),
        "groups": _groups(told["protocols"]),
        "sets": {each.name: _about_set(each) for each in sets},
        "against": _side(theirs) if theirs else None,
        "verdict": _verdict(ours, theirs, order) if theirs else None,
        "fruits": _fruits(order, sets, models[0]) if order.timed else None,
        "hardware": _hardware(),
    }


def _sets(order: Order) -> list[Set]:
    sets = [each for path in order.protocols for each in open_sets(path, order.opening)]
    names = [each.name for each in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"protocols: expected each name once, got {', '.join(twice)} more than once")
    if order.choose_on and order.choose_on not in [each.name for each in sets if isinstance(each, Protocol)]:
        raise ValueError(f"choose-on: expected one of the sets of pairs, {', '.join(names)}, got {order.choose_on!r}")
    if order.timed and not any(isinstance(each, Protocol) for each in sets):
        raise ValueError(f"fruits: expected a set of pairs to time, got {', '.join(names)}")
    said = order.opening.of_lists
    if said and not any(isinstance(each, Protocol) and each.about["kind"] == "pairs" for each in sets):
        raise ValueError(f"{', '.join(said)}: expected with lists of pairs alone, got {', '.join(names)}")
    for each in sets:
        if isinstance(each, Protocol) and each.coverage < 1:
            say(f"verify: {each.name}: {len(each.same)} of {each.asked} pairs have both of their pictures")
    return sets


def _check_backbones(order: Order, files: Sequence[Path], others: Sequence[Path]) -> None:
    """Raises ValueError where a network is named that no file needs: an ONNX file has its graph."""
    ours, theirs = order.settings.backbone, (order.theirs or order.settings).backbone
    meant = [(ours, [*files, *others])] + ([(theirs, [*others])] if theirs != ours else [])
    for named, models in meant:
        if named and all(each.suffix == ".onnx" for each in models):
            found = ", ".join(map(str, models)) or "no model"
            raise ValueError(f"backbone: expected with {', '.join(WEIGHTS)} alone, got {named} with {found}")


def _chosen(order: Order, candidates: Sequence[Path], sets: Sequence[Set]) -> tuple[Loaded, dict[str, Any]]:
    """The checkpoint that is best on the set which is chosen on; its score there is no test, and says so."""
    if len(candidates) < 2:
        raise ValueError(f"choose-on: expected a folder of checkpoints to choose from, got {order.model}")
    judge = next(each for each in sets if each.name == order.choose_on and isinstance(each, Protocol))
    accuracy = {}
    for file in candidates:
        model = load_model(file, order.settings)
        with Watch(f"choose {file.name}", 2 * len(judge.same), "pictures") as watch:
            accuracy[file.name] = measure(judge, model, flip=order.flip, watch=watch.advance).accuracy
    best = max(candidates, key=lambda file: accuracy[file.name])  # the first of the best
    told = {"chosen_on": order.choose_on, "checkpoint": f"{best.name}, chosen on {order.choose_on}: not a test score"}
    return load_model(best, order.settings), {**told, "candidates": accuracy}


def _scored(model: Loaded, sets: Sequence[Set], order: Order) -> Scored:
    protocols, measured = dict[str, dict[str, Any]](), dict[str, Measured]()
    for each in sets:
        with Watch(f"verify {each.name}", _pictures(each), "pictures") as watch:
            if isinstance(each, Protocol):
                measured[each.name] = measure(each, model, flip=order.flip, watch=watch.advance)
                protocols[each.name] = entry(measured[each.name])
            elif isinstance(each, TinyFace):
                protocols[each.name] = score_tinyface(each, model, order.flip, watch=watch.advance)
            else:
                protocols.update(_templates(each, model, order, watch))
    return Scored(model.about, protocols, measured)


def _templates(data: TemplateSet, model: Loaded, order: Order, watch: Watch) -> dict[str, dict[str, Any]]:
    """IJB under each setting: `ijbc` for the first, `ijbc N0D1F1` for others."""
    with tempfile.TemporaryDirectory(dir=order.work) as work:
        features = embed_pictures(data, model, crop_of, Path(work), BATCH, watch.advance)
        return {
            data.name if place == 0 else f"{data.name} {name}": score_templates(data, features, SETTINGS[name])
            for place, name in enumerate(order.template_settings)
        }


def _side(scored: Sequence[Scored]) -> dict[str, Any]:
    """What one side scores: its one model, or the mean of its seeds with each of them."""
    if len(scored) == 1:
        return {"model": dict(scored[0].about), "protocols": dict(scored[0].protocols)}
    pairs = scored[0].measured
    return {
        "model": {"seeds": [dict(each.about) for each in scored]},
        "protocols": {name: mean_score([each.protocols[name] for each in scored]) for name in pairs},
        "seeds": [{"file": each.about["file"], "protocols": dict(each.protocols)} for each in scored],
    }


def _verdict(ours: Sequence[Scored], theirs: Sequence[Scored], order: Order) -> dict[str, Any] | None:
    """Two models on the same pairs, or two sets of seeds; None where no set has pairs of pictures."""
    if not ours[0].measured:
        return None
    names = (_called(order.model), _called(order.against or order.model))
    names = names if names[0] != names[1] else ("the model", "the other")
    if len(ours) == 1:
        return model_verdict(ours[0].measured, theirs[0].measured, names)
    by_seed = [[{name: each.protocols[name] for name in each.measured} for each in side] for side in (ours, theirs)]
    return paired_verdict(by_seed[0], by_seed[1], names)


def _called(path: Path) -> str:
    """A short name: the file's, or its folder's where the file's says nothing."""
    return path.parent.name if path.name in ("recogniser.onnx", "checkpoint.pt") else path.stem


def _fruits(order: Order, sets: Sequence[Set], model: Loaded) -> dict[str, Any]:
    """The pipeline of the bundled detector and the first model, timed on one thread."""
    with one_thread():
        alone = load_model(Path(model.about["file"]), replace(order.settings, threads=1, device="cpu", batch=2))
        pipeline, told = whole_pipeline(alone, order.flip), {}
        for each in sets:
            if isinstance(each, Protocol):
                with Watch(f"fruits {each.name}", len(each.pictures), "pictures") as watch:
                    told[each.name] = fruits(each, pipeline, watch=watch.advance)
    return told


def _pictures(each: Set) -> int:
    if isinstance(each, Protocol):
        return 2 * len(each.same)
    return len(each.pictures) if isinstance(each, TemplateSet) else len(each.gallery) + len(each.probes)


def _mean_accuracy(protocols: Mapping[str, Mapping[str, Any]]) -> float | None:
    found = [each["accuracy"] for each in protocols.values() if "accuracy" in each]
    return float(np.mean(found)) if found else None


def _groups(protocols: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """RFW's groups together: mean, spread (ddof 1, as TFace has it), and the worst against the best."""
    rfw = {name: each["accuracy"] for name, each in protocols.items() if name.startswith("rfw_")}
    if len(rfw) < 2:
        return {}
    values = np.array([*rfw.values()])
    told = {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
    return {"rfw": {**told, "worst": min(rfw, key=rfw.__getitem__), "gap": float(values.max() - values.min())}}


def _about_set(each: Set) -> dict[str, Any]:
    if isinstance(each, Protocol):
        return dict(each.about)
    hashes = {path.name: sha256_of(path) for path in each.meta}
    return {"source": str(each.meta[0].parent), "sha256_of_lists": hashes}


def _hardware() -> dict[str, Any]:
    import onnxruntime
    import torch

    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The CPU's name where the system tells it."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
