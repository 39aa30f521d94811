"""A small run on disk, in the agreed format: 6 people, 8 photographs each, 2 chunks, scores beside a control."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.seeds import mean_score, paired_verdict
from recognition.formats.shards import Sample, write_shard

PEOPLE, PHOTOGRAPHS, CHUNKS = 6, 8, 2
RULES = ("face_found", "own_identity", "nearest_other", "near_duplicate")


def blots(identity: int, row: int) -> np.ndarray:
    """A picture of nobody: soft blots in a person's colour."""
    colour = np.random.default_rng(identity).integers(60, 200, 3)
    rough = np.clip(colour + np.random.default_rng([identity, row]).normal(0, 40, (4, 4, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(rough).resize((112, 112), Image.Resampling.BICUBIC))


def jpeg_of(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def scores_of(mean: float, seed: int) -> dict[str, object]:
    folds = np.clip(np.random.default_rng(seed).normal(mean, 0.012, 10), 0, 1)
    at = float(folds.mean())
    return {
        "protocol": "insightface-v1",
        "pairs": 3000,
        "accuracy": at,
        "accuracy_std": float(folds.std()),
        "folds": folds.tolist(),
        "interval95": [at - 0.009, at + 0.008],
        "tar": at - 0.2,
        "far_target": 0.001,
        "far": 0.0011,
        "resolvable": True,
        "auc": min(at + 0.04, 0.999),
        "eer": 1 - at,
    }


def scores_json(people: int, kept: int) -> dict[str, object]:
    means = {"cross_age": 0.887, "cross_pose": 0.861, "frontal_profile": 0.874, "low_quality": 0.842, "wild": 0.951}
    rng = np.random.default_rng(0)
    genuine = np.histogram(rng.normal(0.62, 0.14, 20_000).clip(-1, 1), 100, (-1, 1))[0]
    impostor = np.histogram(rng.normal(0.06, 0.12, 900_000).clip(-1, 1), 100, (-1, 1))[0]
    sides = {
        side: {
            "protocols": {
                name: scores_of(mean + shift, seed + place) for place, (name, mean) in enumerate(means.items())
            },
            "images": kept,
            "identities": people,
            "recipe_sha256": "4fd0" * 16,
        }
        for side, shift, seed in (("recogniser", 0.0, 1), ("control", 0.017, 9))
    }
    witness = {
        "space": "bundled-b-2",
        "images": kept,
        "identities": people,
        "genuine_pairs": 20_000,
        "genuine_mean": 0.62,
        "genuine_std": 0.14,
        "impostor_pairs": 1_900_000,
        "impostor_pairs_used": 900_000,
        "impostor_mean": 0.06,
        "impostor_std": 0.12,
        "auc_own_vs_other": 0.9981,
        "eer": 0.016,
        "seed": 0,
        "histogram": {"low": -1.0, "high": 1.0, "genuine": genuine.tolist(), "impostor": impostor.tolist()},
    }
    return {**sides, "witness": witness}


def with_seeds(said: dict[str, Any], shift: float) -> dict[str, Any]:
    """The scores of three trainings; the dataset's are `shift` above those of the control, give or take the folds."""
    trained = {}
    for side, base, seed in (("recogniser", 0.86 + shift, 100), ("control", 0.86, 200)):
        names = list(said[side]["protocols"])
        trained[side] = [
            {name: scores_of(base, seed + 10 * k + place) for place, name in enumerate(names)} for k in range(3)
        ]
    for side, by_seed in trained.items():
        means = {name: mean_score([each[name] for each in by_seed]) for name in by_seed[0]}
        seeds = [{"seed": 40 + k, "protocols": each} for k, each in enumerate(by_seed)]
        said[side] |= {"protocols": means, "seeds": seeds}
    return {**said, "verdict": paired_verdict(trained["recogniser"], trained["control"])}


def build_run(
    root: Path,
    people: int = PEOPLE,
    photographs: int = PHOTOGRAPHS,
    chunks: int = CHUNKS,
    paint: Callable[[int, int], np.ndarray] = blots,
    seed: int = 0,
) -> Path:
    """Writes every file of a run below `root`, as the stations and the steps write them."""
    rng = np.random.default_rng(seed)
    rows = people * photographs
    identity = np.repeat(np.arange(people), photographs)
    key = [f"{i:06d}_{k:03d}" for i in range(people) for k in range(photographs)]
    chunk = identity * chunks // people
    attributes = {
        "smile": rng.uniform(0, 1, rows),
        "yaw_deg": rng.normal(0, 28, rows).clip(-75, 75),
        "age_years": np.repeat(rng.uniform(18, 60, people), photographs) + rng.normal(0, 6, rows),
        "glasses": rng.choice([0.0, 1.0, 2.0], rows, p=[0.7, 0.2, 0.1]),
        "light_azimuth_deg": rng.uniform(-90, 90, rows),
        "jpeg_quality": np.full(rows, 95.0),
    }
    own = (0.72 - 0.004 * np.abs(attributes["yaw_deg"]) + rng.normal(0, 0.08, rows)).clip(-1, 1)
    measured = {
        "face_found": np.where(rng.random(rows) < 0.02, 0.2, rng.uniform(0.93, 1, rows)),
        "own_identity": own,
        "nearest_other": rng.normal(0.2, 0.07, rows),
        "near_duplicate": rng.uniform(0.3, 0.99, rows),
    }
    failed = np.stack(
        [
            measured["face_found"] < 0.5,
            measured["own_identity"] < 0.45,
            measured["nearest_other"] > 0.4,
            measured["near_duplicate"] > 0.97,
        ]
    )
    for rule in RULES[1:]:
        measured[rule] = np.where(failed[0], np.nan, measured[rule])
    reason = [RULES[int(column.argmax())] if column.any() else "" for column in failed.T]
    kept = ~failed.any(0)
    for folder in ("shards", "ledger", ".hydra"):
        (root / folder).mkdir(parents=True, exist_ok=True)

    lines, start = [], datetime(2026, 11, 23, 12, 0)
    for index in range(chunks):
        mine = np.flatnonzero(chunk == index)
        shard = root / "shards" / f"{index:06d}.tar"
        digest = write_shard(
            shard,
            [Sample(key[r], jpeg_of(paint(int(identity[r]), int(r))), int(identity[r]), {}) for r in mine[kept[mine]]],
        )
        table = pa.table(
            {
                "key": [key[row] for row in mine],
                "identity_id": pa.array(identity[mine], pa.int64()),
                "chunk": pa.array(chunk[mine], pa.int64()),
                "seed": pa.array(mine, pa.int64()),
                "reason": [reason[row] for row in mine],
                "kept": pa.array(kept[mine]),
                "norm": pa.array(rng.normal(20, 2, len(mine)), pa.float32()),
                "landmarks": pa.array([[0.0] * 10] * len(mine), pa.list_(pa.float32(), 10)),
                **{rule: pa.array(measured[rule][mine], pa.float32()) for rule in RULES},
            }
        ).replace_schema_metadata({"shard": shard.name, "tar_sha256": digest, "made_from": "c0ffee" * 10})
        pq.write_table(table, root / "ledger" / f"{index:06d}.parquet")
        seconds = {"generate": 0.0091, "embed": 0.0042, "judge": 0.0003, "pack": 0.0008}
        lines.append(
            {
                "chunk": index,
                "rows": len(mine),
                "kept": int(kept[mine].sum()),
                "reasons": {},
                "seconds": {name: each * len(mine) * rng.uniform(0.9, 1.1) for name, each in seconds.items()},
                "worker": f"w{index % 2}",
                "attempt": 1,
                "finished": (start + timedelta(seconds=0.0075 * rows / chunks * (index + 1))).isoformat(),
            }
        )
    (root / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = {"key": key, "identity_id": identity, "chunk": chunk, "seed": np.arange(rows)}
    plan |= {name: pa.array(values, pa.float32()) for name, values in attributes.items()}
    pq.write_table(pa.table(plan).replace_schema_metadata({"made_from": "c0ffee" * 10}), root / "plan.parquet")
    people_metadata = {
        "source": "world: traits drawn in the procedural face world",
        "space": "world-1",
        "reference_space": "bundled-a-2",
        "candidates": str(2 * people),
        "retired": "0",
    }
    identities = pa.table({"id": np.arange(people)}).replace_schema_metadata(people_metadata)
    pq.write_table(identities, root / "identities.parquet")
    (root / ".hydra" / "config.yaml").write_text("seed: 7\nsampler:\n  _target_: stages.sample.world.WorldPeople\n")
    (root / "scores.json").write_text(json.dumps(scores_json(people, int(kept.sum()))))
    weights = {"embedder_a": {"file": "embedder_a.onnx", "sha256": "9c3e" * 16, "space": "bundled-a-2"}}
    (root / "weights.json").write_text(json.dumps(weights))
    return root


def files_of(root: Path) -> dict[str, Path]:
    """The files that a report is written from."""
    return {
        "ledger": root / "ledger",
        "shards": root / "shards",
        "progress": root / "progress.jsonl",
        "scores": root / "scores.json",
        "config": root / ".hydra" / "config.yaml",
        "identities": root / "identities.parquet",
        "plan": root / "plan.parquet",
        "weights": root / "weights.json",
    }
