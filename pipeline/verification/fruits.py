"""A pipeline for FRUITS: the bundled detector, the house's aligner, and any model, on one thread."""

from __future__ import annotations

import numpy as np

from benchmarks.fruits import Pipeline
from benchmarks.models import Loaded
from generation.weights import bundled
from stages.embed.align import alignable, crop_of, resized
from stages.embed.detector import MIN_PROBABILITY, Detector


def whole_pipeline(model: Loaded, flip: bool) -> Pipeline:
    """Detect, align, embed, match, of one picture at a time; the model must have been loaded with one thread.

    Args:
        flip: Whether the mirror image is embedded, too, and added.
    Raises:
        ValueError: If the bundled detector's file is not the one listed.
    """
    weights = bundled("detector")
    detector = Detector(weights.verify(), threads=1)

    def detect(picture: np.ndarray) -> np.ndarray | None:
        height, width = picture.shape[:2]
        if height != width:
            raise ValueError(f"expected square pictures for the bundled detector, got {width} x {height}")
        landmarks, probability = detector(resized(picture, 112)[None])
        placed = (landmarks + np.float32(0.5)) * np.float32(width / 112) - np.float32(0.5)
        return placed[0] if probability[0] >= MIN_PROBABILITY and alignable(placed)[0] else None

    def embed(face: np.ndarray) -> np.ndarray:
        if not flip:
            return model(face[None])[0]
        return model(np.stack([face, face[:, ::-1]])).sum(axis=0)

    about = {"detector": weights.path.name, "detector_sha256": weights.sha256, "flip": flip}
    return Pipeline(detect, crop_of, embed, lambda one, other: float(one @ other), about)
