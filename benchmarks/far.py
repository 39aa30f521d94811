"""True accepts at low false accept rates, and no figure where the impostor pairs cannot carry one.

A rate is known as well as the errors behind it are many: of n independent errors the relative standard error is
1 / sqrt(n). With 10 it is 32 %, so the true rate lies within about half of the observed one (90 %); with the 3 false
accepts of FAR 1e-3 on 3,000 pairs it may be a third or three times as much. Doddington's rule asks for 30 errors, for
30 % at 90 %; here 10 are asked for, and fewer are called insufficient data instead of printed.

References:
    Doddington et al., The NIST speaker recognition evaluation, Speech Communication 31 (2000), section 3 (rule of 30).
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from benchmarks.verify import refuse_one_kind

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FALSE_ACCEPTS_NEEDED = 10
RULE = f"at least {FALSE_ACCEPTS_NEEDED} impostor pairs times FAR"


@dataclass(frozen=True, slots=True)
class TarAtFar:
    """One point of a ROC, over all pairs at once; or the reason for which there is none.

    Attributes:
        far_target: Asked for.
        tar: Share of the genuine pairs above the threshold; None: insufficient data.
        far: Share of the impostor pairs above it, at most the target. false_accepts: Their number.
        min_cosine: The threshold: pairs above it are accepted.
        reason: Why there is no figure; "" where there is.
    """

    far_target: float
    tar: float | None
    far: float | None
    false_accepts: int | None
    min_cosine: float | None
    reason: str = ""

    def told(self) -> dict[str, Any]:
        """As in JSON."""
        if self.tar is None:
            return {"far_target": self.far_target, "tar": None, "reason": self.reason}
        figures = {"tar": self.tar, "far": self.far, "false_accepts": self.false_accepts, "min_cosine": self.min_cosine}
        return {"far_target": self.far_target, **figures}


def lacking(far_target: float, impostor_pairs: int) -> str:
    """Why so many impostor pairs cannot carry a FAR; "" if they can."""
    expected = far_target * impostor_pairs
    if expected >= FALSE_ACCEPTS_NEEDED * (1 - 1e-9):  # 1e-3 of 10,000 is 10, whatever the rounding
        return ""
    return (
        f"insufficient data: {impostor_pairs} impostor pairs have {expected:.3g} false accepts at FAR {far_target:g}, "
        f"and {FALSE_ACCEPTS_NEEDED} are needed"
    )


def tar_at_far(
    cosine: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"], targets: Sequence[float] = TARGETS
) -> list[TarAtFar]:
    """TAR at each target: at the lowest threshold with no more false accepts than the target allows.

    Args:
        cosine: Of each pair; higher is more alike.
    Raises:
        ValueError: If there is no genuine or no impostor pair.
    """
    genuine, impostor = cosine[same], np.sort(cosine[~same])[::-1]
    refuse_one_kind(genuine, impostor)
    return [_point(genuine, impostor, target) for target in targets]


def allowed(far_target: float, total: float) -> float:
    """False accepts that a target allows among so many impostor pairs; rounding does not take away a whole one."""
    return far_target * total * (1 + 1e-9)


def wilson_interval95(successes: float, trials: float) -> tuple[float, float]:
    """95 % interval of a rate by Wilson's score, for trials taken as independent; [0, 1] for none."""
    if trials == 0:
        return 0.0, 1.0
    z, rate = float(norm.ppf(0.975)), successes / trials
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def _point(genuine: np.ndarray, impostor: np.ndarray, target: float) -> TarAtFar:
    """Args: impostor: descending."""
    reason = lacking(target, len(impostor))
    if reason:
        return TarAtFar(target, None, None, None, None, reason)
    most = math.floor(allowed(target, len(impostor)))
    threshold = float(impostor[most]) if most < len(impostor) else -math.inf
    accepts = int((impostor > threshold).sum())
    return TarAtFar(target, float((genuine > threshold).mean()), accepts / len(impostor), accepts, threshold)
