"""From rows to pictures. A row's picture depends on that row alone.

Rows are drawn in groups of one fixed size, each group on one thread, and every row's values start at a multiple of 64
in memory: so no vector loop is ever split differently, at any batch size, order or number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from generation.world import camera, circumstances, head, skin, things
from generation.world.anatomy import DEG, Anatomy, measure, ramp
from generation.world.attributes import CONTROLS, check_table
from generation.world.identity import IDENTITY_DIM

GROUP = 8  # rows drawn together, always
RAYS = ((1 / 4, 3 / 4), (3 / 4, 1 / 4))  # of each pixel: no two in one column or row
PARTS = ("background", "skin", "hair", "eyes", "nose", "mouth", "glasses", "hat", "clothes")


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """Pictures and what is true of them.

    Attributes:
        pixels: RGB.
        landmarks: x, y in pixels, the middle of the top left pixel at (0, 0): image-left eye, image-right eye, tip of
            the nose, image-left and image-right corner of the mouth.
        visible: Whether the head itself leaves the landmark in sight.
        masks: Number of the part in `PARTS` that fills most of each pixel; beards and brows are skin. Or None.
        normals: Unit, camera coordinates (x right, y up, z to the camera); zero on the background. None unless asked.
    """

    pixels: UInt8[np.ndarray, "b h w 3"]
    landmarks: Float32[np.ndarray, "b 5 2"]
    visible: Bool[np.ndarray, "b 5"]
    masks: UInt8[np.ndarray, "b h w"] | None = None
    normals: Float32[np.ndarray, "b h w 3"] | None = None


def render(
    people: Float32[np.ndarray, "b c"],
    attributes: Float32[np.ndarray, "b a"],
    seeds: Int64[np.ndarray, " b"],
    size_px: int = 112,
    device: str = "cpu",
    truth: bool = False,
) -> Rendering:
    """Photographs people.

    Args:
        people: One person per row, from `sample_people`.
        attributes: One row each, from `attribute_table`.
        seeds: Non-negative; fix what differs between two photographs alike: framing, haircut and shave of the day,
            noise.
        size_px: Side of the pictures, 16 to 256.
        device: Of torch. Pictures of different devices are alike, not equal.
        truth: Whether masks and normals are wanted.
    Raises:
        ValueError: If a shape does not fit, a value is not finite or out of range, a seed is negative, or the size is
            refused.
    """
    _check(people, attributes, seeds, size_px)
    groups = [np.arange(i, i + GROUP).clip(max=len(people) - 1) for i in range(0, len(people), GROUP)]

    def draw(rows: np.ndarray) -> list[np.ndarray]:
        return _draw(people[rows], attributes[rows], seeds[rows], size_px, torch.device(device), truth)

    drawn = _on_single_threads(draw, groups)
    fields = [np.concatenate(parts)[: len(people)] for parts in zip(*drawn, strict=True)]
    return Rendering(*fields)


def _check(people: np.ndarray, attributes: np.ndarray, seeds: np.ndarray, size_px: int) -> None:
    if people.ndim != 2 or people.shape[1] != IDENTITY_DIM or len(people) == 0:
        raise ValueError(f"expected people of shape (b, {IDENTITY_DIM}) with b >= 1, got {people.shape}")
    if len(attributes) != len(people) or seeds.shape != (len(people),):
        raise ValueError(f"expected {len(people)} attribute rows and seeds, got {len(attributes)} and {seeds.shape}")
    if not np.isfinite(people).all():
        raise ValueError(f"expected finite people, got {people[~np.isfinite(people)][0]}")
    if (seeds < 0).any():
        raise ValueError(f"expected seeds >= 0, got {seeds.min()}")
    if not 16 <= size_px <= 256:
        raise ValueError(f"expected 16 <= size_px <= 256, got {size_px}")
    check_table(attributes)


def _on_single_threads(draw, groups: list[np.ndarray]) -> list[list[np.ndarray]]:  # type: ignore[no-untyped-def]
    """Draws each group on one thread, so that no sum or vector loop is ever split differently."""
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(min(threads, len(groups)), initializer=alone) as pool:
            return list(pool.map(draw, groups))
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _draw(
    people: np.ndarray, attributes: np.ndarray, seeds: np.ndarray, size: int, device: torch.device, truth: bool
) -> list[np.ndarray]:
    """One group -> the fields of `Rendering`."""
    rngs = [np.random.default_rng(int(seed)) for seed in seeds]
    luck = torch.tensor(circumstances.luck(rngs), device=device)
    styles = torch.tensor(circumstances.styles(attributes), device=device)
    table = torch.tensor(attributes, device=device)
    m = measure(torch.tensor(people, device=device), table, luck[:, : circumstances.DAY])
    lens = camera.Camera(table, luck[:, circumstances.DAY :], size)
    maps = head.bake(m, device)
    light, part, normal, pixels_drawn = _light(m, lens, maps, styles, size)
    picture = camera.develop(light, table)
    if not torch.isfinite(picture).all():
        dark = [int(seed) for seed, one in zip(seeds, picture, strict=True) if not torch.isfinite(one).all()]
        raise ValueError(f"expected finite light in every pixel, got none in some of the pictures with seeds {dark}")
    landmarks, visible = _landmarks(m, lens, maps)
    pixels = _expose(picture.permute(0, 2, 3, 1).contiguous().cpu().numpy(), attributes, rngs)
    fields = [pixels, landmarks.cpu().numpy(), visible.cpu().numpy()]
    return fields + (_truth(part, normal, pixels_drawn) if truth else [])


def _expose(pictures: np.ndarray, attributes: np.ndarray, rngs: list[np.random.Generator]) -> np.ndarray:
    keys = [CONTROLS.index(k) for k in ("blur_px", "noise", "jpeg_quality", "low_resolution_px")]
    pixels = []
    for picture, row, rng in zip(pictures, attributes[:, keys].tolist(), rngs, strict=True):
        blur_px, noise, quality, low_resolution_px = row
        pixels.append(camera.expose(picture, blur_px, noise, quality, low_resolution_px, rng))
    return np.stack(pixels)


def _truth(part: Tensor, normal: Tensor, pick: _Pixels) -> list[np.ndarray]:
    shares = torch.cat([((part == i) * 1.0).mean(2, keepdim=True) for i in range(len(PARTS))], 1)
    wall = torch.zeros_like(shares)
    wall[:, 0] = 1
    masks = pick.put(shares, wall[:, :, :, :1]).argmax(1)
    mean = pick.put((normal * (part > 0)).mean(2, keepdim=True), torch.zeros_like(normal[:, :, :1, :1]))
    length = (mean * mean).sum(1, keepdim=True).sqrt()
    ahead = torch.tensor([0.0, 0.0, 1.0], device=mean.device).reshape(1, 3, 1, 1)
    unit = torch.where(length > 1e-3, mean / length.clamp(min=1e-3), ahead) * (masks[:, None] > 0)
    return [masks.to(torch.uint8).cpu().numpy(), unit.permute(0, 2, 3, 1).contiguous().cpu().numpy()]


class _Pixels:
    """The pixels of each row that may show more than the wall, as lists of one length, a multiple of 64.

    Args:
        struck: Which pixels, (b, 1, h, w).
        size: Side of the picture; h and w may be larger.
    """

    def __init__(self, struck: Tensor, size: int) -> None:
        self.shape, self.size = struck.shape[2:], size
        lists = [row.reshape(-1).nonzero()[:, 0] for row in struck]
        length = -(-max(len(x) for x in lists) // 64) * 64 or 64
        spare = struck.shape[2] * struck.shape[3] - 1  # the last pixel fills the lists up
        self.index = torch.stack([F.pad(x, (0, length - len(x)), value=spare) for x in lists])

    def places(self) -> tuple[Tensor, Tensor]:
        """Column and row of each pixel's rays, in pixels, (b, 1, r, n)."""
        width = self.shape[1]
        steps = torch.tensor(RAYS, dtype=torch.float32, device=self.index.device)
        u = (self.index % width)[:, None, None, :] + steps[:, :1]
        v = torch.div(self.index, width, rounding_mode="floor")[:, None, None, :] + steps[:, 1:]
        return u, v

    def pick(self, x: Tensor) -> Tensor:
        """Values of images (b, c, h, w) at the listed pixels, (b, c, 1, n)."""
        flat = x.reshape(*x.shape[:2], -1)
        return flat.gather(2, self.index[:, None].expand(-1, x.shape[1], -1))[:, :, None]

    def put(self, x: Tensor, elsewhere: Tensor) -> Tensor:
        """Lists (b, c, 1, n) -> images (b, c, size, size), with `elsewhere` (b, c, h or 1, w or 1) at other pixels."""
        image = elsewhere.expand(-1, -1, *self.shape).reshape(*x.shape[:2], -1).clone()
        image.scatter_(2, self.index[:, None].expand(-1, x.shape[1], -1), x[:, :, 0])
        return image.reshape(*x.shape[:2], *self.shape)[:, :, : self.size, : self.size].contiguous()


def _march(m: Anatomy, maps: Tensor, lens: camera.Camera, size: int) -> tuple[_Pixels, Tensor, Tensor]:
    """Few rays first, then one a pixel.

    Returns:
        Which pixels may be struck, and the nearest and farthest paths to the head about each, (b, 1, 1, n).
    """
    side = -(-size // 16) * 16  # whole vector registers per row
    radius, origin = maps[:, :1].contiguous(), lens.to_head(lens.origin())
    ray_head = lens.to_head(lens.rays(*lens.grid(side // 2, 2.0)))
    start = (camera.DISTANCE - 1.62) * torch.ones_like(ray_head[:, :1])
    t, left = head.meet(radius, origin, ray_head, start, steps=13, least=0.06)
    start = F.interpolate(-F.max_pool2d(-t, 3, stride=1, padding=1), scale_factor=2, mode="nearest") - 0.08
    close = F.interpolate(F.max_pool2d((left < 0.2) * 1.0, 5, stride=1, padding=2), scale_factor=2, mode="nearest") > 0
    ray = lens.rays(*lens.grid(side, 1.0))
    ray_head = lens.to_head(ray)
    t, left = _meet_where(close, radius, origin, ray_head, start, steps=8, least=0.06)
    met = left < 0.09
    struck = met | (things.ear_sphere(m, origin, ray_head) > 0)
    struck = struck | (things.neck(m, lens.origin(), ray, _neck_top(lens))[0] < things.FAR / 2)
    struck = struck | (things.shoulders(m, lens.origin(), ray)[0] < things.FAR / 2)
    if (m.hat > 1.5).any():
        struck = struck | (things.brim(m, origin, ray_head)[0] < things.FAR / 2)
    if (m.glasses > 0.5).any():
        near = _surface(maps, _aims(m)[:, 1:2])[:, 0]
        _, arm, front, glass = things.glasses(m, origin, ray_head, near)
        struck = struck | (front + glass > 0) | (arm < things.FAR / 2)
    struck, nearest, farthest = (
        F.max_pool2d(x, 3, stride=1, padding=1) for x in (struck * 1.0, -t, torch.where(met, t, 0.0))
    )
    pixels = _Pixels(struck > 0, size)
    return pixels, pixels.pick(-nearest) - 0.08, pixels.pick(farthest) - 0.08


def _meet_where(
    wanted: Tensor, radius: Tensor, origin: Tensor, ray: Tensor, start: Tensor, steps: int, least: float
) -> tuple[Tensor, Tensor]:
    """`head.meet` for the wanted (b, 1, h, w) of the rays alone; the others stay at their start, far from the head."""
    rays = _Pixels(wanted, 0)
    met = head.meet(radius, origin, rays.pick(ray), rays.pick(start), steps, least)
    index = rays.index[:, None]
    t, left = (
        x.flatten(2).scatter(2, index, y[:, :, 0])
        for x, y in zip((start, torch.full_like(start, 1.0)), met, strict=True)
    )
    return t.reshape(start.shape), left.reshape(start.shape)


def _neck_top(lens: camera.Camera) -> Tensor:
    top = torch.tensor([[[0.0, -0.30, -0.30]]], device=lens.centre.device)
    return lens.to_camera(top.expand(lens.centre.shape[0], 1, 3))[:, 0]


def _light(
    m: Anatomy, lens: camera.Camera, maps: Tensor, styles: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, _Pixels]:
    """Draws one group.

    Returns:
        Linear light (b, 3, size, size); part (b, 1, r, n) and normal (b, 3, r, n), camera coordinates, of the r rays of
        each of n pixels; and which pixels these are.
    """
    pixels, near, far = _march(m, maps, lens, size)
    ray = lens.rays(*pixels.places())
    place = lens.origin()
    origin, ray_head = lens.to_head(place), lens.to_head(ray)
    radius = maps[:, :1].contiguous()
    t, left = head.meet(radius, origin, ray_head, near.expand_as(ray[:, :1]), steps=4, least=0.02)
    met = left < 0.012
    t = torch.where(met, t, torch.maximum(t, far))  # past a nose, on to the cheek behind it
    t, left = head.meet(radius, origin, ray_head, t, steps=4, least=0.03)
    t = torch.where(met | (left < 0.012), t, torch.full_like(t, things.FAR))
    point = origin + t.clamp(max=12) * ray_head
    paint, normal_head = _head_paint(m, maps, point, styles)
    scene = _Scene(t, lens.from_head(normal_head), paint)
    _ears(m, lens, scene, origin, ray_head)
    _body(m, lens, scene, place, ray, styles)
    if (m.hat > 1.5).any():
        _brim(m, lens, scene, origin, ray_head, styles)
    struck = scene.t < things.FAR / 2
    point = origin + scene.t.clamp(max=12) * ray_head
    wall = things.wall(styles, *(torch.linspace(-1, 1, side, device=styles.device) for side in pixels.shape))
    light = torch.where(struck, _shine(m, lens, maps, scene, ray, point), pixels.pick(wall))
    part = torch.where(struck, scene.paint.part, torch.zeros_like(t))
    if (m.glasses > 0.5).any():
        light, part = _spectacles(m, maps, scene, light, part, origin, ray_head)
    return pixels.put(light.mean(2, keepdim=True), wall), part, scene.normal, pixels


class _Scene:
    """What each ray has met so far: path length, normal, paint."""

    def __init__(self, t: Tensor, normal: Tensor, paint: skin.Paint) -> None:
        self.t, self.normal, self.paint = t, normal, paint

    def meet(self, t: Tensor, normal: Tensor, base: Tensor, gloss: float, part: int) -> None:
        near = t < self.t
        self.t = torch.where(near, t, self.t)
        self.normal = torch.where(near, normal, self.normal)
        p = self.paint
        p.base = torch.where(near, base, p.base)
        p.gloss = p.gloss.masked_fill(near, gloss)
        p.part = p.part.masked_fill(near, part)
        p.sky = p.sky.masked_fill(near, 1.0)


def _head_paint(m: Anatomy, maps: Tensor, point: Tensor, styles: Tensor) -> tuple[skin.Paint, Tensor]:
    places, _ = head.node(*(point[:, i : i + 1] for i in range(3)))
    channels = head.read(maps, places)
    fields = {name: channels[:, i : i + 1] for i, name in enumerate(head.CHANNELS)}
    lon = torch.atan2(point[:, 0:1], point[:, 2:3])
    lat = torch.atan2(point[:, 1:2], (point[:, 0:1] ** 2 + point[:, 2:3] ** 2).sqrt())
    normal = channels[:, 1:4]
    paint = skin.paint(m, lon, lat, fields)
    paint.sky = fields["sky"]
    _hair_paint(m, paint, lon, lat, fields)
    _hat_paint(m, paint, lon, lat, fields, styles)
    return paint, normal / (normal * normal).sum(1, keepdim=True).clamp(min=1e-6).sqrt()


def _hair_paint(m: Anatomy, paint: skin.Paint, lon: Tensor, lat: Tensor, fields: dict[str, Tensor]) -> None:
    fine, locks = skin.strands(m, lon, lat)
    shadow = ramp(fields["cover"], -0.55, 0.1)
    paint.darken(shadow * 0.45, skin.colour(0.55, 0.45, 0.42, lat))
    cover = torch.where(lat < -40 * DEG, fields["above"], fields["cover"])  # the ends of long hair are hair
    share = ramp(cover + (0.10 * fine + 0.05 * locks) * ramp(lat / DEG, -20.0, 20.0), -0.02, 0.34)
    tone = (1 + 0.20 * fine + 0.16 * locks).clamp(0.35, 1.8)
    paint.cover(share, skin.hair_colour(m) * tone)
    paint.gloss = torch.lerp(paint.gloss, 1 + 0 * share, share)
    paint.sky = torch.lerp(paint.sky, 0.72 + 0.28 * ramp(fields["cover"], 0.0, 1.5), share)
    paint.name(share > 0.5, 2)


def _hat_paint(
    m: Anatomy, paint: skin.Paint, lon: Tensor, lat: Tensor, fields: dict[str, Tensor], styles: Tensor
) -> None:
    worn = ramp(fields["hat"], -0.4, 0.4)
    knit = (m.hat < 1.5) * (0.12 * torch.sin(lon * 70) * ramp(fields["hat"], 13.0, 12.0) + 0.08 * torch.sin(lat * 90))
    band = (m.hat > 2.5) * 0.6 * ramp(fields["hat"], 8.0, 7.0)
    paint.cover(worn, things.hat_colour(styles) * (1 + knit - band))
    paint.gloss = paint.gloss * (1 - worn)
    paint.name(worn > 0.5, 7)


def _ears(m: Anatomy, lens: camera.Camera, scene: _Scene, origin: Tensor, ray: Tensor) -> None:
    t, normal, base = things.ear(m, origin, ray)
    scene.meet(t, lens.from_head(normal), base, 0.25, 1)


def _body(m: Anatomy, lens: camera.Camera, scene: _Scene, place: Tensor, ray: Tensor, styles: Tensor) -> None:
    t, normal = things.neck(m, place, ray, _neck_top(lens))
    scene.meet(t, normal, skin.complexion(m) * skin.colour(0.9, 0.84, 0.83, t), 0.15, 1)
    height = (place + t.clamp(max=12) * ray)[:, 1:2]
    chin = scene.t == t
    scene.paint.sky = torch.where(chin, 1 - 0.6 * ramp(height, -1.30, -0.75), scene.paint.sky)
    t, normal, r = things.shoulders(m, place, ray)
    cloth = things.clothes(styles)
    hem = ramp((r - m.neck - 0.10).abs(), 0.035, 0.015)
    scene.meet(t, normal, cloth * (1 - 0.35 * hem), 0.05, 8)


def _brim(m: Anatomy, lens: camera.Camera, scene: _Scene, origin: Tensor, ray: Tensor, styles: Tensor) -> None:
    t, normal = things.brim(m, origin, ray)
    scene.meet(t, lens.from_head(normal), things.hat_colour(styles) * 0.8, 0.05, 7)


def _shadow(m: Anatomy, maps: Tensor, point: Tensor, light: Tensor) -> Tensor:
    """Share of the main light that the head lets through to points (b, 3, h, w), head coordinates: soft-edged."""
    point = point[:, :, :1].contiguous()  # one ray a pixel will do
    radius = maps[:, :1].contiguous()
    free = torch.ones_like(point[:, :1])
    for s in (0.11, 0.18, 0.28, 0.42, 0.62, 0.9):
        left = head.gap(radius, point, light.expand_as(point), s * torch.ones_like(free))
        free = torch.minimum(free, 0.5 + left * (2.6 / s))
    free = ramp(free.clamp(0, 1), 0.0, 0.9)
    return free * things.under_brim(m, point, light.expand_as(point)) if (m.hat > 1.5).any() else free


def _shine(m: Anatomy, lens: camera.Camera, maps: Tensor, scene: _Scene, ray: Tensor, point: Tensor) -> Tensor:
    """Light that leaves each point towards the camera: wrapped Lambert, soft gloss, sky, a faint light from behind."""
    a, p, n = m.a, scene.paint, scene.normal
    az, el = a.light_azimuth_deg * DEG, a.light_elevation_deg * DEG
    towards = torch.cat([el.cos() * az.sin(), el.sin(), el.cos() * az.cos()], 1)
    lamp = torch.exp(a.light_warmth * skin.colour(0.16, 0.0, -0.34, n)) * (2.35 * (1 - a.ambient))
    facing = (n * towards).sum(1, keepdim=True)
    view = -(n * ray).sum(1, keepdim=True)
    free = _shadow(m, maps, point + 0.02 * lens.to_head(n), lens.to_head(towards))
    flesh = ((p.part == 1) | (p.part == 4) | (p.part == 5)) * 1.0
    wrap = 0.10 + flesh * skin.colour(0.24, 0.06, 0.03, n)
    lit = ((facing + wrap) / (1 + wrap)).clamp(min=0) * (
        flesh * skin.colour(0.10, 0.02, 0.0, n) + (1 - flesh * skin.colour(0.10, 0.02, 0.0, n)) * free
    )
    half = towards - ray
    half = half / (half * half).sum(1, keepdim=True).sqrt()
    gleam = (n * half).sum(1, keepdim=True).clamp(min=0)
    sharp = gleam**2
    sharp = sharp * sharp
    sharp = sharp * sharp
    hair_part = (p.part == 2) * 1.0
    spec = p.gloss * free * facing.clamp(0, 1) * (0.10 * sharp * sharp + 0.12 * (sharp * sharp) ** 4 * (1 - hair_part))
    sky = a.ambient * p.sky * (1.12 + 0.38 * n[:, 1:2]) * skin.colour(0.97, 1.0, 1.05, n)
    rim = (1 - view.clamp(0, 1)) ** 3 * (0.10 + 0.12 * (-n[:, 0:1] * torch.sign(az)).clamp(0, 1)) * p.sky
    return p.base * (lamp * lit + sky + 1.2 * rim) + lamp * spec + rim * 0.035


def _spectacles(
    m: Anatomy, maps: Tensor, scene: _Scene, light: Tensor, part: Tensor, origin: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor]:
    t, arm, front, glass = things.glasses(m, origin, ray, _surface(maps, _aims(m)[:, 1:2])[:, 0])
    before = (t < scene.t) * 1.0
    dark = (m.glasses == 3) * 1.0
    tinted = light * torch.lerp(skin.colour(0.93, 0.94, 0.94, t), skin.colour(0.10, 0.09, 0.085, t), dark)
    light = torch.lerp(light, tinted + 0.02 + 0.02 * dark, glass * before)
    frame = torch.maximum(front * before, (arm < scene.t) * 1.0)
    light = torch.lerp(light, things.frame_colour(m, t) * (0.6 + 0.8 * m.a.ambient), frame)
    covered = (frame > 0.5) | (glass * before * dark > 0.5)
    return light, torch.where(covered, torch.full_like(part, 6), part)


def _aims(m: Anatomy) -> Tensor:
    """Longitude and latitude of the five landmarks, (b, 5, 2)."""
    eye_lon, eye_lat, tip, half, mouth = (
        x.reshape(-1) for x in (m.eye_lon, m.eye_lat, m.nose_lat, m.mouth_half, m.mouth_lat + m.corner)
    )
    bend = m.nose_bend.reshape(-1)
    return torch.stack(
        [
            torch.stack(pair, -1)
            for pair in ((-eye_lon, eye_lat), (eye_lon, eye_lat), (bend, tip), (-half, mouth), (half, mouth))
        ],
        1,
    )


def _surface(maps: Tensor, aims: Tensor) -> Tensor:
    """Points of the head's surface (b, p, 3) in head coordinates, at longitudes and latitudes (b, p, 2)."""
    lon, lat = aims[:, None, :, 0:1].transpose(2, 3), aims[:, None, :, 1:2].transpose(2, 3)  # (b, 1, 1, p)
    towards = [lat.cos() * lon.sin(), lat.sin(), lat.cos() * lon.cos()]
    places, _ = head.node(*towards)
    return (head.read(maps[:, :1].contiguous(), places) * torch.cat(towards, 1))[:, :, 0].transpose(1, 2)


def _landmarks(m: Anatomy, lens: camera.Camera, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (b, 5, 2) and visibility (b, 5): hidden is a landmark whose line to the camera meets the head."""
    points = _surface(maps, _aims(m))
    origin = lens.to_head(lens.origin()).reshape(-1, 1, 3)
    away = origin - points
    ray = (away / (away * away).sum(-1, keepdim=True).sqrt()).transpose(1, 2)[:, :, None]  # (b, 3, 1, 5)
    start = points.transpose(1, 2)[:, :, None]
    radius = maps[:, :1].contiguous()
    left = [
        head.gap(radius, start, ray, s * torch.ones_like(start[:, :1])) for s in torch.linspace(0.03, 1.2, 40).tolist()
    ]
    visible = torch.stack(left).amin(0)[:, 0, 0] > -0.006
    return lens.project(lens.to_camera(points)), visible
