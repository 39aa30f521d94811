"""The bundled detector: is there a face, and where are its landmarks? One face a picture, which fills most of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32, UInt8

from stages.embed.batch import in_batches

MIN_PROBABILITY = 0.5  # of a face that counts as found: the detector is trained to mean it


class Detector:
    """112x112 pictures -> landmarks and the probability of a face, through ONNX.

    The file takes (N, 3, 112, 112) RGB as (x - 127.5) / 127.5, and gives `landmarks` (N, 5, 2) in pixels and `found`
    (N,) in [0, 1].

    Args:
        path: The ONNX file.
        threads: Threads of the network, at least 1.
    Raises:
        ValueError: If the file's inputs or outputs are others.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=session_options(threads), providers=["CPUExecutionProvider"]
        )
        outputs = sorted(output.name for output in self._session.get_outputs())
        if outputs != ["found", "landmarks"]:
            raise ValueError(f"{path}: expected outputs ['found', 'landmarks'], got {outputs}")
        self._input = self._session.get_inputs()[0].name
        if list(self._session.get_inputs()[0].shape[1:]) != [3, 112, 112]:
            raise ValueError(f"{path}: expected input (N, 3, 112, 112), got {self._session.get_inputs()[0].shape}")

    def __call__(
        self, pictures: UInt8[np.ndarray, "b 112 112 3"]
    ) -> tuple[Float32[np.ndarray, "b 5 2"], Float32[np.ndarray, " b"]]:
        """Landmarks as `stages.embed.align` orders and places them, and the probabilities of a face."""
        # One at a time, a tenth slower: sums over a heatmap are cut into vectors by where it lies in memory, so the
        # last bit of a landmark depends on the place in a batch.
        landmarks, found = in_batches(self._run, pictures, 1)
        return landmarks, found

    def _run(self, batch: UInt8[np.ndarray, "b 112 112 3"]) -> list[np.ndarray]:
        scaled = (batch.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        return self._session.run(["landmarks", "found"], {self._input: np.ascontiguousarray(scaled)})


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """A session that takes no more threads than it is given: stations share a machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options
