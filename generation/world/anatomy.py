"""From traits, age and expression to measures of one head: lengths in decimetres, angles in radians.

Head coordinates: origin in the middle of the head at the height of the nostrils, x to the left ear (right in a frontal
picture), y up, z out of the face. Directions are longitude (0 in front, positive to +x) and latitude (positive up).
Every measure is a tensor (b, 1, 1, 1).
"""

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from generation.world.attributes import CONTROLS
from generation.world.identity import TRAITS

DEG = math.pi / 180


class Anatomy(SimpleNamespace):
    """The measures of one batch of heads, by name."""


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """Smooth step: 0 below `low`, 1 above `high`, cubic between (also downwards, where low > high)."""
    k = 1 / (high - low)
    t = (x * k).sub_(low * k).clamp_(0, 1)
    return (t * t).mul_(t.mul_(-2).add_(3))


def columns(table: Tensor, names: tuple[str, ...]) -> SimpleNamespace:
    """The columns of a table (b, c) by name, each (b, 1, 1, 1)."""
    return SimpleNamespace(**{name: table[:, i].reshape(-1, 1, 1, 1) for i, name in enumerate(names)})


def measure(people: Tensor, attributes: Tensor, day: Tensor) -> Anatomy:
    """All measures of the heads.

    Args:
        people: Traits, (b, c).
        attributes: Attributes, (b, a).
        day: What differs between two days of one person, standard normal, (b, DAY): haircut and shave.
    """
    t = columns(people.clamp(-3, 3), tuple(TRAITS))
    a = columns(attributes, CONTROLS)
    m = Anatomy(t=t, a=a)
    m.child = ramp(a.age_years, 20.0, 4.0)
    m.old = ramp(a.age_years, 36.0, 88.0)
    m.adult = ramp(a.age_years, 11.0, 20.0)
    m.male = torch.sigmoid(2.2 * t.dimorphism)
    m.glasses, m.hat = torch.round(a.glasses), torch.round(a.hat)
    _skull(m)
    _nose(m)
    _eyes(m)
    _mouth(m)
    _skin(m)
    _hair(m, day)
    return m


def _skull(m: Anatomy) -> None:
    t, child, old, male = m.t, m.child, m.old, m.male
    m.skull_width = 0.785 + 0.034 * t.skull_width + 0.01 * child
    m.skull_height = 0.98 + 0.04 * t.skull_height + 0.03 * child
    m.skull_depth = 0.98 + 0.045 * t.skull_depth - 0.03 * child
    m.face_width = (0.585 + 0.034 * t.jaw_width + 0.03 * (male - 0.5)) * (1 - 0.05 * child)
    m.face_low = (0.655 + 0.038 * t.face_length + 0.025 * (male - 0.5)) * (1 - 0.22 * child)
    m.jaw_drop = 0.11 * m.a.mouth_open
    m.forehead_slope = 0.05 * t.forehead_slope + 0.02 * (male - 0.5) - 0.03 * child
    m.brow_ridge = (0.028 + 0.016 * t.brow_ridge + 0.03 * (male - 0.5)) * (1 - 0.8 * child)
    m.temple = 0.02 + 0.015 * t.temple + 0.02 * old - 0.02 * child
    m.jaw_corner = (0.026 + 0.022 * t.jaw_angle + 0.03 * (male - 0.5)) * (1 - child) + 0.01 * old
    m.chin_lat = (-45.5 - 2.2 * t.chin_length + 8 * child) * DEG - m.jaw_drop * 0.8
    m.chin_width = (18.5 + 3.2 * t.chin_width + 3 * (male - 0.5)) * DEG
    m.chin_out = (0.125 + 0.035 * t.chin_protrusion + 0.02 * (male - 0.5)) * (1 - 0.35 * child)
    m.cheekbone = 0.05 + 0.024 * t.cheekbone - 0.02 * child + 0.02 * m.a.smile.clamp(min=0)
    m.cheekbone_lat = (3 + 2.5 * t.cheekbone_height) * DEG
    m.cheek = 0.012 + 0.03 * t.cheek_fullness + 0.045 * child - 0.05 * old + 0.015 * m.a.smile.clamp(min=0)
    m.jowl = 0.05 * old
    m.neck = (0.37 + 0.022 * t.neck_width + 0.05 * (male - 0.5)) * (1 - 0.13 * child)
    m.ear = (0.265 + 0.026 * t.ear_size) * (1 + 0.14 * old)
    m.ear_out = (22 + 9 * t.ear_protrusion).clamp(2, 60) * DEG


def _nose(m: Anatomy) -> None:
    t, small = m.t, 1 - 0.45 * m.child
    m.nose_lat = (-5.3 - 2.3 * t.nose_length + 2.0 * m.child - 2 * m.old) * DEG
    m.nose_out = (0.17 + 0.036 * t.nose_protrusion) * small * (1 + 0.07 * m.old)
    m.nose_bridge = (0.075 + 0.028 * t.nose_bridge) * (1 - 0.55 * m.child)
    m.nose_ridge = (5.7 + 0.75 * t.nose_ridge) * DEG
    m.nose_hook = 0.028 * t.nose_hook * (1 - m.child)
    m.nose_tip = (0.052 + 0.018 * t.nose_tip) * (1 + 0.15 * m.old)
    m.nose_wing = (0.085 + 0.02 * t.nose_width) * small
    m.nose_wing_lon = (7.6 + 1.15 * t.nose_width + 0.8 * m.a.smile.clamp(min=0)) * DEG
    m.nose_bend = 1.3 * t.nose_bend * DEG


def _eyes(m: Anatomy) -> None:
    t, a = m.t, m.a
    m.eye_lon = (22.9 + 1.15 * t.eye_spacing) * DEG
    m.eye_lat = (16.0 + 1.1 * t.eye_height - 6.0 * m.child) * DEG
    big = (1 + 0.085 * t.eye_size - 0.03 * (m.male - 0.5)) * (1 + 0.27 * m.child) * (1 - 0.08 * m.old)
    m.eye_half = 12.6 * DEG * big
    aspect = 1 + 0.14 * t.eye_aspect
    squint = 1 - 0.22 * a.smile.clamp(min=0) + 0.18 * a.brow_raise
    m.lid_up = 5.9 * DEG * big * aspect * squint * (1 - 0.15 * m.old)
    m.lid_low = 3.7 * DEG * big * aspect * (1 - 0.3 * a.smile.clamp(min=0))
    m.eye_tilt = 0.07 + 0.075 * t.eye_tilt - 0.05 * m.old
    m.socket = 0.085 + 0.022 * t.eye_depth + 0.025 * m.old - 0.02 * m.child
    m.crease = (1.7 + 0.75 * t.lid) * DEG
    m.iris = 5.65 * DEG * (1 + 0.5 * (big - 1))
    m.gaze_x, m.gaze_y = 0.0042 * a.gaze_yaw_deg, 0.0036 * a.gaze_pitch_deg
    m.brow_lat = m.eye_lat + (11.8 + 1.35 * t.brow_height - 0.9 * m.male + 2.6 * a.brow_raise - 1.2 * m.old) * DEG
    m.brow_thick = (2.0 + 0.5 * t.brow_thickness + 0.5 * (m.male - 0.5)) * DEG
    m.brow_arch = (2.6 + 1.5 * t.brow_arch - 1.2 * (m.male - 0.5)) * DEG
    m.brow_tilt = 0.05 + 0.1 * t.brow_tilt + 0.16 * a.brow_raise.clamp(max=0).abs()
    m.brow_long = (12.0 + 1.1 * t.brow_length) * DEG
    m.brow_ink = (0.72 + 0.2 * t.brow_darkness + 0.1 * (m.male - 0.5)) * (1 - 0.3 * m.child) * (1 - 0.35 * m.old)


def _mouth(m: Anatomy) -> None:
    t, a = m.t, m.a
    m.mouth_lat = (-23.6 + 1.15 * t.mouth_height + 3.4 * m.child) * DEG
    m.mouth_half = (14.9 + 1.5 * t.mouth_width + 3.0 * a.smile - 1.5 * a.mouth_open) * DEG * (1 - 0.12 * m.child)
    full = (1 - 0.4 * m.old) * (1 - 0.2 * (m.male - 0.5))
    m.lip_up = (3.0 + 0.75 * t.upper_lip) * DEG * full * (1 - 0.12 * a.smile)
    m.lip_low = (3.9 + 0.85 * t.lower_lip) * DEG * full * (1 - 0.1 * a.smile)
    m.mouth_out = 0.055 + 0.018 * t.mouth_protrusion - 0.02 * m.old
    m.corner = 0.5 * DEG + 2.9 * DEG * a.smile - 0.8 * DEG * m.old  # how far the corners rise
    m.gap = 9.5 * DEG * a.mouth_open  # between the lips
    m.cupid = 0.2 + 0.1 * t.cupid_bow


def _skin(m: Anatomy) -> None:
    t = m.t
    m.melanin = torch.sigmoid(1.05 * t.melanin - 0.75)
    m.freckle = ((t.freckles - 0.35) / 1.6).clamp(0, 1) * (1 - 0.65 * m.melanin) * (1 - 0.5 * m.old)
    m.spots = m.old * (1 - 0.5 * m.melanin)
    m.redness = (0.5 + 0.22 * t.blush + 0.2 * m.child).clamp(0.05, 1.2) * (1 - 0.75 * m.melanin)
    m.wrinkle = m.old * 1.0
    m.moles = tuple(
        (30 * DEG * getattr(t, f"mole_{i}_side"), (-8 + 19 * getattr(t, f"mole_{i}_height")) * DEG) for i in (1, 2, 3)
    )
    m.mole_size = (1.25 + 0.4 * t.mole_size) * DEG * (0.6 + 0.4 * m.adult)


def _hair(m: Anatomy, day: Tensor) -> None:
    t = m.t
    cut, volume, shave = (day[:, i].reshape(-1, 1, 1, 1) for i in range(3))
    length = t.hair_length - 2.6 * (m.male - 0.5) + 0.25 * cut
    m.long = torch.sigmoid(3 * (length - 0.25))  # 0 short, 1 to the shoulders
    m.hang = -0.25 - 0.55 * torch.sigmoid(1.6 * (length - 0.9)) * 1.7  # how low long hair reaches (y)
    m.curl = torch.sigmoid(2.2 * (t.hair_curl - 0.5))
    m.thick = (0.12 + 0.045 * t.hair_volume + 0.02 * volume + 0.035 * length + 0.07 * m.curl).clamp(0.025, 0.36)
    bald = ramp(m.male * (t.balding + 1.2 * m.old * 2 - 0.6 - 1.5 * m.child), 0.3, 2.6) * m.adult
    m.bald = bald
    m.hairline = (53.5 + 3.2 * t.hairline) * DEG
    m.recede = (3 + 24 * bald + 6 * m.male * m.old) * DEG
    m.peak = (2.5 + 2.5 * t.widows_peak) * DEG
    m.parting = 22 * DEG * t.hair_parting
    m.fringe = torch.sigmoid(2.5 * (t.hair_fringe - 0.7)) * (1 - bald) * (0.4 + 0.6 * m.long)
    m.grey = ramp(m.a.age_years + 4 * t.balding, 38.0, 75.0)
    m.hair_dark = torch.sigmoid(1.3 * t.hair_darkness + 0.5 + 1.1 * (m.melanin - 0.4) - 0.4 * m.child)
    m.hair_red = torch.sigmoid(1.3 * t.hair_redness - 1.2)
    beard = ((t.beard - 0.15) * 0.8 + 0.25 * shave).clamp(0, 1.6)
    m.beard = beard * ramp(m.male, 0.45, 0.8) * m.adult
    m.whiskers = torch.sigmoid(2 * t.beard_shape + 0.8)
    m.moustache = ((t.moustache + 0.3) * 0.6 + 0.15 * shave).clamp(0, 1.4) * ramp(m.male, 0.45, 0.8) * m.adult
