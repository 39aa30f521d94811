"""Several recognisers of one recipe, a seed each: what they score together, and how two datasets compare through them.

One training is a draw: another seed moves its accuracy by a point or more, and other pairs move it again. Both are
counted here. Letters: k seeds, f folds, p protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import t as student_t

from benchmarks.verdicts import Estimate, said

LEVEL = 0.975  # of the one tail that a 95 % interval leaves out on either side
COVERS = (
    "trainings with other seeds on these same pictures, and other pairs of the same protocols (of other people, where "
    "folds share nobody); "
    "not another draw of the dataset or of the control"
)
MEANED = ("accuracy", "tar", "far", "auc", "eer", "mean_norm")
KEPT = ("protocol", "pairs", "impostor_pairs", "coverage", "far_target", "far_step", "resolvable", "far_rule", "people")


def over_seeds_and_pairs(tables: Sequence[Float64[np.ndarray, "k _f"]]) -> Estimate:
    """Mean of a figure over protocols, of which each seed has measured it in every fold, with its 95 % interval.

    Seeds and pairs are drawn independently of each other, so their variances add. A seed is met in all protocols: the
    first variance is that of the seeds' means over folds and protocols, over k. Pairs are other pairs in every fold of
    every protocol: the second is, of each protocol, that of the folds' means over seeds, over f p^2. The half-width is
    the root of the sum of each variance times the square of Student's t with its degrees of freedom, k - 1 and f - 1:
    at least 95 % for any true variances (Banerjee, 1960), where Welch's and Satterthwaite's may fall short. It is
    never narrower than the paired t interval over the seeds alone, which holds for these pairs and no others.

    Args:
        tables: A protocol each: a row per seed, the same seeds in the same order; a column per fold.
    Raises:
        ValueError: If there is no table, or there are not the same seeds in all, at least 2, and at least 2 folds.
    References:
        S. Banerjee, Approximate confidence interval for linear functions of means of k populations when the population
        variances are not equal, Sankhya 22 (1960), 357-358.
    """
    shapes = [table.shape for table in tables]
    if not shapes or len({k for k, _ in shapes}) != 1 or min(min(shape) for shape in shapes) < 2:
        raise ValueError(f"expected tables of the same seeds, at least 2, and at least 2 folds, got shapes {shapes}")
    of_seeds = np.mean([table.mean(axis=1) for table in tables], axis=0)
    parts = [_squared_half_width(of_seeds)]
    parts += [_squared_half_width(table.mean(axis=0)) / len(tables) ** 2 for table in tables]
    mean, half = float(of_seeds.mean()), float(np.sqrt(sum(parts)))
    return Estimate(mean, mean - half, mean + half)


def _squared_half_width(values: Float64[np.ndarray, " n"]) -> float:
    """Of the 95 % interval of a mean by Student's t."""
    return float(student_t.ppf(LEVEL, len(values) - 1) ** 2 * values.var(ddof=1) / len(values))


def mean_score(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of several seeds on one protocol as one: rates and folds are means, the interval is over both.

    Args:
        scores: Entries as `benchmarks.protocols.score` gives them. One alone is given back as it is.
    """
    if len(scores) == 1:
        return dict(scores[0])
    folds = np.array([each["folds"] for each in scores], np.float64)
    first = scores[0]
    return {
        **{name: first[name] for name in KEPT if name in first},
        **{name: float(np.mean([each[name] for each in scores])) for name in MEANED if name in first},
        "accuracy_std": float(folds.mean(axis=0).std()),
        "folds": folds.mean(axis=0).tolist(),
        "interval95": over_seeds_and_pairs([folds]).interval,
        "interval95_by": f"Student's t over {len(folds)} seeds and {folds.shape[1]} folds",
        **({"tar_at_far": _mean_points([each["tar_at_far"] for each in scores])} if "tar_at_far" in first else {}),
    }


def _mean_points(points: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """TAR and FAR reached at each target, meaned over the seeds; where there is no figure, the reason."""
    return [
        dict(of_target[0])
        if of_target[0]["tar"] is None
        else {
            "far_target": of_target[0]["far_target"],
            **{name: float(np.mean([each[name] for each in of_target])) for name in ("tar", "far", "false_accepts")},
        }
        for of_target in zip(*points, strict=True)
    ]


def mean_over_protocols(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> Estimate:
    """Mean accuracy over the protocols, in [0, 1], with its 95 % interval over seeds and pairs.

    Args:
        scores: Per seed, at least 2, scores by protocol.
    """
    return over_seeds_and_pairs([_folds(scores, name) for name in scores[0]])


def paired_verdict(
    ours: Sequence[Mapping[str, Mapping[str, Any]]],
    theirs: Sequence[Mapping[str, Mapping[str, Any]]],
    names: tuple[str, str] = ("dataset", "control"),
) -> dict[str, Any]:
    """What several trainings on the dataset and on its control say of the gap: `verdict` in a run's `scores.json`.

    Seed i on the dataset and seed i on the control begin with the same weights and meet the same pairs, so the gap is
    taken seed by seed and fold by fold, and what is common to both cancels.

    Args:
        ours: Per seed, scores by protocol.
        theirs: Those of the control, of the same seeds in the same order, on the same protocols.
        names: What the two are called in words.
    Returns:
        Gaps are accuracy less the control's accuracy, as shares of 1.
    Raises:
        ValueError: If there are not as many seeds on both sides, at least 2, or other protocols or folds.
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"expected as many seeds of both, at least 2, got {len(ours)} and {len(theirs)}")
    if any(each.keys() != ours[0].keys() for each in (*ours, *theirs)):
        raise ValueError(f"expected the same protocols of every seed, got {sorted({*map(tuple, (*ours, *theirs))})}")
    gaps = {name: np.subtract(*np.split(_folds([*ours, *theirs], name), 2)) for name in ours[0]}
    whole = over_seeds_and_pairs(list(gaps.values()))
    return {
        "seeds": len(ours),
        **_told(whole, list(gaps.values())),
        "protocols": {name: _told(over_seeds_and_pairs([table]), [table]) for name, table in gaps.items()},
        "said": said(whole, *names),
        "covers": COVERS,
    }


def _told(gap: Estimate, tables: Sequence[Float64[np.ndarray, "k _f"]]) -> dict[str, Any]:
    by_seed = np.mean([table.mean(axis=1) for table in tables], axis=0)
    return {"gap": gap.mean, "interval95": gap.interval, "by_seed": by_seed.tolist()}


def _folds(scores: Sequence[Mapping[str, Mapping[str, Any]]], protocol: str) -> Float64[np.ndarray, "k f"]:
    """Accuracies of every seed in every fold of a protocol."""
    folds = [each[protocol]["folds"] for each in scores]
    if len({*map(len, folds)}) != 1:
        raise ValueError(f"{protocol}: expected the same folds of every seed, got {[*map(len, folds)]} of them")
    return np.array(folds, np.float64)
