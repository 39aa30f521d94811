"""What is painted on the head: skin with its marks and lines, brows, eyes, lips, beard. Sharp at any size.

Colours are linear RGB reflectances (b, 3, h, w); shares and masks (b, 1, h, w) in [0, 1].
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from generation.world.anatomy import DEG, Anatomy, ramp
from generation.world.head import read

GRAIN_PX = 256


@lru_cache(maxsize=4)
def grain(device: torch.device) -> Tensor:
    """Fixed textures (1, 3, 256, 256) that repeat: freckles, soft blotches, white noise; the same on every machine."""
    rng = np.random.default_rng(20240229)
    x, y = np.meshgrid(np.arange(GRAIN_PX), np.arange(GRAIN_PX))
    spots = np.zeros((GRAIN_PX, GRAIN_PX))
    for px, py, size, ink in zip(
        *rng.uniform(0, GRAIN_PX, (2, 300)), rng.uniform(2.2, 4.6, 300), rng.uniform(0.4, 1, 300), strict=True
    ):
        dx, dy = (np.abs(a - b) for a, b in ((x, px), (y, py)))
        dx, dy = np.minimum(dx, GRAIN_PX - dx), np.minimum(dy, GRAIN_PX - dy)
        spots = np.maximum(spots, ink * np.exp(-(((dx**2 + dy**2) / size**2) ** 2)))
    white = rng.standard_normal((GRAIN_PX, GRAIN_PX))
    f = np.hypot(np.fft.fftfreq(GRAIN_PX)[:, None], np.fft.fftfreq(GRAIN_PX)[None])
    blotch = np.fft.ifft2(np.fft.fft2(white) * np.exp(-((f * 22) ** 2))).real
    fine = np.fft.ifft2(np.fft.fft2(rng.standard_normal((GRAIN_PX, GRAIN_PX))) * np.exp(-((f * 3.4) ** 2))).real
    layers = [spots, blotch / blotch.std(), fine / fine.std()]
    return torch.tensor(np.stack(layers)[None].astype(np.float32), device=device)


def sprinkle(texture: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Reads a repeating texture (1, c, 256, 256) at u, v (b, 1, h, w), one period per unit."""
    places = torch.stack([(u - torch.floor(u)) * 2 - 1, (v - torch.floor(v)) * 2 - 1], -1)[:, 0]
    return read(texture.expand(u.shape[0], -1, -1, -1), places)


def colour(r: float, g: float, b: float, like: Tensor) -> Tensor:
    """Three numbers as (1, 3, 1, 1), where `like` is."""
    return _constant(r, g, b, like.device)


@lru_cache(maxsize=512)
def _constant(r: float, g: float, b: float, device: torch.device) -> Tensor:
    return torch.tensor([r, g, b], dtype=torch.float32, device=device).reshape(1, 3, 1, 1)


def edge(distance: Tensor, soft: float = 0.010) -> Tensor:
    """Coverage of a shape from the signed angle to its rim (positive inside), over `soft` radians."""
    return (distance / soft + 0.5).clamp(0, 1)


def complexion(m: Anatomy) -> Tensor:
    """Reflectance of bare skin (b, 3, 1, 1): absorption grows with melanin; the undertone moves green against blue."""
    pale = colour(0.80, 0.545, 0.43, m.melanin)
    skin = pale * torch.exp(-m.melanin * colour(1.95, 2.45, 2.75, m.melanin))
    warm = m.t.undertone
    return skin * torch.exp(warm * colour(-0.015, 0.045, -0.11, m.melanin))


def hair_colour(m: Anatomy) -> Tensor:
    """Reflectance of hair (b, 3, 1, 1): eumelanin darkens, pheomelanin reddens, age takes both."""
    dark, red = m.hair_dark, m.hair_red
    ink = colour(0.55, 0.40, 0.24, dark) * torch.exp(
        -dark * colour(3.3, 3.5, 3.5, dark) - red * (1 - 0.6 * dark) * colour(0.15, 0.95, 1.6, dark)
    )
    grey = colour(0.56, 0.56, 0.57, dark)
    return torch.lerp(ink, grey, m.grey * 0.95)


class Paint:
    """The state of the painting: reflectance, gloss, and which part each point belongs to."""

    def __init__(self, base: Tensor, gloss: Tensor, part: Tensor) -> None:
        self.base, self.gloss, self.part = base, gloss, part
        self.sky = torch.ones_like(gloss)

    def cover(self, share: Tensor, base: Tensor) -> None:
        """Lays a colour over what is there."""
        self.base = torch.lerp(self.base, base.expand_as(self.base), share)

    def darken(self, share: Tensor, by: Tensor) -> None:
        """Multiplies by `by` (b or 1, 3, 1, 1) where the share is 1."""
        self.base = self.base * torch.addcmul(_constant(1.0, 1.0, 1.0, by.device), share, by - 1)

    def name(self, where: Tensor, part: int) -> None:
        self.part = self.part.masked_fill(where, part)


def paint(m: Anatomy, lon: Tensor, lat: Tensor, fields: dict[str, Tensor]) -> Paint:
    """Paints the head without its hair and hat."""
    side = lon.abs()
    marks = sprinkle(
        grain(lon.device), lon * 0.85 + 0.31 * m.t.freckle_place_x, lat * 0.85 + 0.31 * m.t.freckle_place_y
    )
    p = Paint(complexion(m).expand(-1, -1, *lon.shape[2:]), torch.full_like(lon, 0.30), torch.ones_like(lon))
    _tone(m, p, side, lat, marks)
    _moles(m, p, lon, lat)
    _lines(m, p, side, lat)
    _whiskers(m, p, side, lat, marks, fields["beard"])
    _lips(m, p, side, lat)
    _eye(m, p, lon, side, lat)
    _brow(m, p, side, lat, sprinkle(grain(lon.device), side * 1.6 + lat * 2.2, lat * 3.2 - side * 2.4)[:, 2:3])
    nose = (side < m.nose_wing_lon + 3.5 * DEG) & (lat < m.eye_lat) & (lat > m.nose_lat - 7.5 * DEG)
    nose = nose & (side < (3 * DEG + (m.eye_lat - lat) * 0.8))
    p.name(nose & (p.part == 1), 4)
    return p


def _tone(m: Anatomy, p: Paint, side: Tensor, lat: Tensor, marks: Tensor) -> None:
    def near(at_lon: Tensor | float, at_lat: Tensor | float, size: float) -> Tensor:
        return (1 - ((side - at_lon) ** 2 + (lat - at_lat) ** 2) / (size * DEG) ** 2).clamp(min=0) ** 2

    flush = near(34 * DEG, -7 * DEG, 24.0) + 0.8 * near(0.0, m.nose_lat, 13.0) + 0.35 * near(0.0, m.chin_lat, 14.0)
    p.darken(flush * m.redness * 0.75, colour(1.0, 0.66, 0.64, lat))
    p.darken(near(m.eye_lon, m.eye_lat - 2 * DEG, 15.0) * (0.20 + 0.3 * m.old), colour(0.72, 0.62, 0.66, lat))
    p.base = p.base * (1 + marks[:, 1:2] * (0.025 + 0.02 * m.old))
    face = near(0.0, -2 * DEG, 62.0).clamp(max=0.5) * 2
    p.darken((marks[:, 0:1] * m.freckle * face * 1.25).clamp(max=0.85), colour(0.62, 0.40, 0.30, lat))
    p.darken((ramp(marks[:, 1:2], 1.0, 1.5) * m.spots * 0.65).clamp(max=0.8), colour(0.66, 0.48, 0.38, lat))


def _moles(m: Anatomy, p: Paint, lon: Tensor, lat: Tensor) -> None:
    for i, (at_lon, at_lat) in enumerate(m.moles):
        d = ((lon - at_lon) ** 2 + (lat - at_lat) ** 2).sqrt()
        p.darken(edge(m.mole_size * (1 - 0.2 * i) - d, 0.018) * 0.85, colour(0.30, 0.20, 0.18, lat))


def _lines(m: Anatomy, p: Paint, side: Tensor, lat: Tensor) -> None:
    """Wrinkles: forehead, frown, crow's feet, bags, and the fold from the nose to the mouth."""
    w = m.wrinkle

    def groove(distance: Tensor, width: float) -> Tensor:
        return (1 - (distance / (width * DEG)) ** 2).clamp(min=0) ** 2

    wave = torch.sin((lat + 0.03 * torch.sin(side * 5 + m.t.brow_arch)) * (2 * math.pi / (5.2 * DEG)))
    brow = (
        ramp(side / DEG, 36.0, 16.0)
        * ramp((lat - m.brow_lat) / DEG, 3.0, 8.0)
        * ramp((m.hairline - lat) / DEG, 0.0, 6.0)
    )
    lines = ramp(wave, 0.45, 1.0) * brow * (0.75 * w + 0.35 * m.a.brow_raise.clamp(min=0) * m.adult)
    frown = groove(side - 4.2 * DEG, 1.3) * groove(lat - m.brow_lat - 0.5 * DEG, 7.0)
    lines = lines + frown * (0.65 * w + 0.6 * m.a.brow_raise.clamp(max=0).abs())
    out, up = side - m.eye_lon - m.eye_half * 1.1, lat - m.eye_lat
    fan = torch.cos(up / (out + 5 * DEG).clamp(min=DEG) * 11)  # from a point inside the corner, where nothing is drawn
    feet = ramp(fan, 0.4, 1.0) * ramp(out / DEG, 0.0, 2.0) * ramp(out / DEG, 11.0, 6.0)
    lines = lines + feet * ramp(up.abs() / DEG, 9.0, 6.0) * (0.6 * w + 0.2 * m.a.smile.clamp(min=0) * m.adult)
    t = (side - m.eye_lon) / m.eye_half
    bag = groove(up + m.lid_low * (1.25 - 0.8 * t * t) + 3.4 * DEG, 1.5) * ramp(t.abs(), 1.15, 0.7)
    lines = lines + bag * (0.12 + 0.5 * w)
    fall = (m.nose_lat - 1 * DEG - lat) / (m.nose_lat - m.mouth_lat - m.corner)
    fold = m.nose_wing_lon + 3.5 * DEG + (m.mouth_half + 4.0 * DEG - m.nose_wing_lon) * fall
    smiling = m.a.smile.clamp(min=0)
    depth = (0.06 + 0.5 * w + 0.28 * smiling) * (1 - 0.5 * m.child)
    lines = lines + groove(side - fold, 2.2) * ramp(fall, -0.15, 0.15) * ramp(fall, 1.25, 0.8) * depth
    p.darken(lines.clamp(max=0.9), colour(0.58, 0.46, 0.43, lat))


def _whiskers(m: Anatomy, p: Paint, side: Tensor, lat: Tensor, marks: Tensor, beard: Tensor) -> None:
    over = lat - m.mouth_lat - 0.3 * m.gap - m.lip_up
    top = m.nose_lat - 7.0 * DEG - lat - 0.35 * (side - 6 * DEG).clamp(min=0)
    lip = ramp(side / DEG, 19.0, 13.0) * ramp(over / DEG, -0.5, 1.5) * ramp(top / DEG, -1.0, 2.0)
    tuft = 1 + 0.22 * marks[:, 2:3]
    ink = torch.maximum(beard * m.beard * tuft, lip * m.moustache * tuft)
    p.cover((0.95 * ramp(ink, 0.0, 0.9)).clamp(0, 0.94), hair_colour(m) * (1 + 0.25 * marks[:, 2:3]).clamp(min=0.4))
    p.gloss = p.gloss * (1 - ramp(ink, 0.0, 0.8))


def _lips(m: Anatomy, p: Paint, side: Tensor, lat: Tensor) -> None:
    t = side / m.mouth_half
    arch = (1 - t * t).clamp(min=0)
    at = lat - m.mouth_lat - m.corner * t * t
    opened = m.gap * arch.sqrt()
    bow = 1 - m.cupid * (1 - (t / 0.28) ** 2).clamp(min=0) + 0.12 * (1 - ((t - 0.3) / 0.3) ** 2).clamp(min=0)
    top = 0.3 * opened + m.lip_up * arch**0.8 * bow
    low = -0.7 * opened - m.lip_low * arch**0.65
    inside = edge(torch.minimum(top - at, at - low), 0.014) * (t < 1)
    red = complexion(m) * colour(0.86, 0.43, 0.46, lat) ** (
        0.75 + 0.2 * m.t.lip_colour + 0.25 * (0.5 - m.male) - 0.2 * m.old
    )
    shade = 1 - 0.16 * ramp(at / m.lip_up, 0.0, 0.6)
    p.cover(inside * 0.9, red * shade)
    p.gloss = torch.lerp(p.gloss, torch.full_like(p.gloss, 0.6), inside)
    hole = edge(torch.minimum(0.3 * opened - at, at + 0.7 * opened), 0.012) * (t < 1)
    p.cover(hole, colour(0.045, 0.012, 0.012, lat))
    teeth = edge(at - 0.3 * opened + 2.9 * DEG, 0.012) * ramp(t, 0.82, 0.6) * hole
    p.cover(teeth * 0.95, colour(0.66, 0.62, 0.55, lat))
    tongue = edge(-0.45 * opened - at, 0.05) * ramp(t, 0.7, 0.4) * hole
    p.cover(tongue * 0.7, colour(0.40, 0.10, 0.09, lat))
    x, y = (side - 3.9 * DEG) / (2.3 * DEG), (lat - m.nose_lat + 6.3 * DEG - 0.25 * (side - 3.9 * DEG)) / (1.15 * DEG)
    p.darken((1.35 - x * x - y * y).clamp(0, 1) * 0.8, colour(0.25, 0.15, 0.14, lat))  # nostrils
    seam = (1 - ((at - 0.3 * opened) / (0.9 * DEG)) ** 2).clamp(min=0) * ramp(t, 1.08, 0.95)
    p.darken(seam * 0.75, colour(0.30, 0.16, 0.16, lat))
    p.gloss = p.gloss * (1 - hole * 0.7)
    p.name((inside > 0.5) | (hole > 0.5), 5)


def _eye(m: Anatomy, p: Paint, lon: Tensor, side: Tensor, lat: Tensor) -> None:
    x = side - m.eye_lon
    y = lat - m.eye_lat - m.eye_tilt * x
    t = x / m.eye_half
    arch = 1 - t * t
    lower = -m.lid_low * arch
    upper = m.lid_up * arch * (1 - 0.22 * t * (1 - 0.2 * t))
    lid = torch.lerp(upper, lower + 0.2 * DEG, m.a.eye_closure)
    within = (t.abs() < 1) * 1.0
    open_ = edge(torch.minimum(lid - y, y - lower), 0.012) * within
    shut = edge(torch.minimum(upper - y, y - lower), 0.03) * within
    p.darken(shut * 0.25, colour(0.75, 0.62, 0.60, lat))  # the lid when it is down
    crease = (1 - ((y - lid.clamp(min=-0.02) - m.crease * (1 - 0.45 * t * t)) / (0.75 * DEG)) ** 2).clamp(min=0)
    p.darken(crease * ramp(t.abs(), 1.2, 0.9) * (0.62 - 0.3 * m.a.eye_closure), colour(0.45, 0.33, 0.31, lat))
    white = colour(0.68, 0.655, 0.64, lat) * (1 - 0.55 * ramp((lid - y) / m.lid_up, 0.55, 0.0)) * (1 - 0.25 * t * t)
    p.cover(open_, white)
    right = torch.copysign(torch.ones_like(lon), lon)
    gx, gy = x * right - m.gaze_x, y - 0.25 * DEG - m.gaze_y
    d = (gx * gx + gy * gy).sqrt() / m.iris
    ring = edge((1 - d) * m.iris, 0.012) * open_
    p.cover(
        ring,
        iris_colour(m)
        * (0.62 + 0.5 * ramp(d, 1.0, 0.35))
        * (1 - 0.35 * ramp(gy / m.iris, 0.0, 1.0))
        * (1 - 0.7 * ramp(d, 0.72, 1.0)),
    )
    p.cover(edge((0.42 - d) * m.iris, 0.012) * open_, colour(0.012, 0.010, 0.010, lat))
    hx, hy = gx / m.iris + 0.36, gy / m.iris - 0.38
    p.cover(edge((0.24 - (hx * hx + hy * hy).sqrt()) * m.iris, 0.012) * open_, colour(1.5, 1.5, 1.5, lat))
    lash = (1 - ((y - lid) / ((1.3 - 0.4 * m.male) * DEG)) ** 2).clamp(min=0) * ramp(t.abs(), 1.12, 1.0)
    p.cover((lash * (1.0 - 0.25 * m.male)).clamp(0, 0.92), colour(0.025, 0.018, 0.016, lat))
    rim = (1 - ((y - lower) / (0.6 * DEG)) ** 2).clamp(min=0) * within
    p.darken(rim * 0.5, colour(0.55, 0.38, 0.36, lat))
    p.gloss = torch.lerp(p.gloss, torch.full_like(p.gloss, 0.15), open_)
    p.name(open_ > 0.5, 3)


def iris_colour(m: Anatomy) -> Tensor:
    """From brown over green to blue (b, 3, 1, 1)."""
    hue = m.t.iris_hue - 0.9 * (m.melanin - 0.3)
    tint = torch.lerp(colour(0.16, 0.075, 0.028, hue), colour(0.20, 0.24, 0.10, hue), ramp(hue, -0.1, 0.7))
    tint = torch.lerp(tint, colour(0.17, 0.31, 0.46, hue), ramp(hue, 0.6, 1.4))
    return tint * torch.exp(0.3 * m.t.iris_lightness)


def _brow(m: Anatomy, p: Paint, side: Tensor, lat: Tensor, strands: Tensor) -> None:
    x = (side - m.eye_lon) / m.brow_long  # -1 inner, 1 outer end
    middle = m.brow_lat + m.brow_arch * (0.25 - (x - 0.25) ** 2) + m.brow_tilt * (side - m.eye_lon)
    middle = middle + 2.2 * DEG * m.a.brow_raise.clamp(max=0) * ramp(x, 0.2, -1.0)  # a frown pulls the inner ends down
    thick = m.brow_thick * (1 - 0.6 * ramp(x, 0.1, 1.0)) * ramp(x.abs(), 1.02, 0.85)
    share = edge(thick * (1 + 0.25 * strands) - (lat - middle).abs(), 0.03) * ramp(x.abs(), 1.02, 0.9)
    p.cover((share * m.brow_ink * (1 + 0.2 * strands)).clamp(0, 0.95), hair_colour(m) * 0.6)
    p.gloss = p.gloss * (1 - share)


def strands(m: Anatomy, lon: Tensor, lat: Tensor) -> tuple[Tensor, Tensor]:
    """Two textures of the hair, standard normal: fine strands and locks, from the crown down, waved by the curl."""
    sway = m.curl * 0.035 * torch.sin(lat * 26 + 3 * torch.sin(lon * 4)) + 0.02 * torch.sin(lat * 7 + m.t.hair_curl)
    part = lon - m.parting * ramp(lat / DEG, 20.0, 60.0)
    fine = sprinkle(grain(lon.device), (part + sway) * 2.0, lat * (0.16 + 0.6 * m.curl))[:, 2:3]
    locks = sprinkle(grain(lon.device), (part + sway) * 0.8 + 0.3, lat * 0.10 + 0.25 * m.curl * lat)[:, 1:2]
    return fine, locks
