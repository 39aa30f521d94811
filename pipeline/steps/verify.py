"""Verify: scores the recognisers on the protocols, and the dataset in the witness's eyes: scores.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.runners import Runner
from pipeline.steps.files import digest, expect, read_json, write_text
from pipeline.steps.make import shards_digest
from pipeline.steps.order import Lazy
from pipeline.steps.train import FINISHED, evenly
from recognition.files import sha256_of


def verify(
    run: RunDir,
    protocols: Lazy,
    witness: Lazy,
    witness_made_from: str,
    witness_images: int,
    recognisers: int,
    runner: Runner,
    anew: bool,
) -> None:
    """Scores the recognisers, the control's, and the dataset as the witness sees it: scores.json.

    Args:
        protocols: Builds what writes the verification sets.
        witness: Builds an embedder that had no part in making the dataset.
        witness_made_from: Its fingerprint.
        witness_images: How many pictures it looks at, at most.
        recognisers: How many were trained on the dataset, and on the control.
        anew: Whether to do it again where nothing changed.
    """
    from benchmarks.protocols import load_protocols

    sides = [run, run.control] if (run.control.model() / FINISHED).exists() else [run]
    models = [side.model(number) / FINISHED for side in sides for number in range(recognisers)]
    for path in models:
        expect(path, "train")
    protocols().prepare(run.protocols, runner)
    inputs = digest(
        *map(sha256_of, (*models, *sorted([*run.protocols.glob("*.bin"), *run.protocols.glob("*.people.json")]))),
        shards_digest(run),
        witness_made_from,
        str(witness_images),
    )
    if read_json(run.scores).get("inputs") == inputs and not anew:
        say(f"verify: {run.scores} is up to date")
        return
    sets = load_protocols(run.protocols)
    scored = [_scores_of(side, sets, recognisers) for side in sides]
    scores = {
        "inputs": inputs,
        "recogniser": scored[0],
        "control": scored[1] if len(scored) == 2 else None,
        "verdict": _verdict(*scored) if len(scored) == 2 and recognisers > 1 else None,
        "witness": _witnessed(run, witness, witness_images),
    }
    write_text(run.scores, json.dumps(scores, indent=1))
    _tell(scores)


def _scores_of(run: RunDir, sets: Sequence[Any], recognisers: int) -> dict[str, Any]:
    """What the recognisers score on every protocol: together, and each by itself."""
    from benchmarks.seeds import mean_score

    told = [json.loads((run.model(number) / FINISHED).read_text()) for number in range(recognisers)]
    with Watch(f"verify {run.root.name}", recognisers * sum(2 * len(each.same) for each in sets), "pictures") as watch:
        scores = [_scored(run.model(number), sets, watch) for number in range(recognisers)]
    return {
        "protocols": {each.name: mean_score([by_name[each.name] for by_name in scores]) for each in sets},
        "seeds": [{"seed": one["seed"], "protocols": by_name} for one, by_name in zip(told, scores, strict=True)],
        **{name: told[0][name] for name in ("images", "identities", "recipe_sha256")},
    }


def _scored(model: Path, sets: Sequence[Any], watch: Watch) -> dict[str, Any]:
    """What the recogniser in a folder scores on every protocol."""
    from benchmarks.models import Settings, load_model
    from benchmarks.protocols import entry, measure

    network, scores = load_model(model / "recogniser.onnx", Settings(device="cpu")), {}
    for each in sets:
        scores[each.name] = entry(measure(each, network, watch=watch.advance))
    return scores


def _verdict(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The gap between dataset and control, paired by seed."""
    from benchmarks.seeds import paired_verdict

    on_dataset, on_control = ([each["protocols"] for each in side["seeds"]] for side in (ours, theirs))
    return paired_verdict(on_dataset, on_control)


def _witnessed(run: RunDir, witness: Lazy, most: int) -> dict[str, Any]:
    """How well people hold together and apart in the eyes of an embedder that had no part in making them (law 7)."""
    from benchmarks.measures import witness as measure
    from recognition.formats.shards import load_training_set

    data = load_training_set(sorted(run.shards.glob("*.tar")))
    rows, eyes = evenly(data.labels, most), witness()
    with Watch("verify witness", len(rows), "pictures") as watch:
        parts = []
        for start in range(0, len(rows), 256):
            parts.append(eyes.embed_crops(data.images[rows[start : start + 256]])[0])
            watch.advance(len(parts[-1]))
    return dict(measure(np.concatenate(parts), data.labels[rows], eyes.space))


def _tell(scores: Mapping[str, Any]) -> None:
    """The scores as lines, the control's beside them."""
    control = scores["control"]
    for name, result in scores["recogniser"]["protocols"].items():
        line = f"verify: {name:16} {100 * result['accuracy']:6.2f} % +- {100 * result['accuracy_std']:.2f}"
        say(line + (f", control {100 * control['protocols'][name]['accuracy']:6.2f} %" if control else ""))
    if scores["verdict"]:
        say(f"verify: {scores['verdict']['said']}, {scores['verdict']['seeds']} seeds")


def mean_accuracy(run: RunDir) -> float | None:
    """Mean accuracy of the recognisers over the protocols; None before it is verified. What a sweep compares."""
    scores = read_json(run.scores).get("recogniser")
    return None if scores is None else float(np.mean([each["accuracy"] for each in scores["protocols"].values()]))
