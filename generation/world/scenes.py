"""Distributions of photographs, and the five verification protocols of the world: who meets whom, photographed how.

Each protocol has the design of a set of the field: `wild` of LFW (Huang et al., 2007), `frontal_profile` of CFP-FP
(Sengupta et al., 2016), `cross_age` of CALFW (Zheng et al., 2017) and AgeDB-30 (Moschoglou et al., 2017), `cross_pose`
of CPLFW (Zheng and Deng, 2018), `low_quality` of TinyFace (Cheng et al., 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from generation.world.attributes import ATTRIBUTES
from generation.world.identity import TRAITS, sample_people

Photograph = dict[str, float]
Couple = tuple[Photograph, Photograph]

PEOPLE_PER_PAIR = 0.75  # people drawn per pair of a fold
CANDIDATES = 6  # strangers looked at for an impostor
_MELANIN = list(TRAITS).index("melanin")


@dataclass(frozen=True, slots=True, eq=False)
class PairPlan:
    """The photographs of a protocol, before they are taken. Rows 2i and 2i + 1 are pair i; folds are contiguous.

    Attributes:
        people: Vectors of all people.
        person: Whose photograph each row is: a row of `people`.
        attributes: What each photograph is like.
        seeds: One per photograph.
        same: Whether a pair shows one person.
        folds: Fold of each pair.
    """

    people: Float32[np.ndarray, "n c"]
    person: Int64[np.ndarray, " r"]
    attributes: list[Photograph]
    seeds: Int64[np.ndarray, " r"]
    same: Bool[np.ndarray, " p"]
    folds: Int64[np.ndarray, " p"]


def wild_attributes(
    n: int, rng: np.random.Generator, base_age: Float32[np.ndarray, " b"] | None = None
) -> list[Photograph]:
    """n photographs as people take them of each other.

    Args:
        base_age: Age in years around which each photograph is taken, +-8 years; drawn from 16 to 65 if not given.
    Raises:
        ValueError: If there are not n base ages.
    """
    base = rng.uniform(16, 65, n) if base_age is None else np.asarray(base_age, np.float64)
    if base.shape != (n,):
        raise ValueError(f"expected {n} base ages, got shape {base.shape}")
    draw: dict[str, np.ndarray] = {
        "yaw_deg": rng.normal(0, 25, n),
        "pitch_deg": rng.normal(0, 10, n),
        "roll_deg": rng.normal(0, 6, n),
        "smile": rng.normal(0.25, 0.45, n),
        "mouth_open": np.where(rng.random(n) < 0.35, rng.beta(1.5, 3, n), 0),
        "brow_raise": rng.normal(0, 0.35, n),
        "eye_closure": np.where(rng.random(n) < 0.06, rng.uniform(0.5, 1, n), rng.beta(1, 9, n)),
        "gaze_yaw_deg": rng.normal(0, 9, n),
        "gaze_pitch_deg": rng.normal(0, 5, n),
        "age_years": base + rng.uniform(-8, 8, n),
        "light_azimuth_deg": rng.uniform(-80, 80, n),
        "light_elevation_deg": rng.normal(28, 20, n),
        "light_warmth": rng.normal(0.1, 0.4, n),
        "ambient": rng.beta(3, 3.5, n),
        "glasses": np.where(rng.random(n) < 0.2, rng.choice([1, 2, 3], n, p=[0.4, 0.4, 0.2]), 0),
        "hat": np.where(rng.random(n) < 0.1, rng.integers(1, 4, n), 0),
        "background": rng.integers(0, 65536, n),
        "exposure_ev": rng.normal(0, 0.35, n),
        "white_balance": rng.normal(0, 0.3, n),
        "blur_px": rng.exponential(0.35, n),
        "noise": np.where(rng.random(n) < 0.5, rng.exponential(0.015, n), 0),
        "jpeg_quality": np.where(rng.random(n) < 0.7, rng.integers(45, 98, n), 100),
        "low_resolution_px": np.where(rng.random(n) < 0.15, rng.integers(56, 112, n), 256),
    }
    return [_within({name: values[i] for name, values in draw.items()}) for i in range(n)]


def _within(photograph: Photograph) -> Photograph:
    """Clips each value to its attribute's range."""
    return {k: float(np.clip(v, ATTRIBUTES[k].low, ATTRIBUTES[k].high)) for k, v in photograph.items()}


def _both(rng: np.random.Generator) -> Couple:
    """Two photographs in the wild of people of about one age."""
    age = np.full(2, rng.uniform(16, 65), np.float32)
    first, second = wild_attributes(2, rng, age)
    return first, second


def _frontal_profile(rng: np.random.Generator) -> Couple:
    first, second = _both(rng)
    side = rng.choice([-1, 1])
    return first | {"yaw_deg": rng.uniform(-10, 10)}, second | {"yaw_deg": side * rng.uniform(60, 75)}


def _cross_age(rng: np.random.Generator) -> Couple:
    first, second = _both(rng)
    young = rng.uniform(12, 45)
    ages = [young, rng.uniform(young + 30, min(young + 45, 85))]
    rng.shuffle(ages)
    return first | {"age_years": ages[0]}, second | {"age_years": ages[1]}


def _cross_pose(rng: np.random.Generator) -> Couple:
    first, second = _both(rng)
    yaw = rng.uniform(-75, 35)
    yaws = [yaw, rng.uniform(yaw + 40, 75)]
    rng.shuffle(yaws)
    return first | {"yaw_deg": yaws[0]}, second | {"yaw_deg": yaws[1]}


def _low_quality(rng: np.random.Generator) -> Couple:
    """Both pictures of 26 to 52 pixels: faces of 13 to 26, as TinyFace's, whose mean is 20."""

    def small(photograph: Photograph) -> Photograph:
        return photograph | {
            "low_resolution_px": float(rng.integers(26, 53)),
            "blur_px": rng.uniform(0, 0.5),
            "noise": rng.uniform(0, 0.015),
            "jpeg_quality": float(rng.integers(70, 96)),
        }

    first, second = _both(rng)
    return small(first), small(second)


PROTOCOLS: dict[str, Callable[[np.random.Generator], Couple]] = {
    "wild": _both,
    "frontal_profile": _frontal_profile,
    "cross_age": _cross_age,
    "cross_pose": _cross_pose,
    "low_quality": _low_quality,
}


def protocol_pairs(name: str, pairs: int, folds: int, rng: np.random.Generator) -> PairPlan:
    """Draws the people and photographs of a protocol: half of each fold genuine pairs, then half impostors.

    No person is in two folds. An impostor is the nearest in skin tone of a few strangers of the fold, as CALFW and
    CPLFW pair people of like appearance, so that colour alone does not tell.

    Raises:
        ValueError: If the protocol is unknown, or `pairs` is not a positive multiple of 2 * `folds`.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}, expected one of {', '.join(PROTOCOLS)}")
    if folds < 1 or pairs < 1 or pairs % (2 * folds):
        raise ValueError(f"expected pairs to be a positive multiple of 2 * folds, got pairs={pairs}, folds={folds}")
    per_fold = pairs // folds
    crowd = max(2, round(PEOPLE_PER_PAIR * per_fold))
    people = sample_people(crowd * folds, rng)
    same = np.tile(np.arange(per_fold) < per_fold // 2, folds)
    fold = np.repeat(np.arange(folds), per_fold)
    person = np.array(
        [_couple(people, int(f) * crowd, crowd, bool(s), rng) for f, s in zip(fold, same, strict=True)], np.int64
    )
    attributes = [_within(photograph) for _ in range(pairs) for photograph in PROTOCOLS[name](rng)]
    seeds = rng.integers(0, 2**62, 2 * pairs, dtype=np.int64)
    return PairPlan(people, person.reshape(-1), attributes, seeds, same, fold.astype(np.int64))


def _couple(people: np.ndarray, start: int, crowd: int, same: bool, rng: np.random.Generator) -> tuple[int, int]:
    """Rows of the two people of a pair, among `crowd` people from `start` on."""
    first = int(rng.integers(crowd))
    if same:
        return start + first, start + first
    strangers = (first + rng.integers(1, crowd, CANDIDATES)) % crowd
    tone = people[start + strangers, _MELANIN] - people[start + first, _MELANIN]
    return start + first, start + int(strangers[np.abs(tone).argmin()])


def training_attributes(n: int, rng: np.random.Generator) -> list[Photograph]:
    """n photographs of one person for training a model of the world: half in the wild, half harder than that.

    Each photograph keeps its chance of being a profile (0.2), of any age (0.2) and of low quality (0.15).
    """
    base = np.full(n, rng.uniform(10, 70), np.float32)
    photographs = wild_attributes(n, rng, base)
    for photograph in photographs:
        if rng.random() < 0.2:
            photograph["yaw_deg"] = float(rng.choice([-1, 1]) * rng.uniform(35, 75))
        if rng.random() < 0.2:
            photograph["age_years"] = float(rng.uniform(5, 85))
        if rng.random() < 0.15:
            photograph.update(_poor_quality(rng))
    return photographs


def generator_attributes(n: int, rng: np.random.Generator) -> list[Photograph]:
    """n photographs of one person for training a generator: in the wild, more profiles and ages, some of few pixels.

    No noise and no JPEG: a latent has no room for them, and a user adds them to finished pictures.
    """
    photographs = wild_attributes(n, rng, np.full(n, rng.uniform(10, 70), np.float32))
    for photograph in photographs:
        photograph.update(noise=0.0, jpeg_quality=100.0)
        if rng.random() < 0.2:
            photograph["yaw_deg"] = float(rng.choice([-1, 1]) * rng.uniform(35, 75))
        if rng.random() < 0.2:
            photograph["age_years"] = float(rng.uniform(5, 85))
        if rng.random() < 0.1:
            photograph["low_resolution_px"] = float(rng.integers(20, 57))
    return photographs


def _poor_quality(rng: np.random.Generator) -> Photograph:
    return {
        "low_resolution_px": float(rng.integers(14, 29)),
        "blur_px": rng.uniform(0.5, 2.0),
        "noise": rng.uniform(0.01, 0.05),
        "jpeg_quality": float(rng.integers(30, 80)),
    }
