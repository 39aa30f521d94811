"""What stands around the star-shaped head, analytic: ears, neck, shoulders, brims, glasses, and the wall behind."""

import math

import numpy as np
import torch
from torch import Tensor

from generation.world import skin
from generation.world.anatomy import DEG, Anatomy, ramp

FAR = 99.0
STYLE = 20  # random numbers per background


def style(number: float) -> np.ndarray:
    """Uniform numbers (STYLE,) that fix the background and the clothes."""
    return np.random.default_rng([round(number), 77]).random(STYLE)


def hit_ellipsoid(
    origin: Tensor, ray: Tensor, centre: list, axes: list, radii: tuple
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Nearest meeting of rays with an ellipsoid.

    Args:
        axes: Three unit vectors, each three numbers or (b, 1, 1, 1).
    Returns:
        Path length or FAR, normal (b, 3, h, w), discriminant (positive where met), and point of the unit sphere.
    """
    o, d = [], []
    for axis, radius in zip(axes, radii, strict=True):
        o.append(sum(axis[i] * (origin[:, i : i + 1] - centre[i]) for i in range(3)) / radius)
        d.append(sum(axis[i] * ray[:, i : i + 1] for i in range(3)) / radius)
    a = sum(k * k for k in d)
    b = sum(p * q for p, q in zip(o, d, strict=True))
    c = sum(p * p for p in o) - 1
    inside = b * b - a * c
    t = (-b - inside.clamp(min=0).sqrt()) / a
    local = [p + t * q for p, q in zip(o, d, strict=True)]
    n = torch.cat([sum(axes[k][i] * local[k] / radii[k] for k in range(3)) for i in range(3)], 1)
    n = n / (n * n).sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    return torch.where(inside > 0, t, torch.full_like(t, FAR)), n, inside, local


def ear_side(origin: Tensor, ray: Tensor) -> Tensor:
    """Which ear a ray may strike, -1 or 1: by where it passes the middle between the ears."""
    depth = (origin[:, 2:3] + 0.17) * ray[:, 2:3] + origin[:, 0:1] * ray[:, 0:1]
    t = -depth / (ray[:, 0:1] ** 2 + ray[:, 2:3] ** 2)
    return torch.where(origin[:, 0:1] + t * ray[:, 0:1] < 0, -1.0, 1.0)


def ear_centre(m: Anatomy) -> list[Tensor]:
    """The middle of the ear on the +x side."""
    out = m.skull_width + 0.025 + 0.10 * m.ear_out.sin()
    return [out, 0.09 + 0.25 * m.eye_lat, -0.17 + 0 * out]


def ear_sphere(m: Anatomy, origin: Tensor, ray: Tensor) -> Tensor:
    """Positive where a ray passes near an ear, (b, 1, h, w)."""
    side, centre = ear_side(origin, ray), ear_centre(m)
    o = [origin[:, 0:1] - side * centre[0], origin[:, 1:2] - centre[1], origin[:, 2:3] - centre[2]]
    along = sum(p * ray[:, i : i + 1] for i, p in enumerate(o))
    return m.ear * m.ear - (sum(p * p for p in o) - along * along)


def ear(m: Anatomy, origin: Tensor, ray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ear that each ray may strike, drawn as if on the +x side: path length, normal, reflectance."""
    side, centre = ear_side(origin, ray), ear_centre(m)
    mirror = torch.cat([side, torch.ones_like(side), torch.ones_like(side)], 1)
    turn, lean = m.ear_out, 12 * DEG
    zero = 0 * turn
    out = [turn.cos(), zero - 0.1, turn.sin()]
    out = [x / 1.005 for x in out]
    up = [zero + 0.09, zero + math.cos(lean), zero - math.sin(lean)]
    dot = sum(p * q for p, q in zip(out, up, strict=True))
    up = [u - dot * o for u, o in zip(up, out, strict=True)]
    norm = sum(u * u for u in up).sqrt()
    up = [u / norm for u in up]
    back = [out[1] * up[2] - out[2] * up[1], out[2] * up[0] - out[0] * up[2], out[0] * up[1] - out[1] * up[0]]
    radii = (zero + 0.062, m.ear, m.ear * 0.6)
    t, n, _, local = hit_ellipsoid(origin * mirror, ray * mirror, centre, [out, up, back], radii)
    across, along = local[2], local[1]
    narrow = 1 - 0.25 * ramp(along, 0.0, -1.0)
    r = ((across / narrow) ** 2 + along**2).sqrt()
    bowl = ramp(((across + 0.05) ** 2 * 1.6 + (along + 0.02) ** 2).sqrt(), 0.62, 0.40)
    bowl = (bowl + 0.55 * ramp((r - 0.72).abs(), 0.10, 0.02) * ramp(along, -0.5, 0.0)).clamp(max=1)
    base = skin.complexion(m) * skin.colour(1.0, 0.84, 0.82, r)
    base = base * (1 - bowl * (1 - skin.colour(0.50, 0.38, 0.36, r)))
    return torch.where(r > 1.0, torch.full_like(t, FAR), t), n * mirror, base


def neck(m: Anatomy, origin: Tensor, ray: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """The neck, camera coordinates, a cylinder from the head (top, (b, 3)) to the shoulders: path length and normal."""
    foot = (0.0, -1.75, -0.42)
    axis = [top[:, i].reshape(-1, 1, 1, 1) - foot[i] for i in range(3)]
    long = sum(k * k for k in axis).sqrt()  # type: ignore[union-attr]
    axis = [k / long for k in axis]
    o = [origin[:, i : i + 1] - foot[i] for i in range(3)]
    d = [ray[:, i : i + 1] for i in range(3)]
    oa, da = (sum(p * q for p, q in zip(v, axis, strict=True)) for v in (o, d))
    op = [p - oa * q for p, q in zip(o, axis, strict=True)]
    dp = [p - da * q for p, q in zip(d, axis, strict=True)]
    a, b = sum(p * p for p in dp), sum(p * q for p, q in zip(op, dp, strict=True))
    inside = b * b - a * (sum(p * p for p in op) - m.neck * m.neck)
    t = (-b - inside.clamp(min=0).sqrt()) / a
    n = torch.cat([p + t * q for p, q in zip(op, dp, strict=True)], 1) / m.neck
    height = oa + t * da
    good = (inside > 0) & (height < long)
    return torch.where(good, t, torch.full_like(t, FAR)), n


def shoulders(m: Anatomy, origin: Tensor, ray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clothes in camera coordinates: path length, normal, and the point's distance from the neck's axis."""
    one = torch.ones_like(m.neck)
    zero = torch.zeros_like(one)
    wide = 1.35 + 0.18 * m.male - 0.35 * m.child
    axes = [[one, zero, zero], [zero, one, zero], [zero, zero, one]]
    t, n, _, local = hit_ellipsoid(origin, ray, [zero, zero - 1.93, zero - 0.36], axes, (wide, 0.72 * one, 0.66 * one))
    r = ((local[0] * wide) ** 2 + (local[2] * 0.66) ** 2).sqrt()
    return t, n, r


def brim(m: Anatomy, origin: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """The peak of a cap (2) or the brim of a hat (3) in head coordinates: path length and normal."""
    wide = (m.hat > 2.5) * 1.0
    tilt = (14 - 10 * wide) * DEG
    zero, one = torch.zeros_like(wide), torch.ones_like(wide)
    axes = [[one, zero, zero], [zero, tilt.cos(), tilt.sin()], [zero, -tilt.sin(), tilt.cos()]]
    centre = [zero, 0.66 - 0.04 * wide, 0.80 - 0.80 * wide]
    t, n, _, _ = hit_ellipsoid(origin, ray, centre, axes, (0.66 + 0.58 * wide, 0.045 * one, 0.62 + 0.72 * wide))
    return torch.where(m.hat > 1.5, t, torch.full_like(t, FAR)), n


def under_brim(m: Anatomy, point: Tensor, light: Tensor) -> Tensor:
    """Share of light (b, 1, h, w) that a brim leaves to points (b, 3, h, w) in head coordinates."""
    t, _ = brim(m, point, light)
    return 1 - 0.8 * ((t > 0.02) & (t < FAR / 2)) * 1.0


def glasses(m: Anatomy, origin: Tensor, ray: Tensor, eye: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Glasses in head coordinates, upon a plane before the eyes and two planes along the temples.

    Args:
        eye: The eye on the +x side, (b, 3).
    Returns:
        Path lengths to front and arms, coverage of frame and of lens, each (b, 1, h, w).
    """
    ex, ey, ez = (eye[:, i].reshape(-1, 1, 1, 1) for i in range(3))
    plane = ez + 0.13
    ahead = ray[:, 2:3] < -0.05  # rays along the plane do not meet it
    t = (plane - origin[:, 2:3]) / torch.where(ahead, ray[:, 2:3], torch.full_like(ray[:, 2:3], -1.0))
    x, y = (origin[:, i : i + 1] + t * ray[:, i : i + 1] for i in range(2))
    thick_style, dark_style = (m.glasses == 2) * 1.0, (m.glasses == 3) * 1.0
    width = 0.215 + 0.035 * thick_style + 0.05 * dark_style
    height = 0.20 - 0.035 * thick_style + 0.01 * dark_style
    cx = torch.maximum(ex, width + 0.05)
    u, v = (x.abs() - cx) / width, (y - ey + 0.03) / height
    power = 2 + 2.5 * thick_style + 1.0 * dark_style
    square = ((u.abs() + 1e-4) ** power + (v.abs() + 1e-4) ** power) ** (1 / power)
    distance = (square - 1) * height
    stroke = 0.016 + 0.018 * thick_style + 0.010 * dark_style
    frame = edge_of(stroke - distance.abs())
    bridge = edge_of(stroke - (y - ey - 0.03).abs()) * (x.abs() < cx - width + 0.01)
    hinge = edge_of(stroke - (y - ey - 0.05).abs()) * ((x.abs() > cx + width * 0.9) & (x.abs() < m.skull_width + 0.04))
    worn = (m.glasses > 0.5) * ahead * (t > 0)
    lens = edge_of(-distance) * worn
    front = torch.maximum(torch.maximum(frame, bridge), hinge) * worn
    arm_t = torch.full_like(t, FAR)
    for side in (-1, 1):
        ta = ((m.skull_width + 0.035) * side - origin[:, 0:1]) / torch.where(
            ray[:, 0:1].abs() < 1e-4, torch.full_like(t, 1e-4), ray[:, 0:1]
        )
        ya, za = (origin[:, i : i + 1] + ta * ray[:, i : i + 1] for i in (1, 2))
        on = ((ya - ey - 0.05).abs() < stroke) & (za < plane) & (za > -0.15) & (m.glasses > 0.5)
        arm_t = torch.minimum(arm_t, torch.where(on, ta, torch.full_like(t, FAR)))
    return t, arm_t, front, lens


def edge_of(distance: Tensor) -> Tensor:
    """Coverage from a signed distance in decimetres, 0.012 wide."""
    return (distance / 0.012 + 0.5).clamp(0, 1)


def frame_colour(m: Anatomy, like: Tensor) -> Tensor:
    wire = (m.glasses == 1) * 1.0
    return torch.lerp(skin.colour(0.03, 0.025, 0.024, like), skin.colour(0.35, 0.27, 0.14, like), wire)


def wall(styles: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The background out of focus, linear light (b, 3, rows, columns), from styles (b, STYLE).

    Args:
        rows, columns: Where it is looked at: -1 is the top or left of the picture, 1 the bottom or right.
    """
    s = styles[:, :, None, None, None]
    y, x = rows.reshape(1, 1, -1, 1), columns.reshape(1, 1, 1, -1)
    first, second = tint(styles[:, 0:3], 0.75), tint(styles[:, 3:6], 0.75)
    turn = s[:, 6] * (2 * math.pi)
    along = x * turn.cos() + y * turn.sin()
    light = torch.lerp(first, second, (0.5 + 0.4 * along).clamp(0, 1).expand(-1, 1, len(rows), len(columns)))
    stripes = torch.sin(along * (4 + 10 * s[:, 7]) + 6 * s[:, 8]) * ramp(s[:, 9], 0.6, 0.75) * 0.14
    light = light * (1 + stripes)
    for i in (10, 13):
        px, py, size = s[:, i] * 2 - 1, s[:, i + 1] * 1.4 - 1, 0.3 + 0.5 * s[:, i + 2]
        blob = (1 - ((x - px) ** 2 + (y - py) ** 2) / (size * size)).clamp(min=0)
        light = light + blob * blob * (s[:, 16] - 0.3) * 0.55 * (first + 0.1)
    return light.clamp(min=0.004)


def tint(u: Tensor, strength: float) -> Tensor:
    """A muted colour (b, 3, 1, 1) from three uniform numbers: hue, brightness, saturation."""
    hue = u[:, 0:1] * (2 * math.pi) + torch.tensor([[0.0, 2.094, 4.189]], device=u.device)
    value = 0.03 + 0.5 * u[:, 1:2] ** 1.6
    return (value * (1 + strength * u[:, 2:3] * torch.cos(hue)))[:, :, None, None]


def clothes(styles: Tensor) -> Tensor:
    return tint(styles[:, 17:20], 0.8) * 0.8


def hat_colour(styles: Tensor) -> Tensor:
    return tint(torch.roll(styles[:, 17:20], 1, 1), 0.9) * 0.8
