"""Who is on the pictures of a verification set: a sidecar `<name>.people.json` beside `<name>.bin`.

A `.bin` says which pairs show one person, not who meets whom in other pairs. An honest interval needs that: pairs that
share a person are right and wrong together. The sidecar is JSON:

    {"format": "facemint-people-1", "bin_sha256": "9c3e...", "person": [17, 17, 4, 90, ...]}

`person` has an entry per stored picture (2p of them, in file order): whole numbers or words, equal if and only if the
person is the same. `bin_sha256` binds it to one file: people of another file are refused, not believed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from recognition.files import sha256_of, whole_file

FORMAT = "facemint-people-1"
MAX_SIDECAR_BYTES = 2**26


def people_path(bin_path: str | os.PathLike[str]) -> Path:
    """Where the people of a `.bin` are: `lfw.people.json` beside `lfw.bin`."""
    return Path(bin_path).with_suffix(".people.json")


def write_people(bin_path: str | os.PathLike[str], person: Sequence[int | str]) -> None:
    """Writes who is on the pictures of a `.bin` that is there already; appears whole or not at all.

    Args:
        bin_path: The verification set.
        person: Of each stored picture, in file order; whole numbers, or words, not both.
    Raises:
        ValueError: If a person is neither a whole number nor a word.
        OSError: If the set is not there.
    """
    path = people_path(bin_path)
    named = [each if isinstance(each, str) else int(each) for each in person]
    _check_names(path, named)
    said = {"format": FORMAT, "bin_sha256": sha256_of(Path(bin_path)), "person": named}
    with whole_file(path) as file:
        file.write(json.dumps(said).encode())


def read_people(bin_path: str | os.PathLike[str], same: Bool[np.ndarray, " p"]) -> Int64[np.ndarray, " n"] | None:
    """Numbers of the people on the stored pictures of a `.bin`, from 0, in file order; None where there is no sidecar.

    Args:
        same: The labels of the set, which the people must agree with.
    Raises:
        ValueError: If the sidecar is damaged, belongs to another file, or contradicts a label; names file and fault.
    """
    path = people_path(bin_path)
    if not path.exists():
        return None
    if path.stat().st_size > MAX_SIDECAR_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_SIDECAR_BYTES} bytes, got {path.stat().st_size}")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: expected JSON: {fault}") from fault
    if not isinstance(said, dict) or said.get("format") != FORMAT or not isinstance(said.get("person"), list):
        raise ValueError(f"{path}: expected an object of format {FORMAT!r} with a list of people")
    if len(said["person"]) != 2 * len(same):
        raise ValueError(f"{path}: expected {2 * len(same)} people, one per picture, got {len(said['person'])}")
    _check_names(path, said["person"])
    digest = sha256_of(Path(bin_path))
    if said.get("bin_sha256") != digest:
        raise ValueError(f"{path}: expected the people of {digest}, got those of {said.get('bin_sha256')!r}")
    person = numbered(said["person"])
    check_labels(str(path), person.reshape(-1, 2), same)
    return person


def numbered(names: Sequence[int | str]) -> Int64[np.ndarray, " n"]:
    """Names as numbers from 0, in the order in which they first occur."""
    places: dict[int | str, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names], np.int64)


def check_labels(where: str, people: Int64[np.ndarray, "p 2"], same: Bool[np.ndarray, " p"]) -> None:
    """Raises ValueError, naming the first pair, where people say otherwise than labels."""
    wrong = np.flatnonzero((people[:, 0] == people[:, 1]) != same)
    if len(wrong):
        told = "one person" if same[wrong[0]] else "two people"
        raise ValueError(
            f"{where}: expected people that agree with the labels, got {len(wrong)} pairs that do not, "
            f"the first of them pair {wrong[0]}, labelled as {told}"
        )


def shared_between_folds(people: Int64[np.ndarray, "p 2"], fold: Int64[np.ndarray, " p"]) -> int:
    """How many people are in pairs of more than one fold; 0: the folds are disjoint in people.

    Where it is not 0, a threshold is chosen on people whom it is then tested on.
    """
    seen = np.unique(np.stack([people.reshape(-1), np.repeat(fold, 2)], axis=1), axis=0)
    return int((np.unique(seen[:, 0], return_counts=True)[1] > 1).sum())


def _check_names(path: Path, names: Sequence[object]) -> None:
    kinds = {type(name) for name in names}
    if not (kinds <= {int} or kinds <= {str}):
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{path}: expected people as whole numbers, or as words, got {shown}")
