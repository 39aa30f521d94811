"""Pictures for the tests of augmentations, and the way from Pillow's pictures to levels and back."""

import cv2
import numpy as np
import torch
from PIL import Image


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(b=4, h=112, w=112, seed=1) -> torch.Tensor:
    """uint8 pictures whose every value is random."""
    return torch.randint(0, 256, (b, h, w, 3), dtype=torch.uint8, generator=seeded(seed))


def faces(b=3, h=112, w=112, seed=2) -> torch.Tensor:
    """uint8 pictures as smooth and as detailed as photographs: broad shapes with fine texture."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(b):
        broad, fine = (cv2.GaussianBlur(rng.normal(size=(h, w, 3)), (0, 0), s) for s in (h / 16, 1.0))
        x = broad / broad.std() + 0.3 * fine / fine.std()
        made.append(((x - x.min()) / (x.max() - x.min()) * 255).astype(np.uint8))
    return torch.from_numpy(np.stack(made))


def levels(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float().contiguous()


def uint8(x: torch.Tensor) -> np.ndarray:
    """Levels (b, 3, h, w) as (b, h, w, 3) uint8; fails if they are not whole."""
    assert torch.equal(x, x.round())
    return x.permute(0, 2, 3, 1).numpy().astype(np.uint8)


def in_levels(x: torch.Tensor) -> torch.Tensor:
    """What an augmentation gave, in [-1, 1], as levels; fails if they are not whole."""
    y = x * 127.5 + 127.5
    torch.testing.assert_close(y, y.round(), atol=1e-4, rtol=0)
    return y.round()


def pil(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image) for image in images.numpy()]
