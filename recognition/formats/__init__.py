"""Formats: sets of labelled pictures on disk, as the field keeps them; a reader and a writer for each.

`open_set(path)` recognises which of them is there. Every reader takes its files for a stranger's: truncated,
mislabelled or hostile ones are a ValueError that names the file and the fault; no memory is taken on a header's word.

| kind | what is there | written by |
|---|---|---|
| shards | tars of `<key>.jpg`, `.cls`, `.json`, as a run has them | `write_shard` |
| shards | the same, mixed for training, and `sizes.json` | `write_train_shards` |
| recordio | `train.rec`, `train.idx`, `property` | `write_records` |
| folder | a subfolder for each identity | `write_folder` |
| huggingface | Parquet files with columns `image` and `label` | `write_dataset` |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from recognition.formats.folder import is_picture, open_folder, write_folder
from recognition.formats.huggingface import open_dataset, write_dataset
from recognition.formats.recordio import open_records, write_records
from recognition.formats.sample import EXPORTED, LabelledSet, Sample, decode_crop
from recognition.formats.shards import (
    SIZES,
    TrainingSet,
    load_training_set,
    open_shards,
    read_shards,
    write_shard,
)
from recognition.formats.train_shards import write_train_shards

__all__ = [
    "LabelledSet",
    "Sample",
    "TrainingSet",
    "decode_crop",
    "load_training_set",
    "open_set",
    "read_shards",
    "write_dataset",
    "write_folder",
    "write_records",
    "write_shard",
    "write_train_shards",
]

_EXPECTED = (
    "a run directory or a folder of tars, a .rec or a folder with one, a subfolder of pictures for each identity, "
    "or Parquet files (.parquet, data/*.parquet)"
)


def open_set(path: str | os.PathLike[str]) -> LabelledSet:
    """The set of labelled pictures that lies at a path, whichever format it has; pictures are read when asked for.

    A file is known by its ending (.rec, .tar, .parquet), a folder by what is in it. A run directory is its `shards/`:
    whether the run is finished is not looked at.

    Raises:
        ValueError: If nothing that is known lies there, or things of two kinds do; or if what lies there is malformed.
    """
    path = Path(path)
    by_ending: dict[str, Callable[[], LabelledSet]] = {
        ".rec": lambda: open_records(path),
        ".tar": lambda: open_shards([path], path),
        ".parquet": lambda: open_dataset(path),
    }
    if path.is_file() and path.suffix in by_ending:
        return by_ending[path.suffix]()
    if not path.is_dir():
        raise ValueError(f"{path}: expected {_EXPECTED}, found {'another file' if path.exists() else 'nothing'}")
    found = _kinds(path)
    if len(found) != 1:
        raise ValueError(f"{path}: expected {_EXPECTED}, found {' and '.join(found) if found else 'none of these'}")
    return next(iter(found.values()))()


def _kinds(folder: Path) -> dict[str, Callable[[], LabelledSet]]:
    """What the folder may be, in words, and how that is opened."""
    names = sorted(os.listdir(folder))
    if (folder / "shards").is_dir() and (folder / "ledger").is_dir():
        return {"a run": lambda: _open_tars(folder / "shards")}
    ended = {ending: [name for name in names if name.endswith(ending)] for ending in (".tar", ".rec", ".parquet")}
    kinds: dict[str, Callable[[], LabelledSet]] = {}
    if ended[".tar"]:
        kinds[f"tars ({ended['.tar'][0]})"] = lambda: _open_tars(folder)
    for name in ended[".rec"]:
        kinds[name] = lambda name=name: open_records(folder / name)  # type: ignore[misc]
    if ended[".parquet"] or any((folder / "data").glob("*.parquet")):
        kinds["Parquet files"] = lambda: open_dataset(folder)
    person = next((name for name in names if not name.startswith(".") and _holds_pictures(folder / name)), None)
    if person is not None:
        kinds[f"a subfolder with pictures ({person})"] = lambda: open_folder(folder)
    return kinds


def _open_tars(folder: Path) -> LabelledSet:
    """All tars of a folder; what else is there is left out, but not the unfinished tar of a run that was killed."""
    names = sorted(os.listdir(folder))
    unfinished = [name for name in names if name.endswith(".part")]
    if unfinished:
        raise ValueError(f"{folder}: expected finished shards, found {unfinished[0]}: the run is not finished")
    tars = [folder / name for name in names if name.endswith(".tar")]
    if not tars:
        raise ValueError(f"{folder}: expected shards, found none")
    rest = tuple(name for name in names if not name.endswith(".tar") and name not in (SIZES, EXPORTED))
    return open_shards(tars, folder, rest)


def _holds_pictures(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(is_picture(entry.name) for entry in entries)
