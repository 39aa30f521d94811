"""The head as a star-shaped surface: a radius for every direction, baked on a grid per head, met by rays.

The grid's coordinates are diamond angles (cheap stand-ins for longitude and latitude, finer in front):
q in [-2, 2] grows with longitude, v in [-1, 1] with latitude.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from generation.world import hair
from generation.world.anatomy import DEG, Anatomy, ramp

WIDTH, HEIGHT = 192, 112  # 1.2 and 1.0 degrees in front


@lru_cache(maxsize=4)
def grid(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Longitude, latitude (1, 1, h, w) and unit directions (1, 3, h, w) of the nodes."""
    q = (torch.arange(WIDTH, dtype=torch.float64) + 0.5) * (4 / WIDTH) - 2
    v = (torch.arange(HEIGHT, dtype=torch.float64) + 0.5) * (2 / HEIGHT) - 1
    part = q.abs() % 2
    front = torch.where(part <= 1, part, 2 - part)
    lon = torch.atan2(front, 1 - front)
    lon = torch.copysign(torch.where(part <= 1, lon, torch.pi - lon), q)
    lat = torch.atan2(v, 1 - v.abs())
    lon, lat = (x.float()[None, None] for x in torch.broadcast_tensors(lon[None, :], lat[:, None]))
    towards = torch.cat([lat.cos() * lon.sin(), lat.sin(), lat.cos() * lon.cos()], 1)
    return lon.contiguous().to(device), lat.contiguous().to(device), towards.contiguous().to(device)


def node(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Where to read the grid for points (b, 1, h, w): places (b, h, w, 2) in [-1, 1]; and their distance."""
    ax, ground = x.abs(), (x * x + z * z).sqrt()
    q = ax / (ax + z.abs() + 1e-9)
    q = torch.copysign(torch.where(z < 0, 2 - q, q), x)
    v = y / (y.abs() + ground + 1e-9)
    return torch.stack([q * 0.5, v], -1)[:, 0], (ground * ground + y * y).sqrt()


def read(maps: Tensor, places: Tensor) -> Tensor:
    """Bilinear reading of baked maps (b, c, H, W) at places (b, h, w, 2) -> (b, c, h, w)."""
    return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


def ellipsoid(towards: Tensor, centre: tuple, radii: tuple) -> Tensor:
    """Distance from the origin (inside) to the ellipsoid's surface, for each direction."""
    a, b, c = (torch.zeros_like(towards[:, :1]) for _ in range(3))
    for i in range(3):
        d, s = towards[:, i : i + 1], 1 / radii[i]
        k = centre[i] * s
        a, b, c = a + (d * s) ** 2, b + d * (s * k), c + k * k
    return (b + (b * b - a * (c - 1)).clamp(min=1e-6).sqrt()) / a


def soft_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """The larger of two, with a rounded seam (polynomial smooth maximum, Quilez)."""
    h = (width - (a - b).abs()).clamp(min=0) / width
    return torch.maximum(a, b) + h * h * (width / 4)


def hill(squared: Tensor) -> Tensor:
    """A hill of height 1 over the squared distance from its middle: (1 - d^2 / 8)^8, about exp(-d^2)."""
    k = (1 - squared * 0.125).clamp(min=0)
    k = k * k
    k = k * k
    return k * k


def bump(
    lon: Tensor,
    lat: Tensor,
    at_lon: Tensor | float,
    at_lat: Tensor | float,
    s_lon: Tensor | float,
    s_lat: Tensor | float,
) -> Tensor:
    """A hill over directions; centre and widths in radians."""
    x, y = (lon - at_lon) * (1 / s_lon), (lat - at_lat) * (1 / s_lat)
    return hill(x * x + y * y)


STRIDE = 0.62  # the steepest slopes are met within the minimum step
FRONT = slice(WIDTH // 4, 3 * WIDTH // 4)  # longitudes within +-90 degrees


def bare(m: Anatomy, lon: Tensor, lat: Tensor, towards: Tensor) -> Tensor:
    """Radius of the head without hair, (b, 1, H, W)."""
    skull = ellipsoid(
        towards, (0.0, 0.40 + m.skull_height - 0.98, -0.10), (m.skull_width, m.skull_height, m.skull_depth)
    )
    face = ellipsoid(
        towards,
        (0.0, -0.25 - 0.5 * m.jaw_drop, 0.30),
        (m.face_width, m.face_low + 0.5 * m.jaw_drop, 0.63 - 0.03 * m.child),
    )
    r = soft_max(skull, face, 0.28)
    side = lon.abs()
    r = r - m.forehead_slope * bump(lon, lat, 0.0, 48 * DEG, 60 * DEG, 22 * DEG)
    r = r - m.temple * bump(side, lat, 58 * DEG, 24 * DEG, 14 * DEG, 16 * DEG)
    r = r + m.jaw_corner * bump(side, lat, 66 * DEG, -36 * DEG, 17 * DEG, 13 * DEG)
    r[..., FRONT] = _face(m, r[..., FRONT], lon[..., FRONT].contiguous(), lat[..., FRONT].contiguous())
    return r


def _face(m: Anatomy, r: Tensor, lon: Tensor, lat: Tensor) -> Tensor:
    side = lon.abs()
    r = r + m.cheekbone * bump(side, lat, 40 * DEG, m.cheekbone_lat, 15 * DEG, 10 * DEG)
    r = r + m.cheek * bump(side, lat, 34 * DEG, -20 * DEG, 14 * DEG, 13 * DEG)
    r = r + m.jowl * bump(side, lat, 36 * DEG, -42 * DEG, 12 * DEG, 8 * DEG)
    r = r + m.brow_ridge * bump(side, lat, 17 * DEG, m.brow_lat - 1 * DEG, 15 * DEG, 5.5 * DEG)
    r = _eyes(m, r, side, lat)
    r = _mouth(m, r, side, lat)
    return _nose(m, r, lon, lat)


def _eyes(m: Anatomy, r: Tensor, side: Tensor, lat: Tensor) -> Tensor:
    r = r - m.socket * bump(side, lat, m.eye_lon - 1.5 * DEG, m.eye_lat + 1 * DEG, 12 * DEG, 8 * DEG)
    return r + 0.052 * bump(side, lat, m.eye_lon, m.eye_lat, 6.8 * DEG, 6.0 * DEG)


def _mouth(m: Anatomy, r: Tensor, side: Tensor, lat: Tensor) -> Tensor:
    up, low = m.mouth_lat + 0.3 * m.gap, m.mouth_lat - 0.7 * m.gap
    r = r + m.mouth_out * bump(side, lat, 0.0, m.mouth_lat, 17 * DEG, 11 * DEG)
    r = r + 0.030 * bump(side, lat, 0.0, up + 0.5 * m.lip_up, 12 * DEG, 2.4 * DEG)
    r = r + 0.036 * bump(side, lat, 0.0, low - 0.5 * m.lip_low, 10.5 * DEG, 2.9 * DEG)
    r = r - (0.018 + 0.05 * m.a.mouth_open) * bump(
        side, lat, 0.0, m.mouth_lat - 0.2 * m.gap, m.mouth_half, 1.6 * DEG + 0.45 * m.gap
    )
    r = r - 0.022 * bump(side, lat, m.mouth_half + 1.5 * DEG, m.mouth_lat + m.corner, 4 * DEG, 4 * DEG)
    r = r - 0.042 * bump(side, lat, 0.0, low - m.lip_low - 4.5 * DEG, 13 * DEG, 3.6 * DEG)
    return r + m.chin_out * bump(side, lat, 0.0, m.chin_lat, m.chin_width, 9.5 * DEG)


def _nose(m: Anatomy, r: Tensor, lon: Tensor, lat: Tensor) -> Tensor:
    root = m.eye_lat + 3 * DEG
    down = ((root - lat) / (root - m.nose_lat)).clamp(0, 1)  # 0 at the root, 1 at the tip
    bent = lon - m.nose_bend * down
    under = ramp((lat - m.nose_lat) / DEG, -7.0, 0.5)  # the underside falls back to the lip
    height = m.nose_bridge * ramp(down, 0.0, 0.3) + (m.nose_out - m.nose_bridge) * down**1.7
    height = (height + m.nose_hook * 4 * down * (1 - down)) * under
    above = hill(((lat - root).clamp(min=0) / (6 * DEG)) ** 2)
    width = m.nose_ridge * (1 + 0.55 * down * down)
    r = r + (height + 0.25 * m.nose_bridge * (1 - ramp(down, 0.0, 0.3)) * above) * hill((bent / width) ** 2)
    r = r + m.nose_tip * bump(bent, lat, 0.0, m.nose_lat - 0.6 * DEG, 6.0 * DEG, 5.0 * DEG)
    r = r + m.nose_wing * bump(bent.abs(), lat, m.nose_wing_lon, m.nose_lat - 2.2 * DEG, 3.6 * DEG, 3.7 * DEG)
    return r - 0.03 * bump(bent.abs(), lat, 3.6 * DEG, m.nose_lat - 5.2 * DEG, 2.4 * DEG, 1.7 * DEG)


def _normals(r: Tensor, towards: Tensor) -> Tensor:
    """Unit outward normals of the surface (b, 3, H, W), from central differences on the grid."""
    p = r * towards
    du = torch.roll(p, -1, 3) - torch.roll(p, 1, 3)
    padded = F.pad(p, (0, 0, 1, 1), mode="replicate")
    dv = padded[:, :, 2:] - padded[:, :, :-2]
    n = torch.cat(
        [
            du[:, i : i + 1] * dv[:, j : j + 1] - du[:, j : j + 1] * dv[:, i : i + 1]
            for i, j in ((1, 2), (2, 0), (0, 1))
        ],
        1,
    )
    return n / (n * n).sum(1, keepdim=True).clamp(min=1e-20).sqrt()


def _shade(m: Anatomy, lon: Tensor, lat: Tensor) -> Tensor:
    """How much of the sky each direction sees, (b, 1, H, W): hollows are darker."""
    sky = 1 - 0.45 * ramp(lat / DEG, -52.0, -78.0).expand(m.nose_lat.shape[0], 1, HEIGHT, WIDTH)
    lon, lat = lon[..., FRONT].contiguous(), lat[..., FRONT].contiguous()
    side = lon.abs()
    dark = 0.34 * bump(side, lat, m.eye_lon - 2.5 * DEG, m.eye_lat + 3.5 * DEG, 10 * DEG, 5.5 * DEG)
    dark = dark + 0.20 * bump(side, lat, 0.0, m.nose_lat - 7.0 * DEG, 7.5 * DEG, 2.6 * DEG)
    dark = dark + 0.22 * bump(side, lat, 0.0, m.mouth_lat - 0.7 * m.gap - m.lip_low - 3.5 * DEG, 11 * DEG, 3 * DEG)
    dark = dark + 0.16 * bump(side, lat, m.nose_wing_lon + 4.5 * DEG, m.nose_lat - 2.5 * DEG, 2.6 * DEG, 4.5 * DEG)
    sky = sky.clone()
    sky[..., FRONT] -= dark
    return sky


def bake(m: Anatomy, device: torch.device) -> Tensor:
    """The maps of each head, (b, 9, H, W): radius, three of the normal, sky, and `hair.FIELDS`."""
    lon, lat, towards = grid(device)
    skin = bare(m, lon, lat, towards)
    outer, fields = hair.grow(m, skin, lon, lat)
    return torch.cat([outer, _normals(outer, towards), _shade(m, lon, lat), *fields], 1)


CHANNELS = ("radius", "nx", "ny", "nz", "sky", *hair.FIELDS)


def meet(radius: Tensor, origin: Tensor, ray: Tensor, start: Tensor, steps: int, least: float) -> tuple[Tensor, Tensor]:
    """Walks rays (b, 3, h, w) towards the surface: by a share of the radial distance left, at least by `least`, until
    they have been on both sides of it; from then on between the two (regula falsi).

    Returns:
        Path length along each ray, and the radial distance still left there (0 or less for rays that have been inside);
        both (b, 1, h, w).
    """
    t, left = start, gap(radius, origin, ray, start)
    out_t, out_left = torch.full_like(t, -1e4), torch.full_like(t, 1e-4)
    in_t, in_left = torch.full_like(t, 1e4), torch.full_like(t, -1e-4)
    for _ in range(steps):
        inside = left < 0
        in_t, in_left = torch.where(inside, t, in_t), torch.where(inside, left, in_left)
        out_t, out_left = torch.where(inside, out_t, t), torch.where(inside, out_left, left)
        share = (out_left / (out_left - in_left)).clamp(0.06, 0.94)
        between = out_t + (in_t - out_t) * share
        both = (in_t < 1e3) & (out_t > 0) & (out_t < in_t)
        t = torch.where(both, between, t + torch.where(left > 0, (STRIDE * left).clamp(min=least), STRIDE * left))
        left = gap(radius, origin, ray, t)
    return t, torch.where(in_t < 1e3, left.clamp(max=0), left)  # who has been inside has met it


def gap(radius: Tensor, origin: Tensor, ray: Tensor, t: Tensor) -> Tensor:
    """Radial distance of the points origin + t * ray above the surface; negative inside."""
    places, distance = node(*(origin[:, i : i + 1] + t * ray[:, i : i + 1] for i in range(3)))
    return distance - read(radius, places)
