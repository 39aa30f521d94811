"""Verify: scores the recognisers on the protocols, and the dataset in the witness's eyes: scores.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.runners import Runner
from pipeline.steps.files import digest, expect, read_json, sha256_of, write_text
from pipeline.steps.make import shards_digest
from pipeline.steps.order import Lazy
from pipeline.steps.train import evenly


def verify(
    run: RunDir, protocols: Lazy, witness: Lazy, witness_made_from: str, witness_images: int, runner: Runner, anew: bool
) -> None:
    """Scores the recogniser, the control's, and the dataset as the witness sees it: scores.json.

    Args:
        protocols: Builds what writes the verification sets.
        witness: Builds an embedder that had no part in making the dataset.
        witness_made_from: Its fingerprint.
        witness_images: How many pictures it looks at, at most.
        anew: Whether to do it again where nothing changed.
    """
    from benchmarks.protocols import load_protocols

    expect(run.model / "model.json", "train")
    protocols().prepare(run.protocols, runner)
    inputs = digest(
        sha256_of(run.model / "model.json"),
        sha256_of(run.control.model / "model.json"),
        *(sha256_of(path) for path in sorted(run.protocols.glob("*.bin"))),
        shards_digest(run),
        witness_made_from,
        str(witness_images),
    )
    if read_json(run.scores).get("inputs") == inputs and not anew:
        say(f"verify: {run.scores} is up to date")
        return
    sets = load_protocols(run.protocols)
    scores = {
        "inputs": inputs,
        "recogniser": _scores_of(run, sets),
        "control": _scores_of(run.control, sets) if (run.control.model / "model.json").exists() else None,
        "witness": _witnessed(run, witness, witness_images),
    }
    write_text(run.scores, json.dumps(scores, indent=1))
    _tell(scores)


def _scores_of(run: RunDir, sets: Sequence[Any]) -> dict[str, Any]:
    """What the recogniser in model/ scores on every protocol."""
    from benchmarks.protocols import score

    told = json.loads((run.model / "model.json").read_text())
    network = _network(run.model / "recogniser.onnx")
    scores = {}
    with Watch(f"verify {run.root.name}", sum(len(each.images) for each in sets), "pictures") as watch:
        for each in sets:
            scores[each.name] = score(each, network)
            watch.advance(len(each.images))
    return {"protocols": scores, **{name: told[name] for name in ("images", "identities", "recipe_sha256")}}


def _network(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The exported recogniser as protocols want it: RGB crops, uint8 (b, 112, 112, 3), to raw embeddings (b, d)."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def embed(crops: np.ndarray) -> np.ndarray:
        x = (crops.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        parts = [session.run(None, {"input.1": x[start : start + 64]})[0] for start in range(0, len(x), 64)]
        return np.concatenate(parts)

    return embed


def _witnessed(run: RunDir, witness: Lazy, most: int) -> dict[str, Any]:
    """How well people hold together and apart in the eyes of an embedder that had no part in making them (law 7)."""
    from benchmarks.measures import witness as measure
    from recognition.shards import load_training_set

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


def mean_accuracy(run: RunDir) -> float | None:
    """Mean accuracy of the recogniser over the protocols; None before it is verified. What a sweep compares."""
    scores = read_json(run.scores).get("recogniser")
    return None if scores is None else float(np.mean([each["accuracy"] for each in scores["protocols"].values()]))
