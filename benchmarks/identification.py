"""Identification: who of a gallery is on a picture? By exact cosine search.

Closed set: everybody who is asked about is in the gallery, and the answer is right at rank k if one of the k nearest is
of that person. Open set: some are not, and must stay below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from benchmarks.far import FALSE_ACCEPTS_NEEDED, allowed, wilson_interval95
from recognition.neighbours import Neighbours

NOBODY = -1  # number of a distractor: somebody of whom no probe is
RANKS = (1, 5, 20)
FPIRS = (1e-1, 1e-2, 1e-3)


def closed_set(
    gallery: Float[np.ndarray, "i d"],
    gallery_people: Int64[np.ndarray, " i"],
    probes: Float[np.ndarray, "n d"],
    probe_people: Int64[np.ndarray, " n"],
    ranks: Sequence[int] = RANKS,
) -> dict[str, Any]:
    """Share of the probes with one of their person's pictures among the k nearest of the gallery, for each k.

    Args:
        gallery: Unit vectors, of pictures or templates. gallery_people: `NOBODY` for distractors.
        probes: Unit vectors. probe_people: Each of whom must be in the gallery.
        ranks: Ks; of more than there are in the gallery, all are looked at.
    Returns:
        `rank_1` and so on, with Wilson intervals over probes.
    Raises:
        ValueError: If there is no probe, or one of somebody who is not in the gallery.
    """
    absent = np.flatnonzero(~np.isin(probe_people, gallery_people) | (probe_people == NOBODY))
    if len(absent) or not len(probes):
        raise ValueError(
            f"expected probes of people who are in the gallery, got {len(probes)} of which {len(absent)} are not"
        )
    most = min(max(ranks), len(gallery))
    _, nearest = Neighbours(gallery.astype(np.float32)).nearest(probes.astype(np.float32), most)
    hit = gallery_people[nearest] == probe_people[:, None]
    told: dict[str, Any] = {"gallery": len(gallery), "probes": len(probes)}
    for rank in ranks:
        right = int(hit[:, :rank].any(axis=1).sum())
        told[f"rank_{rank}"] = right / len(probes)
        told[f"rank_{rank}_interval95"] = list(wilson_interval95(right, len(probes)))
    return {**told, "interval95_by": "Wilson, probes as if independent"}


def open_set(
    gallery: Float[np.ndarray, "i d"],
    gallery_people: Int64[np.ndarray, " i"],
    probes: Float[np.ndarray, "n d"],
    probe_people: Int64[np.ndarray, " n"],
    fpirs: Sequence[float] = FPIRS,
) -> list[dict[str, Any]]:
    """TPIR at each FPIR: probes of people in the gallery whose nearest is that person, above the threshold that lets
    through the share FPIR of the probes of people who are not in it.

    Returns:
        Per FPIR `tpir`, what was reached, and the threshold; `tpir` None with a reason where the probes of others
        cannot carry it, by the rule of `benchmarks.far`.
    Raises:
        ValueError: If no probe is of somebody in the gallery.
    References:
        IJB-C (Maze et al., 2018); Grother and Ngan, FRVT part 2: identification.
    """
    cosine, nearest = Neighbours(gallery.astype(np.float32)).nearest(probes.astype(np.float32), 1)
    top, mated = cosine[:, 0], np.isin(probe_people, gallery_people)
    if not mated.any():
        raise ValueError("expected probes of people who are in the gallery, got none")
    right = mated & (gallery_people[nearest[:, 0]] == probe_people)
    others = np.sort(top[~mated])[::-1]
    return [_point(top, right, int(mated.sum()), others, fpir) for fpir in fpirs]


def _point(top: np.ndarray, right: np.ndarray, mated: int, others: np.ndarray, fpir: float) -> dict[str, Any]:
    """Args: others: nearest cosines of probes of people who are not in the gallery, descending."""
    expected = fpir * len(others)
    if expected < FALSE_ACCEPTS_NEEDED * (1 - 1e-9):
        reason = (
            f"insufficient data: {len(others)} probes of others have {expected:.3g} false identifications at FPIR "
            f"{fpir:g}, and {FALSE_ACCEPTS_NEEDED} are needed"
        )
        return {"fpir_target": fpir, "tpir": None, "reason": reason}
    most = math.floor(allowed(fpir, len(others)))
    threshold = float(others[most]) if most < len(others) else -math.inf
    hits, false = int((right & (top > threshold)).sum()), int((others > threshold).sum())
    figures = {"tpir": hits / mated, "interval95": list(wilson_interval95(hits, mated)), "fpir": false / len(others)}
    return {"fpir_target": fpir, **figures, "false_identifications": false, "min_cosine": threshold}
