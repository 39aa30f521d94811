"""Meaning: what of a config decides what is made, and its fingerprint, `made_from`.

Two configs of one meaning make the same bytes, whatever runner carries them, on however many threads, and wherever.
Weights are meant by their hash: a part that has a `weights_sha256` is made from that, not from the folder's name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object
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
    return {name: _without_machine(by_hash(plain(value))) for name, value in chosen.items()}


def fingerprint(tree: Any) -> str:
    """sha256 over canonical JSON."""
    return hashlib.sha256(
        json.dumps(_without_machine(tree), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def plain(part: Any) -> Any:
    """A part of a config as dicts and lists, everything in it resolved."""
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def by_hash(tree: Any) -> Any:
    """Parts that read weights with the hash of those weights instead of their folder; None where there are none."""
    if not isinstance(tree, dict):
        return tree
    tree = {key: by_hash(value) for key, value in tree.items()}
    hash_of = _weights_hash(tree.get("_target_"))
    if hash_of is None:
        return tree
    arguments = fitting(hash_of, tree)
    tree.pop("weights", None)
    try:
        return tree | {"weights_sha256": hash_of(**arguments)}
    except (ValueError, OSError):  # preflight tells what is wrong with them
        return tree | {"weights_sha256": None}


def fitting(callee: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a part's arguments that a function of it takes."""
    taken = inspect.signature(callee).parameters
    return {name: value for name, value in arguments.items() if name in taken}


def _weights_hash(target: str | None) -> Callable[..., str] | None:
    if target is None:
        return None
    try:
        return getattr(get_object(target), "weights_sha256", None)
    except ImportError:  # preflight tells that there is no such part
        return None


def _without_machine(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_machine(value) for key, value in tree.items() if key != ANYWHERE}
    return [_without_machine(item) for item in tree] if isinstance(tree, list) else tree
