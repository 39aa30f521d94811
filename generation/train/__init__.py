"""Training of the bundled models that see whole pictures: one file per model, seeded and resumable.

`loop.py` is what they share: checkpoints that are whole or not there, and the steps between them.
"""

from generation.pixels import as_input
from generation.train.detector import DetectorRecipe, export_detector, faceless, landmark_loss, moved, train_detector
from generation.train.regressor import RegressorRecipe, export_regressor, train_regressor

__all__ = [
    "DetectorRecipe",
    "RegressorRecipe",
    "as_input",
    "export_detector",
    "export_regressor",
    "faceless",
    "landmark_loss",
    "moved",
    "train_detector",
    "train_regressor",
]
