"""Meaning: what of a config decides what is made, and its fingerprint, `made_from`.

Two configs of one meaning make the same bytes, whatever runner carries them, on however many threads, and wherever.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

DECIDES = ("seed", "people", "images_per_identity", "chunk_people", "jpeg_quality", "enrol")
PARTS_THAT_DECIDE = ("sampler", "planner", "generator", "embedder", "judge")
ANYWHERE = "threads"  # an argument that may differ from machine to machine: it does not change what is made


def meaning(cfg: DictConfig) -> dict[str, Any]:
    """What decides the bytes of a dataset: the config without runner, threads and places."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.run = "<run>"
    chosen = {name: cfg[name] for name in (*DECIDES, *PARTS_THAT_DECIDE)}
    return {name: _without_machine(plain(value)) for name, value in chosen.items()}


def fingerprint(tree: Any) -> str:
    """sha256 over canonical JSON."""
    return hashlib.sha256(
        json.dumps(_without_machine(tree), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def plain(part: Any) -> Any:
    """A part of a config as dicts and lists, everything in it resolved."""
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def _without_machine(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_machine(value) for key, value in tree.items() if key != ANYWHERE}
    return [_without_machine(item) for item in tree] if isinstance(tree, list) else tree
