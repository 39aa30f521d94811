"""Scores of verification, from pairs of embeddings. NumPy, and Student's t.

`verify` is the protocol that the field quotes (`insightface-v1`: the function `evaluate` of insightface's
arcface_torch, after facenet's): ten contiguous folds in file order, threshold chosen on nine and applied to the tenth.
Its quirks are kept on purpose, for they move numbers: squared distances, strict `<`, thresholds on a grid, the
smallest on ties, population standard deviations.

Letters: p pairs, f folds, t thresholds, d embedding dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import t as student_t

PROTOCOL = "insightface-v1"
ACCURACY_THRESHOLDS = np.arange(0, 4, 0.01)  # of the squared distance of unit vectors, 2 - 2 cos, in [0, 4]
FAR_THRESHOLDS = np.arange(0, 4, 0.001)


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """Scores of one model on one verification set.

    Attributes:
        accuracy: Of each held-out fold, at the threshold that is best on the other folds.
        threshold_index: Of that threshold in `ACCURACY_THRESHOLDS`.
        tpr, fpr: ROC: rates at every threshold of `ACCURACY_THRESHOLDS`, meaned over the folds.
        tar, tar_std, far: True and false accept rates reached on the held-out folds at the thresholds where the other
            folds have the target; mean, population standard deviation, mean over the folds.
        far_threshold: Of each fold; 0 where the other folds never reach the target.
        far_step: The smallest FAR above zero that the other folds can have: one impostor pair of theirs. A target below
            it cannot be measured with so few impostor pairs.
    """

    accuracy: Float64[np.ndarray, " f"]
    threshold_index: Int64[np.ndarray, " f"]
    tpr: Float64[np.ndarray, " t"]
    fpr: Float64[np.ndarray, " t"]
    tar: float
    tar_std: float
    far: float
    far_threshold: Float64[np.ndarray, " f"]
    far_step: float


def fuse_flips(original: Float[np.ndarray, "n d"], flipped: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Unit vectors of pictures: raw embeddings of the picture and of its mirror image summed, then normalised.

    Raises:
        ValueError: If a sum is not finite or has no direction.
    """
    fused = original.astype(np.float64) + flipped
    norms = np.linalg.norm(fused, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(wrong):
        raise ValueError(
            f"expected embeddings that are finite and not zero, got norm {norms[wrong[0], 0]} in row {wrong[0]}"
        )
    return fused / norms


def squared_distances(embeddings: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, " p"]:
    """Squared L2 distances of pairs: of rows 2i and 2i+1. For unit vectors 2 - 2 cos, in [0, 4]."""
    return np.sum(np.square(embeddings[0::2].astype(np.float64) - embeddings[1::2]), axis=1)


def fold_of_pairs(pairs: int, folds: int) -> Int64[np.ndarray, " p"]:
    """Fold of each pair: contiguous blocks in file order, the first `pairs % folds` of them one pair longer."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def verify(
    squared_distance: Float64[np.ndarray, " p"],
    same: Bool[np.ndarray, " p"],
    folds: int = 10,
    far_target: float = 1e-3,
    fold: Int64[np.ndarray, " p"] | None = None,
) -> Verification:
    """Verification after insightface; equal to its recorded outputs to 1e-12.

    Args:
        squared_distance: Of each pair of unit embeddings, in [0, 4].
        same: Whether the pair is of one person.
        folds: At least 2.
        far_target: False accept rate at which the true accept rate is given, in (0, 1).
        fold: Of each pair, in [0, folds); None: contiguous blocks in file order. Given where pairs are missing from a
            file, so that those that are left stay in their folds.
    Raises:
        ValueError: If a fold has no genuine or no impostor pair (named), if `folds` or `far_target` is out of range, or
            if a distance is not finite.
    References:
        LFW (Huang et al., 2007); insightface `recognition/arcface_torch/eval/verification.py`.
    """
    fold = checked_folds(squared_distance, same, folds, fold)
    if not 0 < far_target < 1:
        raise ValueError(f"expected 0 < far_target < 1, got {far_target}")
    genuine = np.bincount(fold[same], minlength=folds)
    impostor = np.bincount(fold[~same], minlength=folds)

    # true and false accepts of each fold at each threshold, (f, t); the others' are the total minus a fold's own
    true_accepts = _accepts(squared_distance[same], fold[same], ACCURACY_THRESHOLDS, folds)
    false_accepts = _accepts(squared_distance[~same], fold[~same], ACCURACY_THRESHOLDS, folds)
    best = _best_on_the_others(true_accepts - false_accepts)
    correct = true_accepts + impostor[:, None] - false_accepts
    accuracy = np.take_along_axis(correct, best[:, None], axis=1)[:, 0] / (genuine + impostor)

    fine = _accepts(squared_distance[~same], fold[~same], FAR_THRESHOLDS, folds)
    others = impostor.sum() - impostor
    far_of_others = (fine.sum(0) - fine) / others[:, None]
    threshold = np.array(
        [np.interp(far_target, far, FAR_THRESHOLDS) if far.max() >= far_target else 0.0 for far in far_of_others]
    )
    accepted = squared_distance < threshold[fold]
    tar = np.bincount(fold[same & accepted], minlength=folds) / genuine
    far = np.bincount(fold[~same & accepted], minlength=folds) / impostor
    return Verification(
        accuracy=accuracy,
        threshold_index=best,
        tpr=(true_accepts / genuine[:, None]).mean(0),
        fpr=(false_accepts / impostor[:, None]).mean(0),
        tar=float(tar.mean()),
        tar_std=float(tar.std()),
        far=float(far.mean()),
        far_threshold=threshold,
        far_step=float(1 / others.min()),
    )


def auc(score: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]) -> float:
    """Area under the ROC: the chance that a genuine pair scores above an impostor pair; ties count half.

    Args:
        score: Higher is more alike.
    Raises:
        ValueError: If there is no genuine or no impostor pair.
    """
    genuine, impostor = np.sort(score[same]), np.sort(score[~same])
    refuse_one_kind(genuine, impostor)
    below = np.searchsorted(impostor, genuine, "left") + np.searchsorted(
        impostor, genuine, "right"
    )  # twice: ties count half
    return float(below.sum(dtype=np.float64) / (2.0 * len(genuine) * len(impostor)))


def eer(score: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]) -> float:
    """Equal error rate: where false match and false non-match rate meet, on the ROC joined by straight lines.

    Args:
        score: Higher is more alike.
    Raises:
        ValueError: If there is no genuine or no impostor pair.
    """
    genuine, impostor = np.sort(score[same]), np.sort(score[~same])
    refuse_one_kind(genuine, impostor)
    accept_from = np.append(np.unique(score), np.inf)
    fmr = 1 - np.searchsorted(impostor, accept_from) / len(impostor)  # 1 at the lowest score, 0 at infinity
    fnmr = np.searchsorted(genuine, accept_from) / len(genuine)  # 0 there, 1 at infinity
    after = int(np.argmax(fnmr >= fmr))
    if after == 0:
        return float(fmr[0])
    gap_before, gap_after = fmr[after - 1] - fnmr[after - 1], fnmr[after] - fmr[after]
    weight = gap_before / (gap_before + gap_after)
    return float(fmr[after - 1] + weight * (fmr[after] - fmr[after - 1]))


def paired_fold_gap(ours: Float64[np.ndarray, " f"], theirs: Float64[np.ndarray, " f"]) -> tuple[float, float, float]:
    """Mean difference of two models' accuracies on the same folds, with its 95 % interval (paired t over the folds).

    Both models met the same pairs, so what makes a fold hard for both cancels.

    Returns:
        Difference (ours less theirs), and the ends of its interval.
    Raises:
        ValueError: If there are not at least two folds, as many for one model as for the other.
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"expected as many folds of both models, at least 2, got {len(ours)} and {len(theirs)}")
    gap = ours - theirs
    half = float(student_t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap)))
    return float(gap.mean()), float(gap.mean()) - half, float(gap.mean()) + half


def checked_folds(
    squared_distance: Float64[np.ndarray, " p"],
    same: Bool[np.ndarray, " p"],
    folds: int,
    fold: Int64[np.ndarray, " p"] | None = None,
) -> Int64[np.ndarray, " p"]:
    """Fold of each pair: those given, or contiguous blocks.

    Raises:
        ValueError: If there are fewer than 2 folds or more than pairs, a distance is not finite, or a fold lacks a kind
            of pair.
    """
    if not 2 <= folds <= len(same):
        raise ValueError(f"expected 2 to {len(same)} folds for {len(same)} pairs, got {folds}")
    if not np.isfinite(squared_distance).all():
        raise ValueError(f"expected finite distances, got {squared_distance[~np.isfinite(squared_distance)][0]}")
    fold = fold_of_pairs(len(same), folds) if fold is None else fold
    for kind, members in (("genuine", same), ("impostor", ~same)):
        lacking = np.flatnonzero(np.bincount(fold[members], minlength=folds) == 0)
        if len(lacking):
            raise ValueError(
                f"expected genuine and impostor pairs in every fold, got no {kind} pair "
                f"in fold {lacking[0]} of {folds}; folds are blocks in file order, so interleave the pairs"
            )
    return fold


def first_accepting(distance: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Index of the first threshold that accepts each distance, that is, lies strictly above it."""
    return np.searchsorted(thresholds, distance, side="right")


def _accepts(distance: np.ndarray, fold: np.ndarray, thresholds: np.ndarray, folds: int) -> np.ndarray:
    """How many distances of each fold lie strictly below each threshold, (f, t)."""
    histogram = np.zeros((folds, len(thresholds) + 1), np.int64)
    np.add.at(histogram, (fold, first_accepting(distance, thresholds)), 1)
    return histogram.cumsum(axis=1)[:, :-1]


def _best_on_the_others(correct: np.ndarray) -> np.ndarray:
    """For each fold the smallest threshold that is most often right on all other folds; (..., f, t) -> (..., f)."""
    return (correct.sum(axis=-2, keepdims=True) - correct).argmax(axis=-1)


def refuse_one_kind(genuine: np.ndarray, impostor: np.ndarray) -> None:
    if not len(genuine) or not len(impostor):
        raise ValueError(f"expected genuine and impostor pairs, got {len(genuine)} and {len(impostor)}")
