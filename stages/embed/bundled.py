"""The bundled embedders: trained on the world's renders alone, run as real ones are, by insightface's ONNX path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from insightface.model_zoo import get_model
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from jaxtyping import Float32, UInt8

from generation.weights import Weights, bundled, of_space
from stages.embed.align import BORDERS, alignable, crop, resized
from stages.embed.batch import in_batches
from stages.embed.detector import MIN_PROBABILITY, Detector, session_options
from stages.records import Faces, Images


class Bundled:
    """Finds, aligns and embeds the one face of each picture.

    A picture in which no face is found still has a row, with `found` false: its crop is cut by landmarks that mean
    nothing, or is the whole picture where they fix no similarity, and its embedding is what the network makes of that.

    Args:
        space: The space of the embeddings, literally: it names the weights, by their sha256.
        threads: Threads of each network, at least 1.
        batch_size: Crops per batch, at least 1; every batch has this shape, whatever the size of the chunk.
        min_probability: Smallest probability of a face that counts as found, in [0, 1].
        border: What a crop shows of places outside the picture: "black", as insightface has it, or "edge", the
            picture's outermost pixels going on.
        weights: Folder of `weights.json` and the ONNX files; None for the bundled ones.
    Raises:
        ValueError: If an argument is out of range, no weights are of this space, or a file is not the one listed.
    """

    @staticmethod
    def weights_sha256(space: str, weights: str | Path | None = None) -> str:
        """What decides its faces beside its arguments, wherever the folder is: of the detector and of the embedder.

        Raises:
            ValueError: If the folder lists no such weights.
        """
        return f"{bundled('detector', weights).sha256} {of_space(space, weights).sha256}"

    @staticmethod
    def vectors_of(space: str, weights: str | Path | None = None) -> str:
        """Preflight's question: hash of the embedder that its vectors are of.

        Raises:
            ValueError: If the folder lists no such weights.
        """
        return of_space(space, weights).sha256

    @staticmethod
    def check_weights(space: str, weights: str | Path | None = None) -> None:
        """Preflight's question, answered without a model loaded: are the right files there?

        Raises:
            ValueError: If no weights are of this space, or a file is missing or not the one listed.
        """
        of_space(space, weights).verify()
        bundled("detector", weights).verify()

    def __init__(
        self,
        space: str,
        threads: int = 1,
        batch_size: int = 16,
        min_probability: float = MIN_PROBABILITY,
        border: str = "black",
        weights: str | Path | None = None,
    ) -> None:
        if threads < 1 or batch_size < 1:
            raise ValueError(f"threads, batch_size: expected at least 1, got {threads}, {batch_size}")
        if not 0 <= min_probability <= 1:
            raise ValueError(f"min_probability: expected a number in [0, 1], got {min_probability}")
        if border not in BORDERS:
            raise ValueError(f"border: expected one of {', '.join(BORDERS)}, got {border!r}")
        embedder = of_space(space, weights)
        self.space, self.dimensions, self.min_probability = space, embedder.dimensions, min_probability
        self._batch_size, self._border = batch_size, border
        self._detector = Detector(bundled("detector", weights).verify(), threads)
        self._recogniser = _recogniser(embedder, threads)

    def __call__(self, images: Images) -> Faces:
        """Embeds a chunk.

        Raises:
            ValueError: If the pictures are not square, or an embedding has no direction.
        """
        landmarks, probability = self._detect(images.pixels)
        crops = crop(images.pixels, landmarks, border=self._border)
        embeddings, norms = self.embed_crops(crops)
        found = (probability >= self.min_probability) & alignable(landmarks)
        return Faces(images.chunk, crops, landmarks, embeddings, norms, found)

    def embed_crops(
        self, crops: UInt8[np.ndarray, "b 112 112 3"]
    ) -> tuple[Float32[np.ndarray, "b d"], Float32[np.ndarray, " b"]]:
        """Unit embeddings of RGB crops that are aligned already, and their lengths before.

        Raises:
            ValueError: If an embedding is 0 or not finite: the weights are broken.
        """
        (raw,) = in_batches(self._raw, crops, self._batch_size)
        norms = np.sqrt(np.einsum("bd,bd->b", raw, raw))
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise ValueError(f"space {self.space}: expected embeddings with a direction, got norm {norms.min()}")
        return raw / norms[:, None], norms

    def _detect(
        self, pixels: UInt8[np.ndarray, "b h w 3"]
    ) -> tuple[Float32[np.ndarray, "b 5 2"], Float32[np.ndarray, " b"]]:
        """Landmarks in pixels of the pictures; (0, 0) is the middle of a pixel at any size, hence the halves."""
        height, width = pixels.shape[1:3]
        if height != width:
            raise ValueError(f"pixels: expected square pictures, got {width} x {height}")
        landmarks, probability = self._detector(np.stack([resized(picture, 112) for picture in pixels]))
        return (landmarks + np.float32(0.5)) * np.float32(width / 112) - np.float32(0.5), probability

    def _raw(self, batch: UInt8[np.ndarray, "b 112 112 3"]) -> list[np.ndarray]:
        return [self._recogniser.get_feat(list(np.ascontiguousarray(batch[..., ::-1])))]  # insightface takes BGR


def _recogniser(weights: Weights, threads: int) -> ArcFaceONNX:
    """insightface's own model. It guesses how inputs are scaled from the names of nodes, so the guess is checked."""
    model = get_model(str(weights.verify()), providers=["CPUExecutionProvider"], sess_options=session_options(threads))
    if not isinstance(model, ArcFaceONNX) or tuple(model.input_size) != (112, 112):
        raise ValueError(f"{weights.path}: expected a recogniser of 112x112 crops by insightface's rules, got {model}")
    if (model.input_mean, model.input_std) != (127.5, 127.5):
        raise ValueError(
            f"{weights.path}: expected no nodes named Sub... and Mul... among the first 8, which insightface takes for "
            f"a graph that scales its input itself; got mean {model.input_mean}, std {model.input_std}"
        )
    if model.output_shape[-1] != weights.dimensions:
        raise ValueError(f"{weights.path}: expected {weights.dimensions} dimensions, got {model.output_shape}")
    return model
