"""Raw embeddings of crops by a backbone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from recognition.augment import normalised
from recognition.train.networks import dimensions


def embed(
    model: nn.Module, images: UInt8[np.ndarray, "n 112 112 3"], batch_size: int = 256, flip: bool = True
) -> Float32[np.ndarray, "n d"]:
    """Raw embeddings of RGB crops, in float32; the model's mode is left as it was.

    Args:
        model: A backbone.
        images: Aligned RGB crops.
        batch_size: Crops in a forward pass.
        flip: Whether the raw embedding of the mirror image is added, as insightface's verification does.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            x = normalised(torch.from_numpy(np.array(images[start : start + batch_size])).to(device))
            y = model(x) + model(x.flip(3)) if flip else model(x)
            rows.append(y.float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(rows) if rows else np.zeros((0, dimensions(model)), np.float32)
