"""FRUITS: parts are timed by a clock that the test holds, and a slow pipeline has no score."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from benchmarks.fruits import Pipeline, fruits, one_thread
from benchmarks.protocols import of_images

SAME = np.arange(40) % 2 == 0


@pytest.fixture(scope="module")
def protocol():
    """Genuine pairs of one colour, impostor pairs of two."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (80, 3))
    colours[1::4] = colours[0::4]  # second pictures of genuine pairs
    noise = rng.integers(-5, 5, (80, 112, 112, 3))
    return of_images("wild", np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8), SAME)


class Clock:
    """Stands still, until a part of the pipeline moves it on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def takes(self, ms, part):
        def timed(*arguments):
            self.now_s += ms / 1000
            return part(*arguments)

        return timed


def pipeline(clock, embed_ms=40.0, lost=()):
    seen = []

    def detect(picture):
        seen.append(picture)
        return None if len(seen) in lost else np.zeros((5, 2), np.float32)

    return Pipeline(
        clock.takes(20, detect),
        clock.takes(5, lambda picture, landmarks: picture),
        clock.takes(embed_ms, lambda crop: crop.reshape(-1, 3).mean(0) - 128),
        clock.takes(1, lambda one, other: float(one @ other)),
        {"detector": "toy"},
    )


def test_each_part_and_the_whole_are_timed_per_picture(protocol):
    clock, seen = Clock(), []
    told = fruits(protocol, pipeline(clock), folds=4, clock=clock, watch=seen.append)
    times = {part: each["p95_ms"] for part, each in told["times"].items()}
    assert times == pytest.approx({"detect": 20, "align": 5, "embed": 40, "match": 1, "whole": 66})
    assert (told["threads"], told["pictures"], sum(seen)) == (1, 80, 80)
    assert told["accuracy"] > 0.9
    assert [each["accuracy"] for each in told["under"].values()] == [told["accuracy"]] * 3
    assert told["detector"] == "toy"


def test_a_pipeline_that_is_too_slow_for_a_budget_has_no_score_under_it(protocol):
    clock = Clock()
    told = fruits(protocol, pipeline(clock, embed_ms=600), folds=4, clock=clock)
    assert told["under"]["100_ms"]["accuracy"] is told["under"]["500_ms"]["accuracy"] is None
    assert told["under"]["500_ms"]["reason"] == "too slow: p95 of the whole is 626.0 ms, the budget 500 ms"
    assert told["under"]["1000_ms"] == {"accuracy": told["accuracy"]}


def test_a_face_that_is_not_found_makes_its_pair_two_people(protocol):
    clock = Clock()
    lost = (4, 6)  # after three pictures to warm up: the first and the third, of a genuine and an impostor pair
    told = fruits(protocol, pipeline(clock, lost=lost), folds=4, clock=clock)
    assert told["pairs_without_a_face"] == 2
    assert told["faces_found"] == 78 / 80
    everybody = fruits(protocol, pipeline(Clock()), folds=4, clock=Clock())
    assert told["accuracy"] < everybody["accuracy"] + 1 / 40


def test_a_pipeline_that_finds_nobody_is_refused(protocol):
    clock = Clock()
    with pytest.raises(ValueError, match="wild: expected faces in the pictures, the pipeline found none in any pair"):
        fruits(protocol, pipeline(clock, lost=range(100)), folds=4, clock=clock)


def test_one_thread_is_one_thread_and_gives_back_what_it_took():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[0])
    assert cv2.getNumThreads() == before[1]
