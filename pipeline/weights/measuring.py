"""The models that measure: the detector and the embedders A and B. How they are made, and what they score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float32, Int64, UInt8

from benchmarks.protocols import load_protocols, score
from generation.train import export_detector, faceless, train_detector
from generation.world.scenes import PROTOCOLS, training_attributes, wild_attributes
from pipeline.protocols import WorldProtocols
from pipeline.runners.local import Local
from pipeline.weights.recipe import WeightsRecipe, polish
from pipeline.weights.renders import Order, Renders, mapped, rendered
from pipeline.weights.workers import Say, teller
from recognition.export import export_onnx
from recognition.train import CHECKPOINT, Pictures, Progress, train

PEOPLE_STREAM = 7_001  # of SeedSequence: no run, control or protocol draws its people from it
HELD_OUT_STREAM = 7_002  # people for the detector's errors and the thresholds: neither trained on nor in a protocol
TURNED_STREAM = 7_004  # people for the detector's errors by yaw
SPACES = {"detector": "", "embedder_a": "bundled-a-2", "embedder_b": "bundled-b-2"}


def render_measuring(work: Path, recipe: WeightsRecipe, processes: Executor, device: str, say: Say) -> None:
    """Renders what the measuring models are trained and scored on; what is there is not made again."""
    for name, people, stream, draw in (
        ("renders", recipe.people, PEOPLE_STREAM, training_attributes),
        ("held_out", recipe.held_out, HELD_OUT_STREAM, training_attributes),
        ("turned", recipe.held_out, TURNED_STREAM, _turned),
    ):
        rendered(work / name, Order(people, recipe.pictures, stream, draw, recipe.seed), processes, device, say)
    list(processes.map(partial(_write_protocol, work / "protocols", recipe.protocol_pairs, recipe.seed), PROTOCOLS))


def polished(folder: Path) -> Path:
    """Where the second training of an embedder is."""
    return folder / "polished"


def _turned(n: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Photographs in the wild whose yaw is spread evenly over +-75 degrees."""
    return [row | {"yaw_deg": rng.uniform(-75, 75)} for row in wild_attributes(n, rng)]


def make_detector(work: Path, recipe: WeightsRecipe, device: str) -> None:
    """Trains and exports `detector.onnx` of a work folder that has renders, unless it is there."""
    path = work / "detector.onnx"
    if path.exists():
        return
    renders = mapped(work / "renders", Renders)
    rows = recipe.detector_people * recipe.pictures
    model = train_detector(
        renders.pictures[:rows], renders.landmarks[:rows], recipe.detector, work, teller("detector"), device
    )
    export_detector(model, path)


def make_embedder(work: Path, recipe: WeightsRecipe, name: str, device: str) -> None:
    """Trains `embedder_a.onnx` or `embedder_b.onnx`, twice, and exports it, unless it is there."""
    path, folder, first = work / f"{name}.onnx", work / name, getattr(recipe, name)
    if path.exists():
        return
    data = mapped(work / "renders", Renders)
    tell = partial(_now_and_then, say=teller(name))
    pictures = Pictures(data.crops, data.labels)
    train(pictures, first, folder, tell, device=device)
    start = folder / CHECKPOINT
    trained = train(pictures, polish(first), polished(folder), tell, device=device, start=start)
    export_onnx(trained.model, path)


def _write_protocol(folder: Path, pairs: int, seed: int, name: str) -> None:
    WorldProtocols([name], pairs, seed=seed).prepare(folder, Local())


def _now_and_then(at: Progress, say: Say) -> None:
    if at.step % 100 == 0 or at.step == at.steps:
        say(str(at))


def session(path: Path, device: str = "cpu") -> onnxruntime.InferenceSession:
    """The file's session, on the GPU where torch has one and onnxruntime can use it."""
    on_gpu = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider"] if on_gpu else []
    return onnxruntime.InferenceSession(path, providers=[*providers, "CPUExecutionProvider"])


def _as_input(pixels: UInt8[np.ndarray, "b 112 112 3"]) -> Float32[np.ndarray, "b 3 112 112"]:
    return (pixels.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5


def _batches(pixels: UInt8[np.ndarray, "n 112 112 3"], size: int = 256) -> Iterator[Float32[np.ndarray, "b 3 112 112"]]:
    return (_as_input(pixels[start : start + size]) for start in range(0, len(pixels), size))


def embedder(
    path: Path, device: str = "cpu"
) -> Callable[[UInt8[np.ndarray, "n 112 112 3"]], Float32[np.ndarray, "n d"]]:
    """Raw embeddings of crops, by an exported file."""
    loaded = session(path, device)
    name = loaded.get_inputs()[0].name
    return lambda crops: np.concatenate([loaded.run(None, {name: batch})[0] for batch in _batches(crops)])


def scores_of(work: Path) -> dict[str, Any]:
    """What the card tells, from the exported files: what a user gets, not what the training had in memory."""
    protocols, held_out = load_protocols(work / "protocols"), mapped(work / "held_out", Renders)
    scores: dict[str, Any] = {
        "detector": {
            "wild": _detector_scores(work / "detector.onnx", mapped(work / "turned", Renders)),
            "hard": _detector_scores(work / "detector.onnx", held_out),
        }
    }
    for name in ("embedder_a", "embedder_b"):
        model = embedder(work / f"{name}.onnx")
        scores[name] = {
            "protocols": {protocol.name: score(protocol, model) for protocol in protocols},
            **_cosines(model(held_out.crops), held_out.labels),
        }
    (work / "scores.json").write_text(json.dumps(scores, indent=2))
    return scores


YAW_BANDS_DEG = ((0, 15), (15, 30), (30, 45), (45, 60), (60, 75.1))


def _detector_scores(path: Path, held_out: Renders) -> dict[str, Any]:
    """Mean distance in pixels of a 112 px picture, overall and by yaw; faces missed, and seen where there are none."""
    detector = session(path)
    outputs = [detector.run(["landmarks", "found"], {"pixels": batch}) for batch in _batches(held_out.pictures)]
    landmarks, found = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    error_px = np.linalg.norm(landmarks - held_out.landmarks, axis=2).mean(1)
    yaw = np.abs(held_out.yaw_deg)
    faces = torch.from_numpy(_as_input(np.ascontiguousarray(held_out.pictures[:1000])))
    empty = faceless(faces, torch.Generator().manual_seed(5)).numpy()
    seen = detector.run(["found"], {"pixels": empty})[0]
    return {
        "mean_error_px": float(error_px.mean()),
        "p95_error_px": float(np.quantile(error_px, 0.95)),
        "mean_error_px_by_yaw_deg": {
            f"{low:.0f}-{high:.0f}": float(error_px[(yaw >= low) & (yaw < high)].mean()) for low, high in YAW_BANDS_DEG
        },
        "missed_faces": float((found < 0.5).mean()),
        "false_faces": float((seen >= 0.5).mean()),
        "pictures": len(error_px),
    }


def _cosines(raw: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """Cosines within and between held-out people, and the thresholds at which impostors pass at a given rate."""
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    cosine = unit @ unit.T
    upper = np.triu(np.ones_like(cosine, bool), 1)
    same = labels[:, None] == labels[None]
    genuine, impostor = cosine[upper & same], cosine[upper & ~same]
    centres = np.stack([unit[labels == person].mean(0) for person in np.unique(labels)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    between = (centres @ centres.T)[np.triu_indices(len(centres), 1)]
    return {
        "genuine_cosine": {f"p{q:g}": float(np.percentile(genuine, q)) for q in (1, 5, 25, 50, 75, 95, 99)},
        "impostor_cosine_at_fmr": {
            f"{fmr:g}": float(np.quantile(impostor, 1 - fmr)) for fmr in (1e-1, 1e-2, 1e-3, 1e-4)
        },
        "centre_cosine": {f"p{q:g}": float(np.percentile(between, q)) for q in (50, 90, 99, 99.9)},
    }
