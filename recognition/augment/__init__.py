"""Augmentations of a batch of crops, on the device of the batch, with parameters of its own for every picture.

An augmentation takes uint8 RGB crops and a `torch.Generator` and gives what a backbone takes. Its law: everything
random comes from that one generator on the CPU, drawn for the whole batch in a fixed order and number, before any
picture is looked at. So the same generator state gives the same pictures on every run, and what happens to a picture
depends on its row in the batch and on nothing about its neighbours.

`Augment` is the bundled recipes'; `AdaFaceAugment`, `DigiFaceAugment` and `RandAugment` are the published recipes';
`Flip` and `Erase` are single steps, and `Compose` puts any of them in a row. `described` tells one from another.
"""

from recognition.augment.adaface import AdaFaceAugment
from recognition.augment.bundled import Augment
from recognition.augment.compose import Compose, described
from recognition.augment.digiface import DigiFaceAugment
from recognition.augment.erasing import Erase
from recognition.augment.flip import Flip
from recognition.augment.levels import Augmentation, normalised
from recognition.augment.randaugment import RandAugment

__all__ = [
    "AdaFaceAugment",
    "Augment",
    "Augmentation",
    "Compose",
    "DigiFaceAugment",
    "Erase",
    "Flip",
    "RandAugment",
    "described",
    "normalised",
]
