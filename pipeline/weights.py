"""`make weights`: trains the bundled measuring models on renders alone, scores them on others, and writes the card.

Everything is seeded; every part leaves a file in the work folder, and a part whose file is there is not made again.
The people trained on come from one stream of random numbers (`PEOPLE_STREAM`), those scored on from others.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float32, Int64, UInt8
from jinja2 import StrictUndefined, Template

from benchmarks.protocols import load_protocols, score
from generation.train import DetectorRecipe, export_detector, faceless, train_detector
from generation.world import attribute_table, render, sample_people
from generation.world.scenes import PROTOCOLS, training_attributes, wild_attributes
from pipeline.protocols import WorldProtocols
from pipeline.runners.local import Local
from recognition.augment import Augment
from recognition.export import export_onnx
from recognition.margins import CosFace
from recognition.train import CHECKPOINT, Progress, Recipe, train
from stages.embed.align import crop

Say = Callable[[str], None]
Draw = Callable[[int, np.random.Generator], list[dict[str, float]]]

PEOPLE_STREAM = 7_001  # of SeedSequence: no run, control or protocol draws its people from it
HELD_OUT_STREAM = 7_002  # people for the detector's errors and the thresholds: neither trained on nor in a protocol
TURNED_STREAM = 7_004  # people for the detector's errors by yaw
BLOCK = 25  # people rendered by one job


def _embedder_recipe(backbone: str, seed: int) -> Recipe:
    return Recipe(
        backbone=backbone,
        margin=CosFace(margin_cosine=0.2, scale=24.0),  # ArcFace 0.4 at scale 32 stood still for its first epoch
        epochs=14,
        batch_size=128,
        peak_lr=2e-3,
        optimizer="adamw",
        weight_decay=5e-2,
        schedule="cosine",
        warmup_epochs=1,
        precision="bf16",
        seed=seed,
        threads=1,
    )


def _polish(recipe: Recipe) -> Recipe:
    """A second, gentler training that begins with the first: a wider margin, and augmentation close to none."""
    # The renders have low resolution, blur and glasses of their own.
    augment = Augment(
        shift_px=1.0,
        scale=0.02,
        rotate_deg=2.0,
        brightness=0.1,
        contrast=0.15,
        low_resolution=0.05,
        blur=0.05,
        erase=0.05,
    )
    margin = CosFace(margin_cosine=0.3, scale=24.0)
    return replace(recipe, margin=margin, augment=augment, epochs=6, peak_lr=1e-3, warmup_epochs=0.5)


@dataclass(frozen=True)
class WeightsRecipe:
    """What `make weights` makes.

    Attributes:
        people: How many people the models are trained on.
        pictures: Photographs of each.
        detector_people: The first people whose whole pictures train the detector.
        held_out: People for the detector's errors and the thresholds.
        protocol_pairs: Pairs of each protocol that the embedders are scored on.
        seed: Of everything.
    """

    people: int = 4000
    pictures: int = 12
    detector_people: int = 1500
    held_out: int = 200
    protocol_pairs: int = 2000
    seed: int = 20_26
    detector: DetectorRecipe = field(default_factory=lambda: DetectorRecipe(steps=4500, threads=1))
    embedder_a: Recipe = field(default_factory=lambda: _embedder_recipe("residual_a", seed=1))
    embedder_b: Recipe = field(default_factory=lambda: _embedder_recipe("plain_b", seed=2))


@dataclass(frozen=True)
class Renders:
    """Photographs in memory maps: whole pictures with their landmarks, aligned crops, and whose they are."""

    pictures: UInt8[np.ndarray, "n 112 112 3"]
    landmarks: Float32[np.ndarray, "n 5 2"]
    crops: UInt8[np.ndarray, "n 112 112 3"]
    labels: Int64[np.ndarray, " n"]
    yaw_deg: Float32[np.ndarray, " n"]


def make_weights(
    out: Path,
    work: Path,
    recipe: WeightsRecipe | None = None,
    workers: int = 2,
    device: str | None = None,
    say: Say = print,
) -> None:
    """Trains, exports and scores the detector and both embedders; writes `weights.json` and `CARD.md` beside them.

    Args:
        out: Where the weights go.
        work: Renders, checkpoints and protocols; what is there is not made again.
        recipe: What to make; the default is what was shipped.
        workers: Processes at a time, one thread each.
        device: Where torch computes; by default the GPU where there is one, which is said.
    Raises:
        ValueError: If `work` belongs to another recipe.
    """
    recipe = recipe or WeightsRecipe()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    say(f"weights: {recipe.people} people x {recipe.pictures} renders on {device}, {workers} processes")
    _claim(work, recipe)
    for name, people, stream, draw in (
        ("renders", recipe.people, PEOPLE_STREAM, training_attributes),
        ("held_out", recipe.held_out, HELD_OUT_STREAM, training_attributes),
        ("turned", recipe.held_out, TURNED_STREAM, _turned),
    ):
        _render(work / name, people, stream, draw, recipe, workers, device, say)
    jobs = [
        partial(_train_detector, work / "renders", recipe, work, device),
        partial(_train_embedder, work / "renders", recipe.embedder_a, work / "embedder_a", device),
        partial(_train_embedder, work / "renders", recipe.embedder_b, work / "embedder_b", device),
    ]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_write_protocol, work / "protocols", recipe.protocol_pairs, recipe.seed), PROTOCOLS))
    scores = _scores(work)
    _publish(work, out, recipe, scores)
    say(f"weights: wrote {out / 'CARD.md'}")


def _told(recipe: WeightsRecipe) -> dict[str, Any]:
    """All that the recipe says, the second training of the embedders included."""
    return asdict(recipe) | {"polish_of_embedder_a": asdict(_polish(recipe.embedder_a))}


def _claim(work: Path, recipe: WeightsRecipe) -> None:
    wanted = json.loads(json.dumps(_told(recipe)))
    claim = work / "recipe.json"
    if claim.exists() and json.loads(claim.read_text()) != wanted:
        raise ValueError(
            f"expected {work} to hold the work of recipe {json.dumps(wanted)}, got that of {claim.read_text()}"
        )
    work.mkdir(parents=True, exist_ok=True)
    claim.write_text(json.dumps(wanted, indent=2))


def _render(
    folder: Path, people: int, stream: int, draw: Draw, recipe: WeightsRecipe, workers: int, device: str, say: Say
) -> None:
    """Renders `people` x `pictures` in blocks, each a file that is there once it is whole, then joins them."""
    blocks = range(0, people, BLOCK)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [first for first in blocks if not (folder / f"{first:06d}.npz").exists()]
    seed, pictures = recipe.seed, recipe.pictures
    job = partial(_render_block, folder, pictures=pictures, stream=stream, seed=seed, device=device, draw=draw)
    started = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(job, missing), 1):
            if done % 10 == 0 or done == len(missing):
                rate = done * BLOCK * pictures / (time.perf_counter() - started)
                say(f"{folder.name}: {done}/{len(missing)} blocks of {BLOCK} people, {rate:.0f} pictures/s")
    _join(folder, [folder / f"{first:06d}.npz" for first in blocks])


def _turned(n: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Photographs in the wild whose yaw is spread evenly over +-75 degrees."""
    return [row | {"yaw_deg": rng.uniform(-75, 75)} for row in wild_attributes(n, rng)]


def _render_block(folder: Path, first: int, *, pictures: int, stream: int, seed: int, device: str, draw: Draw) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([stream, seed, first])
    vectors = sample_people(BLOCK, rng)
    rows = [row for _ in range(BLOCK) for row in draw(pictures, rng)]
    seeds = rng.integers(0, 2**63 - 1, len(rows))
    drawn = render(np.repeat(vectors, pictures, 0), attribute_table(rows), seeds, device=device)
    part = folder / f"{first:06d}.part"
    with part.open("wb") as file:
        np.savez(
            file,
            pictures=drawn.pixels,
            landmarks=drawn.landmarks,
            crops=crop(drawn.pixels, drawn.landmarks),
            labels=np.repeat(np.arange(first, first + BLOCK), pictures),
            yaw_deg=np.array([row["yaw_deg"] for row in rows], np.float32),
        )
    os.replace(part, folder / f"{first:06d}.npz")


ARRAYS = ("pictures", "landmarks", "crops", "labels", "yaw_deg")


def _join(folder: Path, blocks: Sequence[Path]) -> None:
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if not path.exists():
            np.save(folder / f"{name}.part.npy", np.concatenate([np.load(block)[name] for block in blocks]))
            os.replace(folder / f"{name}.part.npy", path)


def _mapped(folder: Path) -> Renders:
    """The joined renders, read from the disk where they are used: workers share the pages and copy none."""
    return Renders(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS})


def _train_detector(folder: Path, recipe: WeightsRecipe, work: Path, device: str) -> None:
    renders = _mapped(folder)
    rows = recipe.detector_people * recipe.pictures
    if not (work / "detector.onnx").exists():
        model = train_detector(
            renders.pictures[:rows], renders.landmarks[:rows], recipe.detector, work, _say("detector"), device
        )
        export_detector(model, work / "detector.onnx")


def _train_embedder(renders: Path, recipe: Recipe, folder: Path, device: str) -> None:
    if not folder.with_suffix(".onnx").exists():
        data = _mapped(renders)
        say = _say(folder.name)
        tell = partial(_now_and_then, say=say)
        train(data.crops, data.labels, recipe, folder, tell, device=device)
        start, polished = folder / CHECKPOINT, folder / "polished"
        trained = train(data.crops, data.labels, _polish(recipe), polished, tell, device=device, start=start)
        export_onnx(trained.model, folder.with_suffix(".onnx"))


def _write_protocol(folder: Path, pairs: int, seed: int, name: str) -> None:
    WorldProtocols([name], pairs, seed=seed).prepare(folder, Local())


def _now_and_then(at: Progress, say: Say) -> None:
    if at.step % 100 == 0 or at.step == at.steps:
        say(str(at))


def _say(name: str) -> Say:
    """Progress lines of a worker process, which cannot carry the parent's callable."""
    return lambda line: print(f"[{name}] {line}", flush=True)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _as_input(pixels: UInt8[np.ndarray, "b 112 112 3"]) -> Float32[np.ndarray, "b 3 112 112"]:
    return (pixels.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5


def _batches(pixels: UInt8[np.ndarray, "n 112 112 3"], size: int = 256) -> Iterator[Float32[np.ndarray, "b 3 112 112"]]:
    return (_as_input(pixels[start : start + size]) for start in range(0, len(pixels), size))


def _embedder(path: Path) -> Callable[[UInt8[np.ndarray, "n 112 112 3"]], Float32[np.ndarray, "n d"]]:
    session = _session(path)
    name = session.get_inputs()[0].name
    return lambda crops: np.concatenate([session.run(None, {name: batch})[0] for batch in _batches(crops)])


def _scores(work: Path) -> dict[str, Any]:
    """What the card tells, from the exported files: what a user gets, not what the training had in memory."""
    protocols, held_out = load_protocols(work / "protocols"), _mapped(work / "held_out")
    scores: dict[str, Any] = {
        "detector": {
            "wild": _detector_scores(work / "detector.onnx", _mapped(work / "turned")),
            "hard": _detector_scores(work / "detector.onnx", held_out),
        }
    }
    for name in ("embedder_a", "embedder_b"):
        model = _embedder(work / f"{name}.onnx")
        scores[name] = {
            "protocols": {protocol.name: score(protocol, model) for protocol in protocols},
            **_cosines(model(held_out.crops), held_out.labels),
        }
    (work / "scores.json").write_text(json.dumps(scores, indent=2))
    return scores


YAW_BANDS_DEG = ((0, 15), (15, 30), (30, 45), (45, 60), (60, 75.1))


def _detector_scores(path: Path, held_out: Renders) -> dict[str, Any]:
    """Mean distance in pixels of a 112 px picture, overall and by yaw; faces missed, and seen where there are none."""
    session = _session(path)
    outputs = [session.run(["landmarks", "found"], {"pixels": batch}) for batch in _batches(held_out.pictures)]
    landmarks, found = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    error_px = np.linalg.norm(landmarks - held_out.landmarks, axis=2).mean(1)
    yaw = np.abs(held_out.yaw_deg)
    faces = torch.from_numpy(_as_input(np.ascontiguousarray(held_out.pictures[:1000])))
    empty = faceless(faces, torch.Generator().manual_seed(5)).numpy()
    seen = session.run(["found"], {"pixels": empty})[0]
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


def _publish(work: Path, out: Path, recipe: WeightsRecipe, scores: dict[str, Any]) -> None:
    spaces = {"detector": "", "embedder_a": "bundled-a-1", "embedder_b": "bundled-b-1"}
    listed = {}
    for name, space in spaces.items():
        shutil.copyfile(work / f"{name}.onnx", out / f"{name}.onnx")
        content = (out / f"{name}.onnx").read_bytes()
        dimensions = _session(out / f"{name}.onnx").get_outputs()[0].shape[1] if space else 0
        listed[name] = {
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "space": space,
            "dimensions": dimensions,
        }
    (out / "weights.json").write_text(json.dumps(listed, indent=2) + "\n")
    (out / "CARD.md").write_text(_card(listed, recipe, scores))


def _card(listed: Mapping[str, Any], recipe: WeightsRecipe, scores: Mapping[str, Any]) -> str:
    """CARD.md: data, recipe, scores, hashes."""
    source = Path(__file__).with_name("weights_card.md.jinja").read_text()
    template = Template(source, undefined=StrictUndefined, trim_blocks=True)
    machine = f"{platform.machine()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    return template.render(listed=listed, recipe=_told(recipe), scores=scores, machine=machine) + "\n"
