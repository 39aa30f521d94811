"""Trains a recogniser: labelled crops and a recipe in, a network out. One loop for one process or many.

`recipe` says what decides a training, `schedule` the learning rate, `seeds` where random numbers come from; `pictures`,
`memory_map` and `streaming` are what it learns from, `batches` which pictures make a batch, `feed` the thread that has
them ready; `networks`, `state` and `loop` train, `processes` when there are several; `checks` looks at the first
minutes, `logs` at all of them.
"""

from recognition.train.checks import Finding
from recognition.train.embedding import embed
from recognition.train.loop import Progress, Trained, load_trained, train
from recognition.train.pictures import Data, Pictures
from recognition.train.recipe import Recipe
from recognition.train.schedule import lr_at, steps_per_epoch
from recognition.train.state import CHECKPOINT, weights_sha256

__all__ = [
    "CHECKPOINT",
    "Data",
    "Finding",
    "Pictures",
    "Progress",
    "Recipe",
    "Trained",
    "embed",
    "load_trained",
    "lr_at",
    "steps_per_epoch",
    "train",
    "weights_sha256",
]
