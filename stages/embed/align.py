"""Alignment: five landmarks onto the ArcFace template, by the best similarity; the field's `norm_crop`.

Landmarks are (x, y) in pixels, the middle of the top left pixel at (0, 0), in the order left eye, right eye, nose, left
mouth corner, right mouth corner, where left is the left side of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

# Where the five points of a 112x112 crop are (Deng et al., 2019, https://arxiv.org/abs/1801.07698). The field keeps
# them, and what it scales them to, in float32; the seventh digit of a matrix shows it.
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
MIN_SPREAD_PX = 0.5
# "black" is insightface's. "edge" goes on with the outermost pixels: a close-up of a head that is turned far reaches
# past its picture by a quarter of the crop, and black there tells a recogniser which photographs are close-ups.
BORDERS = {"black": cv2.BORDER_CONSTANT, "edge": cv2.BORDER_REPLICATE}


def template(size_px: int) -> Float64[np.ndarray, "5 2"]:
    """The template for a square crop: scaled where 112 divides the size, or scaled and shifted in x where 128 does.

    Raises:
        ValueError: If neither divides `size_px`.
    """
    if size_px >= 112 and size_px % 112 == 0:
        return (TEMPLATE_112 * np.float32(size_px / 112)).astype(np.float64)
    if size_px >= 128 and size_px % 128 == 0:
        shifted = TEMPLATE_112 * np.float32(size_px / 128) + np.array([8 * size_px / 128, 0], dtype=np.float32)
        return shifted.astype(np.float64)
    raise ValueError(f"size_px: expected a multiple of 112 or 128, got {size_px}")


def alignable(landmarks: Float32[np.ndarray, "b 5 2"]) -> Bool[np.ndarray, " b"]:
    """Which faces have landmarks that fix a similarity: finite, and not all in one place (within half a pixel)."""
    spread = np.linalg.norm(landmarks - landmarks.mean(axis=1, keepdims=True), axis=2).max(axis=1)
    return np.isfinite(landmarks).all(axis=(1, 2)) & (spread > MIN_SPREAD_PX)


def similarity(points: Float64[np.ndarray, "b 5 2"], onto: Float64[np.ndarray, "5 2"]) -> Float64[np.ndarray, "b 2 3"]:
    """The similarity of least squared error from each set of points to `onto`, in closed form (Umeyama, 1991).

    In the plane his singular value decomposition is not needed: with a point as the complex number x + iy, both sets
    centred, rotation and scale are one complex number, s e^(i angle) = sum(conj(p) q) / sum(|p|^2). Multiplying by it
    never reflects, which the paper ensures by the sign of a determinant (eqs. 39 to 42).

    Returns:
        Matrices that take (x, y, 1) to the template.
    Raises:
        ValueError: If points are not finite or all in one place: see `alignable`.
    """
    centre, centre_onto = points.mean(axis=1, keepdims=True), onto.mean(axis=0)
    p, q = _complex(points - centre), _complex(onto - centre_onto)
    square = (np.abs(p) ** 2).sum(axis=1)
    if not (np.isfinite(square) & (square > 0)).all():
        raise ValueError("points: expected finite points that are not all in one place")
    turn = (p.conj() * q).sum(axis=1) / square
    linear = np.stack([turn.real, -turn.imag, turn.imag, turn.real], axis=1).reshape(-1, 2, 2)
    shift = centre_onto - np.einsum("bij,bj->bi", linear, centre[:, 0])
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def crop(
    pixels: UInt8[np.ndarray, "b h w 3"],
    landmarks: Float32[np.ndarray, "b 5 2"],
    size_px: int = 112,
    border: str = "black",
) -> UInt8[np.ndarray, "b s s 3"]:
    """Aligned crops, bilinear; the whole picture where landmarks are not `alignable`.

    Args:
        pixels: Pictures, of any channel order.
        landmarks: In pixels of the pictures.
        size_px: Side of the crops: see `template`.
        border: What a crop shows of places outside the picture: a key of `BORDERS`.
    """
    mode = BORDERS[border]
    usable = alignable(landmarks)
    crops = np.empty((len(pixels), size_px, size_px, 3), dtype=np.uint8)
    matrices = similarity(landmarks[usable].astype(np.float64), template(size_px))
    for index, matrix in zip(np.flatnonzero(usable), matrices, strict=True):
        crops[index] = cv2.warpAffine(pixels[index], matrix, (size_px, size_px), borderMode=mode, borderValue=0.0)
    for index in np.flatnonzero(~usable):
        crops[index] = resized(pixels[index], size_px)
    return crops


def crop_of(
    picture: UInt8[np.ndarray, "h w 3"], landmarks: Float32[np.ndarray, "5 2"]
) -> UInt8[np.ndarray, "112 112 3"]:
    """The aligned crop of one face: `crop` of a batch of one."""
    return crop(picture[None], landmarks[None])[0]


def resized(picture: UInt8[np.ndarray, "h w 3"], size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The whole picture, `size_px` square, averaged over areas; the picture itself where it has that size."""
    return cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _complex(points: Float64[np.ndarray, "*b 2"]) -> np.ndarray:
    return points[..., 0] + 1j * points[..., 1]
