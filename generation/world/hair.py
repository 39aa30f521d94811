"""Hair, hat and beard as layers upon the head: how thick, and where they end."""

import math

import torch
from torch import Tensor

from generation.world.anatomy import DEG, Anatomy, ramp

FIELDS = ("cover", "hat", "beard", "above")
HAT_LINE = 34 * DEG


def hairline(m: Anatomy, lon: Tensor) -> Tensor:
    """Latitude (b, 1, H, W) above which hair grows: forehead, temples, around the ear, nape."""
    side = lon.abs()
    line = m.hairline - 7 * DEG * ramp(side / DEG, 12.0, 45.0)
    line = line + m.recede * (torch.exp(-(((side - 30 * DEG) / (17 * DEG)) ** 2)) + 0.25 * m.bald)
    line = line - m.peak * torch.exp(-((lon / (9 * DEG)) ** 2))
    line = line - 44 * DEG * ramp(side / DEG, 50.0, 80.0) - 32 * DEG * ramp(side / DEG, 102.0, 128.0)
    line = line - m.fringe * 21 * DEG * ramp((lon - m.parting).abs() / DEG, 58.0, 20.0)
    return line - 115 * DEG * m.long * ramp(side / DEG, 60.0, 82.0)


def crown(m: Anatomy, lon: Tensor, lat: Tensor) -> Tensor:
    """How bald the top is, in [0, 1]."""
    return m.bald * ramp(lat / DEG, 52.0, 66.0) * ramp(m.bald, 0.35, 0.8)


def grow(m: Anatomy, skin: Tensor, lon: Tensor, lat: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Radius with hair and hat on, and the fields of `FIELDS`: signed angle or share by which each covers."""
    side = lon.abs()
    line = hairline(m, lon)
    steep = (torch.roll(line, -1, 3) - torch.roll(line, 1, 3)) / _spacing(lon)
    above = (
        (lat - line) / (9 * DEG) / (1 + (steep / lat.cos().clamp(min=0.3)) ** 2).sqrt()
    )  # about the distance to the line
    cover = torch.minimum(above - 4 * crown(m, lon, lat), (lat + 72 * DEG) / (9 * DEG))
    lift = ramp(cover, 0.0, 1.7)
    apart = ramp(lat / DEG, 84.0, 68.0)  # meridians meet at the top: nothing may vary there
    groove = 1 - 0.35 * torch.exp(-(((lon - m.parting) / (6 * DEG)) ** 2)) * ramp(lat / DEG, 40.0, 55.0) * apart
    thick = m.thick * (0.6 + 0.4 * ramp(lat / DEG, 0.0, 60.0)) * groove
    waves = (
        1
        + (0.05 + 0.22 * m.curl)
        * torch.sin(lon * 13 + 2.2 * m.t.hair_parting)
        * torch.sin(lat * 12 + m.t.hair_curl)
        * apart
    )
    outer = skin + lift * thick * waves
    hanging = torch.minimum(0.84 / lat.cos().clamp(min=0.2), m.hang / torch.sin(lat).clamp(max=-0.05))
    hanging = torch.where(lat < 0, hanging, torch.full_like(hanging, 0.84)) + 0.6 * m.thick * waves
    outer = outer + m.long * lift * ramp(lat / DEG, 35.0, 0.0) * (hanging - outer).clamp(min=0)
    beard = _beard(m, side, lat)
    outer = outer + 0.085 * beard * (m.beard - 0.35).clamp(min=0) * ramp(lat / DEG, -20.0, -48.0)
    hat = (m.hat > 0.5) * 1.0
    edge = HAT_LINE - 26 * DEG * ramp(side / DEG, 35.0, 115.0)
    hem = (lat - edge) / DEG
    worn = hat * ramp(hem, -1.0, 1.5)
    knitted = (m.hat < 1.5) * 1.0
    shell = skin + 0.10 + 0.05 * knitted * ramp(hem, 15.0, 11.0) + 0.12 * ramp(lat / DEG, 40.0, 90.0)
    outer = torch.lerp(outer, shell, worn)
    return outer, [cover, hat * hem - 9 * (1 - hat), beard, above]


def _spacing(lon: Tensor) -> Tensor:
    """Longitude between the neighbours of each node, across the seam at the back, too."""
    step = torch.roll(lon, -1, 3) - torch.roll(lon, 1, 3)
    return torch.where(step < 0, step + 2 * math.pi, step)


def _beard(m: Anatomy, side: Tensor, lat: Tensor) -> Tensor:
    """Density of the beard's roots, (b, 1, H, W) in [0, 1]: chin, jaw, cheeks, upper lip."""
    chin = ramp(side / DEG, 30.0, 14.0)
    jaw = torch.maximum(chin, m.whiskers * ramp(side / DEG, 92.0, 80.0))
    top = -17 * DEG - 12 * DEG * ramp(side / DEG, 34.0, 12.0) + 22 * DEG * ramp(side / DEG, 44.0, 78.0)
    return jaw * ramp((top - lat) / DEG, -2.0, 6.0) * ramp(lat / DEG, -80.0, -66.0)
