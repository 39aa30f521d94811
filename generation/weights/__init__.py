"""The bundled weights: which file a name stands for, and the hash that it must have. CARD.md is about them.

`weights.json` is written by `make weights` beside the files: {name: {file, sha256, space, dimensions}}.
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
    """

    path: Path
    sha256: str
    space: str
    dimensions: int

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


def bundled(name: str, folder: Path = FOLDER) -> Weights:
    """The bundled weights of that name: "detector", "embedder_a" or "embedder_b".

    Raises:
        ValueError: If there are none of that name.
    """
    listed = json.loads((folder / "weights.json").read_text())
    if name not in listed:
        raise ValueError(f"expected bundled weights named one of {sorted(listed)}, got {name!r}")
    entry = listed[name]
    return Weights(folder / entry["file"], entry["sha256"], entry["space"], entry["dimensions"])
