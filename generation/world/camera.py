"""The camera: where rays leave, where points land, and what the sensor makes of the light.

Camera coordinates: x right in the picture, y up, z towards the photographer; the head's origin is the origin.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from generation.world.anatomy import DEG, columns
from generation.world.attributes import CONTROLS

DISTANCE = 8.0  # decimetres from the head's origin
SCALE = 43.5 / 112  # pixels per decimetre at the eyes, of the picture's side
EYE_DEPTH = 0.85
LENS = 0.09  # share of the light that strays to each neighbour
RAISE = 0.25  # the height that lands in the middle of the picture


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Head to camera coordinates, (b, 3, 3): first yaw, then pitch, then roll; radians (b,)."""
    cy, sy, cp, sp, cr, sr = (f(x) for x in (yaw, pitch, roll) for f in (torch.cos, torch.sin))
    turned = ((cy, torch.zeros_like(cy), sy), (-sy * sp, cp, cy * sp), (-sy * cp, -sp, cy * cp))
    x, y, z = turned
    rows = (
        [a * cr + b * sr for a, b in zip(x, y, strict=True)],
        [b * cr - a * sr for a, b in zip(x, y, strict=True)],
        list(z),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


class Camera:
    """One camera per row.

    Args:
        attributes: (b, a).
        framing: Shift in x and y and zoom, standard normal, (b, 3).
        size_px: Side of the picture.
    """

    def __init__(self, attributes: Tensor, framing: Tensor, size_px: int) -> None:
        a = columns(attributes, CONTROLS)
        yaw, pitch, roll = (x.reshape(-1) * DEG for x in (a.yaw_deg, a.pitch_deg, a.roll_deg))
        self.rotation = rotation(yaw, pitch, roll)
        shift = framing[:, :2].clamp(-2.5, 2.5) * (1.2 / 112 * size_px)
        self.centre = shift + size_px / 2
        zoom = torch.exp(0.025 * framing[:, 2].clamp(-2.5, 2.5))
        self.focal = (zoom * (SCALE * size_px * (DISTANCE - EYE_DEPTH))).reshape(-1, 1)

    def to_camera(self, points: Tensor) -> Tensor:
        """Head coordinates (b, p, 3) -> camera coordinates."""
        return sum(self.rotation[:, None, :, i] * points[:, :, i : i + 1] for i in range(3))  # type: ignore[return-value]

    def to_head(self, vectors: Tensor) -> Tensor:
        """Camera coordinates (b, 3, h, w) -> head coordinates, without translation."""
        return _mix(self.rotation.transpose(1, 2), vectors)

    def from_head(self, vectors: Tensor) -> Tensor:
        """Head coordinates (b, 3, h, w) -> camera coordinates."""
        return _mix(self.rotation, vectors)

    def project(self, points: Tensor) -> Tensor:
        """Camera coordinates (b, p, 3) -> pixels (b, p, 2); the middle of the top left pixel is (0, 0)."""
        s = self.focal / (DISTANCE - points[:, :, 2])
        x = self.centre[:, :1] + s * points[:, :, 0]
        y = self.centre[:, 1:] - s * (points[:, :, 1] - RAISE)
        return torch.stack([x, y], -1) - 0.5

    def grid(self, side: int, step: float) -> tuple[Tensor, Tensor]:
        """Columns and rows of the middles of side * side squares of `step` pixels, (b, 1, side, side)."""
        line = (torch.arange(side, device=self.centre.device, dtype=torch.float32) + 0.5) * step
        shape = (self.centre.shape[0], 1, side, side)
        return line.expand(shape), line[:, None].expand(shape)

    def rays(self, u: Tensor, v: Tensor) -> Tensor:
        """Unit directions (b, 3, h, w), camera coordinates, of the rays through columns u and rows v (b, 1, h, w)."""
        focal = self.focal[:, :, None, None]
        x = (u - self.centre[:, :1, None, None]) / focal
        y = (self.centre[:, 1:, None, None] - v) / focal
        length = (x * x + y * y + 1).sqrt()
        return torch.cat([x / length, y / length, -1 / length], 1)

    def origin(self) -> Tensor:
        """The camera's place, (b, 3, 1, 1) in camera coordinates."""
        b = self.centre.shape[0]
        place = torch.tensor([0.0, RAISE, DISTANCE], device=self.centre.device)
        return place.reshape(1, 3, 1, 1).expand(b, 3, 1, 1)


def _mix(matrix: Tensor, vectors: Tensor) -> Tensor:
    m = [[matrix[:, i, j].reshape(-1, 1, 1, 1) for j in range(3)] for i in range(3)]
    x, y, z = (vectors[:, i : i + 1] for i in range(3))
    return torch.cat([m[i][0] * x + m[i][1] * y + m[i][2] * z for i in range(3)], 1)


def develop(light: Tensor, attributes: Tensor) -> Tensor:
    """Linear light (b, 3, h, w) -> picture values in [0, 1]: white balance, exposure, film curve, lens blur."""
    a = columns(attributes, CONTROLS)
    balance = torch.exp(a.white_balance * torch.tensor([0.22, 0.03, -0.30], device=light.device).reshape(1, 3, 1, 1))
    x = light * balance * torch.exp2(a.exposure_ev)
    x = x * (1 + x * 0.16) / (1 + x)  # extended Reinhard, white at 2.5
    x = (x * 1.12).clamp(1e-5, 1).pow(1 / 2.2)
    for axis in (2, 3):  # the lens itself is not quite sharp
        before, after = _neighbours(x, axis)
        x = x * (1 - 2 * LENS) + (before + after) * LENS
    return blur(x, a.blur_px * (light.shape[-1] / 112))


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    n = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    return before, torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur per row: (b, c, h, w), sigma (b, 1, 1, 1) in pixels; 0 leaves a row as it is, bit for bit."""
    widest = float(sigma.max())
    if widest == 0:
        return x
    reach = int(np.ceil(2.5 * 4 * x.shape[-1] / 112))
    offsets = range(-reach, reach + 1)
    narrow = 0.5 / sigma.clamp(min=1e-3) ** 2
    weights = [torch.exp(-(o * o) * narrow) for o in offsets]
    total = sum(weights)
    for axis in (2, 3):
        n = x.shape[axis]
        index = torch.arange(n, device=x.device)
        x = sum(
            w / total * x.index_select(axis, (index + o).clamp(0, n - 1)) for o, w in zip(offsets, weights, strict=True)
        )  # type: ignore[assignment]
    return x


def expose(
    picture: Float32[np.ndarray, "h w 3"],
    noise: float,
    quality: float,
    low_resolution_px: float,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """The sensor of one picture in [0, 1]: few pixels, noise, 8 bits, JPEG, and enlargement back to the size."""
    size, small = picture.shape[0], round(low_resolution_px)
    if small < size:
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    if noise > 0:
        picture = picture + np.float32(noise) * rng.standard_normal(picture.shape, dtype=np.float32)
    pixels = np.clip(picture * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    if round(quality) < 100:
        _, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
        pixels = np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1])
    if small < size:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    return pixels
