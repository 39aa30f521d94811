import pytest

from generation.train.detector import DetectorRecipe
from generation.train.regressor import RegressorRecipe

WRONG = {
    "precision": "half",
    "steps": 0,
    "batch_size": 0,
    "threads": 0,
    "checkpoint_every": 0,
    "seed": -1,
    "peak_lr": 0.0,
}


@pytest.mark.parametrize("recipe", [DetectorRecipe, RegressorRecipe])
@pytest.mark.parametrize("name", WRONG)
def test_a_value_out_of_range_is_refused_by_name(recipe, name):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got {WRONG[name]!r}"):
        recipe(**{name: WRONG[name]})


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_batch_of_the_detector_has_faces_and_pictures_without_one(share):
    with pytest.raises(ValueError, match="negatives: expected more than 0 and less than 1"):
        DetectorRecipe(negatives=share)
