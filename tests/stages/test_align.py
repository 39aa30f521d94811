from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.embed.align import alignable, crop, similarity, template

GOLDEN = Path(__file__).parents[1] / "golden" / "norm_crop"
TEMPLATE_112 = template(112)
CASES = ("frontal", "rolled", "upside", "outside", "tiny", "mirrored")


@pytest.fixture(params=CASES)
def recorded(request):
    with np.load(GOLDEN / f"{request.param}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("size_px", [112, 128, 224])
def test_matrices_equal_the_recorded_ones(recorded, size_px):
    matrix = similarity(recorded["landmarks"][None].astype(np.float64), template(size_px))[0]
    np.testing.assert_allclose(matrix, recorded[f"M64_{size_px}"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(matrix, recorded[f"M_{size_px}"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("size_px", [112, 128, 224])
def test_crops_equal_the_recorded_ones(recorded, size_px):
    expected = recorded[f"crop_{size_px}"].astype(np.int16)
    if int(cv2.__version__.split(".")[0]) >= 5:  # OpenCV 5 warps differently from OpenCV 4
        expected += recorded[f"delta_cv5_{size_px}"]
    made = crop(recorded["image"][None], recorded["landmarks"][None], size_px)[0]
    assert np.mean(made != expected) <= 1e-3
    assert np.abs(made - expected).max() <= 2


def test_a_batch_is_aligned_as_each_face_alone():
    landmarks = np.stack([np.load(GOLDEN / f"{case}.npz")["landmarks"] for case in CASES]).astype(np.float64)
    together = similarity(landmarks, TEMPLATE_112)
    alone = np.concatenate([similarity(one[None], TEMPLATE_112) for one in landmarks])
    assert np.array_equal(together, alone)


@settings(max_examples=100)
@given(st.floats(0.05, 20), st.floats(-3.14, 3.14), st.floats(-500, 500), st.floats(-500, 500))
def test_a_similarity_of_the_template_is_undone(scale, angle, x, y):
    turned = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE_112 @ turned.T + [x, y]
    matrix = similarity(points[None], TEMPLATE_112)[0]
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE_112, atol=1e-8)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_no_other_similarity_fits_better_and_none_is_a_reflection(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 112, (5, 2))
    matrix = similarity(points[None], TEMPLATE_112)[0]

    def error(candidate):
        return np.sum((points @ candidate[:, :2].T + candidate[:, 2] - TEMPLATE_112) ** 2)

    for _ in range(20):
        a, b, dx, dy = rng.normal(0, 1e-2, 4)
        assert error(matrix + np.array([[a, -b, dx], [b, a, dy]])) >= error(matrix)
    assert np.linalg.det(matrix[:, :2]) >= 0


def test_landmarks_in_one_place_or_nowhere_fix_no_similarity_and_crash_nothing():
    landmarks = np.stack([TEMPLATE_112, np.full((5, 2), 56.0), np.full((5, 2), np.nan)]).astype(np.float32)
    assert alignable(landmarks).tolist() == [True, False, False]
    pictures = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    crops = crop(pictures, landmarks)
    assert np.array_equal(crops[1:], pictures[1:])  # the whole picture
    with pytest.raises(ValueError, match="points: expected finite points that are not all in one place"):
        similarity(landmarks[1:2].astype(np.float64), TEMPLATE_112)


def test_a_face_on_the_template_is_its_own_crop():
    picture = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    assert np.array_equal(crop(picture, TEMPLATE_112[None].astype(np.float32)), picture)


def test_a_crop_that_reaches_past_its_picture_is_black_there_or_goes_on_with_the_edge():
    picture = np.full((1, 112, 112, 3), 90, np.uint8)
    picture[:, :, 0] = 200
    landmarks = TEMPLATE_112[None].astype(np.float32) - np.float32([30, 0])  # the crop begins 30 px left of the picture
    black, edge = (crop(picture, landmarks, border=border) for border in ("black", "edge"))
    assert (black[0, :, :29] == 0).all()
    assert (edge[0, :, :29] == 200).all()
    assert np.array_equal(black[0, :, 31:], edge[0, :, 31:])


def test_a_size_without_a_template_is_named():
    with pytest.raises(ValueError, match="size_px: expected a multiple of 112 or 128, got 100"):
        template(100)
