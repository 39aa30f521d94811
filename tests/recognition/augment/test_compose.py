import json
from dataclasses import fields

import pytest
import torch
import yaml
from hydra.utils import instantiate

from recognition.augment import (
    AdaFaceAugment,
    Augment,
    Compose,
    DigiFaceAugment,
    Erase,
    Flip,
    RandAugment,
    described,
)
from recognition.augment.compose import checked_steps
from tests.recognition.augment.pictures import noise, seeded

HSFACE = Compose((AdaFaceAugment(crop=0.3, low_resolution=0.3, photometric=0.3), Erase()))


def test_steps_run_in_order_and_draw_in_their_turn():
    images, generator = noise(8, 24, 24), seeded(2)
    x = images.permute(0, 3, 1, 2).float().contiguous()
    for step in (Erase(p=1.0), AdaFaceAugment(crop=1.0)):
        x = step.changed(x, generator)
    composed = Compose((Erase(p=1.0), AdaFaceAugment(crop=1.0)))
    assert torch.equal(composed(images, seeded(2)), (x - 127.5) / 127.5)
    assert not torch.equal(composed(images, seeded(2)), Compose(composed.steps[::-1])(images, seeded(2)))


def test_one_step_is_the_step_alone():
    images = noise(6, 24, 24)
    assert torch.equal(Compose((AdaFaceAugment(),))(images, seeded()), AdaFaceAugment()(images, seeded()))
    assert torch.equal(Compose((Compose((Flip(),)),))(images, seeded()), Flip()(images, seeded()))


def test_a_list_of_steps_is_as_good_as_a_tuple():
    assert Compose([Flip(), Erase()]) == Compose((Flip(), Erase()))
    assert hash(Compose([Flip(), Erase()])) == hash(Compose((Flip(), Erase())))


def test_a_description_is_plain_names_and_values():
    told = described(Compose((Flip(0.4), Erase(p=0.1))))
    assert told == {
        "augmentation": "Compose",
        "steps": [
            {"augmentation": "Flip", "p": 0.4},
            {"augmentation": "Erase", "p": 0.1, "scale": [0.02, 0.33], "ratio": [0.3, 3.3], "value": 0.0},
        ],
    }
    assert json.loads(json.dumps(told)) == told


def test_different_augmentations_have_different_descriptions():
    every = [Augment(), AdaFaceAugment(), DigiFaceAugment(), RandAugment(), Erase(), Flip(), HSFACE]
    every += [Compose(()), Compose((Flip(),)), Compose((Flip(), Flip())), Compose((Erase(), Flip()))]
    every += [Compose((Flip(), Erase())), Compose((Compose((Flip(), Erase())),)), Flip(0.4), Erase(value="random")]
    assert len({json.dumps(described(augmentation), sort_keys=True) for augmentation in every}) == len(every)


@pytest.mark.parametrize("augmentation", [AdaFaceAugment(), DigiFaceAugment(), RandAugment(), Erase(), Augment()])
def test_every_field_is_in_the_description(augmentation):
    told = described(augmentation)
    assert told.pop("augmentation") == type(augmentation).__name__
    values = {field.name: getattr(augmentation, field.name) for field in fields(augmentation)}
    assert told == {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def test_a_step_that_is_no_augmentation_is_refused():
    with pytest.raises(ValueError, match=r"^Compose.steps\[1\]: expected an augmentation, got 0.5$"):
        checked_steps([Flip(), 0.5])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_target_: recognition.augment.AdaFaceAugment\ncrop_scale: [0.5, 1.0]", AdaFaceAugment(crop_scale=(0.5, 1.0))),
        (
            "_target_: recognition.augment.DigiFaceAugment\njpeg_quality: [30, 95]",
            DigiFaceAugment(jpeg_quality=(30, 95)),
        ),
        ("_target_: recognition.augment.RandAugment\nmagnitude: 9", RandAugment(magnitude=9)),
        (
            """
            _target_: recognition.augment.Compose
            _convert_: all
            steps:
              - {_target_: recognition.augment.AdaFaceAugment, crop: 0.3, low_resolution: 0.3, photometric: 0.3}
              - {_target_: recognition.augment.Erase}
            """,
            HSFACE,
        ),
    ],
    ids=["adaface", "digiface", "randaugment", "hsface"],
)
def test_a_config_makes_it(text, expected):
    assert instantiate(yaml.safe_load(text)) == expected
