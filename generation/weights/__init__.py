"""The bundled weights: which file a name stands for, and the hash that it must have. CARD.md is about them.

`weights.json` is written by `make weights` beside the files: {name: {file, sha256, space, dimensions, vectors_of}}.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Weights:
    """One bundled file.

    Attributes:
        path: The file.
        sha256: The hash that it must have.
        space: The embedding space that its output lies in; "" where it is no embedder.
        dimensions: Of that space; 0 where it is no embedder.
        vectors_of: Hash of the embedder whose vectors it has learnt from; "" where it takes none. A space's name stands
            for one training of an embedder, and `make weights` anew is another: their vectors have nothing in common.
    """

    path: Path
    sha256: str
    space: str
    dimensions: int
    vectors_of: str = ""

    def verify(self) -> Path:
        """The file's path, once its bytes are those that were tested.

        Raises:
            ValueError: If the file is missing or has another hash.
        """
        if not self.path.is_file():
            raise ValueError(f"expected bundled weights {self.path.name} in {self.path.parent}, found no such file")
        found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(f"expected {self.path.name} with sha256 {self.sha256}, got {found}")
        return self.path


def bundled(name: str, folder: str | Path | None = None) -> Weights:
    """The weights of that name: "detector", "embedder_a", "embedder_b", "generator", "population" or "regressor".

    Args:
        folder: Of `weights.json`; None for the bundled ones.
    Raises:
        ValueError: If there are none of that name.
    """
    listed = _listed(Path(folder or FOLDER))
    if name not in listed:
        raise ValueError(f"expected bundled weights named one of {sorted(listed)}, got {name!r}")
    return listed[name]


def of_space(space: str, folder: str | Path | None = None) -> Weights:
    """The weights whose output lies in that space.

    Args:
        folder: Of `weights.json`; None for the bundled ones.
    Raises:
        ValueError: If there are none of that space.
    """
    of = {weights.space: weights for weights in _listed(Path(folder or FOLDER)).values() if weights.space}
    if space not in of:
        raise ValueError(f"expected a space of the bundled weights, one of {sorted(of)}, got {space!r}")
    return of[space]


def _listed(folder: Path) -> dict[str, Weights]:
    listing = folder / "weights.json"
    if not listing.is_file():
        raise ValueError(f"expected {listing}, found no such file; `make weights` writes it")
    return {
        name: Weights(
            folder / entry["file"], entry["sha256"], entry["space"], entry["dimensions"], entry.get("vectors_of", "")
        )
        for name, entry in json.loads(listing.read_text()).items()
    }
