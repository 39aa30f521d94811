"""People drawn like a population: the mean and the covariance of many embeddings, cut to the leading components.

Real embeddings do not fill their sphere. Vectors drawn evenly from it lie where a conditioned generator never
trained; vectors drawn from the Gaussian of a population lie where it did.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from generation.weights import bundled
from recognition.files import sha256_of


def fit(embeddings: Float32[np.ndarray, "n c"]) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, "c c"]]:
    """Mean and unbiased covariance, in float64; `np.savez(path, mean=mean, covariance=covariance)` is a population.

    Raises:
        ValueError: If there are fewer than two embeddings, or a number is not finite.
    """
    if len(embeddings) < 2 or not np.isfinite(embeddings).all():
        raise ValueError(f"embeddings: expected at least 2 rows of finite numbers, got shape {embeddings.shape}")
    table = embeddings.astype(np.float64)
    mean = table.mean(axis=0)
    return mean, (table - mean).T @ (table - mean) / (len(table) - 1)


class Population:
    """Draws mean + V sqrt(L) z with z normal, V and L the leading eigenvectors and eigenvalues of the covariance (PCA).

    The first n people of a longer draw are the n people of a shorter one.

    Args:
        statistics: An .npz file with `mean` (c,) and `covariance` (c, c), as `fit` gives them, and the name of their
            `space` if it says so; "bundled" is the bundled weights' `population`.
        components: How many leading principal components vary, 1 to c; all others stay at the mean.
        space: Name of the space that the statistics are of, as the generator names it.
        unit: Whether the vectors are scaled to unit length, as the generator declares.
        weights: Folder of `weights.json`, where its statistics are listed; None for the bundled ones.
    Raises:
        ValueError: If the file is missing, not the one listed, does not hold such arrays or is of another space, or an
            argument is out of range.
    """

    @staticmethod
    def weights_sha256(statistics: str | Path, weights: str | Path | None = None) -> str:
        """Of the statistics, wherever they are.

        Raises:
            ValueError: If the folder lists none.
            OSError: If there is no such file.
        """
        if statistics == "bundled":
            return bundled("population", weights).sha256
        return sha256_of(Path(statistics))

    @staticmethod
    def vectors_of(statistics: str | Path, weights: str | Path | None = None) -> str:
        """Preflight's question: hash of the embedder that the statistics are of; "" where nobody says.

        Raises:
            ValueError: If the folder lists none.
        """
        return bundled("population", weights).vectors_of if statistics == "bundled" else ""

    def __init__(
        self, statistics: str | Path, components: int, space: str, unit: bool, weights: str | Path | None = None
    ) -> None:
        if not space:
            raise ValueError("space: expected the name of the generator's space, got ''")
        self.space, self.unit = space, unit
        path = bundled("population", weights).verify() if statistics == "bundled" else Path(statistics)
        self._mean, covariance = _read(path, space)
        self.source = f"population: drawn from the Gaussian of embeddings of {space}, {components} principal components"
        if not 1 <= components <= len(self._mean):
            raise ValueError(f"components: expected 1 to {len(self._mean)}, got {components}")
        variance, axes = np.linalg.eigh(covariance)  # ascending
        leading = slice(len(variance) - components, None)
        self._factor = axes[:, leading] * np.sqrt(np.maximum(variance[leading], 0.0))  # (c, components)
        self.dimensions = len(self._mean)

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n c"]:
        people = np.empty((n, self.dimensions))
        for person in people:  # one at a time: a matrix product's last bits may change with n
            person[:] = self._mean + self._factor @ rng.standard_normal(self._factor.shape[1])
        if self.unit:
            people /= np.linalg.norm(people, axis=1, keepdims=True)
        return people.astype(np.float32)


def _read(path: Path, space: str) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, "c c"]]:
    if not path.is_file():
        raise ValueError(f"statistics: expected an .npz file with mean and covariance, got {path}")
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"mean", "covariance"} - set(arrays.files)
        if missing:
            raise ValueError(f"statistics: expected arrays mean and covariance in {path}, got {sorted(arrays.files)}")
        mean, covariance = arrays["mean"].astype(np.float64), arrays["covariance"].astype(np.float64)
        told = str(arrays["space"]) if "space" in arrays.files else space
    if told != space:
        raise ValueError(f"space: expected {told!r}, which {path} is of, got {space!r}")
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"statistics: expected shapes (c,) and (c, c), got {mean.shape} and {covariance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all() and np.allclose(covariance, covariance.T)):
        raise ValueError(f"statistics: expected finite numbers and a symmetric covariance in {path}")
    return mean, covariance
