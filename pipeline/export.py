"""Export: the pictures of a finished run, or of any labelled set, in a format that the field reads.

Pictures pass through unchanged, byte for byte, once each has been looked at: it decodes and is 112x112. The folder
appears whole or not at all, and its `export.json` says what is in it and what it was made from, so the same command
says that it is up to date.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.table import Table

from pipeline.progress import CONSOLE, Watch, say
from pipeline.rundir import RunDir
from pipeline.steps.files import digest, metadata, read_json
from pipeline.steps.make import expect_made, shards_digest
from recognition.files import files_in, sha256_of, whole_file, whole_folder
from recognition.formats import (
    LabelledSet,
    Sample,
    decode_crop,
    open_set,
    write_dataset,
    write_folder,
    write_records,
    write_train_shards,
)
from recognition.formats.recordio import LAYOUTS
from recognition.formats.sample import EXPORTED
from stages.ledger import damaged_chunks, finished_chunks, kept_rows, part_path, read_ledger

FORMATS = ("rec", "folder", "hf", "train-shards")
PICTURES_PER_SHARD = 10_000  # some 50 to 100 MB, as WebDataset's users have it
_SAID_OTHERWISE = (
    "key",
    "identity_id",
    "reason",
    "kept",
)  # of the ledger: the set's own, or alike in all kept pictures
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Form:
    """What is to be written.

    Attributes:
        to: "rec" (RecordIO), "folder" (of images), "hf" (Hugging Face dataset) or "train-shards".
        layout: Of RecordIO: "insightface", or "headerless" as DALI and im2rec have it.
        shards: Of training shards: how many; None is one for every 10,000 pictures.
        seed: Of the order of training shards.
    Raises:
        ValueError: If `to` or `layout` is none of these, or an option is given to a format that has none such.
    """

    to: str
    layout: str = "insightface"
    shards: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise ValueError(f"to: expected one of {', '.join(FORMATS)}, got {self.to!r}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout: expected {' or '.join(LAYOUTS)}, got {self.layout!r}")
        if self.to != "rec" and self.layout != "insightface":
            raise ValueError(f"layout: expected with --to rec only, got {self.layout!r} with --to {self.to}")
        if self.to != "train-shards" and (self.shards is not None or self.seed):
            raise ValueError(f"shards, seed: expected with --to train-shards only, got them with --to {self.to}")
        if (self.shards is not None and self.shards < 1) or self.seed < 0:
            raise ValueError(f"shards, seed: expected at least 1 and at least 0, got {self.shards}, {self.seed}")


def export(source: Path, form: Form, out: Path | None = None) -> dict[str, Any]:
    """Writes the pictures at `source` in another format, and tells about it on the terminal.

    Args:
        source: A run directory, of which the kept pictures go, or any set that `open_set` knows.
        form: What is to be written.
        out: Where; of a run, `export/<to>` in it if None.
    Returns:
        What `export.json` says.
    Raises:
        ValueError: If the run is not finished or damaged, a picture is broken, or something else lies at `out`.
    """
    run = RunDir(source) if (source / "ledger").is_dir() or (source / "plan.parquet").is_file() else None
    out = _place(source, run, form.to, out)
    origin = _origin_of_run(run) if run is not None else {"set_sha256": open_set(source).sha256}
    made_from = digest("facemint export 1", json.dumps([asdict(form), origin], sort_keys=True))
    if out.exists():
        said = _this_very(out, made_from)
        say(f"export: {out} is up to date")
        _show(out, said)
        return said
    pictures = _kept(run) if run is not None else open_set(source)
    for place, name in enumerate(pictures.left_out[:10]):
        say(
            f"export: left out {name}"
            + f", and {len(pictures.left_out) - 10} more" * (place == 9 < len(pictures.left_out) - 1)
        )
    with whole_folder(out) as folder:
        checked = replace(pictures, fetch=_Checked(pictures))
        with Watch(f"export to {form.to}", len(pictures), "pictures") as watch:
            _write(folder, checked, form, source, run, watch.reach)
        said = {
            "made_from": made_from,
            "form": {name: value for name, value in asdict(form).items() if value is not None},
            "source": {"name": source.resolve().name, "kind": "run" if run is not None else pictures.kind, **origin},
            "pictures": len(pictures),
            "identities": len(pictures.classes),
            "bytes": sum(path.stat().st_size for path in files_in(folder)),
            "left_out": list(pictures.left_out),
            "files": {str(path.relative_to(folder)): sha256_of(path) for path in files_in(folder)},
        }
        with whole_file(folder / EXPORTED) as file:
            file.write((json.dumps(said, indent=1) + "\n").encode())
    _show(out, said)
    return said


def source_of(word: str) -> Path:
    """The place that a word on the command line means: `run=NAME`, `NAME` or a path; a name may be one of `runs/`.

    Raises:
        ValueError: If nothing is there.
    """
    path = Path(word.removeprefix("run="))
    if not path.exists() and (Path("runs") / path).exists():
        path = Path("runs") / path
    if not path.exists():
        raise ValueError(f"{path}: expected a run directory or a labelled set, found nothing")
    return path


def _place(source: Path, run: RunDir | None, to: str, out: Path | None) -> Path:
    if out is None and run is None:
        raise ValueError("out: expected --out FOLDER for a set that is not a run, got none")
    place = run.root / "export" / to if out is None and run is not None else out
    assert place is not None
    inside = source if source.is_dir() else source.parent
    if run is None and place.resolve().is_relative_to(inside.resolve()):
        raise ValueError(f"out: expected a folder outside {inside}, which is read, got {place}")
    return place


def _origin_of_run(run: RunDir) -> dict[str, str]:
    """What tells one run from another: its plan, its ledger and its shards. ValueError if it is not finished."""
    expect_made(run)
    parts = [sha256_of(part_path(run.ledger, chunk)) for chunk in sorted(finished_chunks(run.ledger))]
    return {
        "run_made_from": metadata(run.plan).get("made_from", ""),
        "plan_sha256": sha256_of(run.plan),
        "ledger_sha256": digest(*parts),
        "shards_sha256": shards_digest(run),
    }


def _kept(run: RunDir) -> LabelledSet:
    """The kept pictures of a finished run, each shard held against its ledger part."""
    damaged = damaged_chunks(run.ledger, run.shards)
    if damaged:
        raise ValueError(
            f"{run.shards}: expected the bytes that the ledger vouches for, found others in chunk {damaged[0]}"
        )
    pictures = open_set(run.root)
    kept = kept_rows(read_ledger(run.ledger))
    if tuple(kept["key"].to_pylist()) != pictures.keys:
        raise ValueError(
            f"{run.shards}: expected the {len(kept)} pictures that the ledger keeps, found {len(pictures)}"
        )
    return pictures


@dataclass(frozen=True, eq=False)
class _Checked:
    """Reads pictures and decodes each, so that a broken one is named instead of passed on."""

    source: LabelledSet

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        for sample in self.source.fetch(rows):
            decode_crop(sample)
            yield sample


@dataclass(frozen=True, eq=False)
class _Known:
    """Reads pictures with what a table knows of each as their `about`."""

    source: LabelledSet
    table: pa.Table

    def __call__(self, rows: Iterable[int]) -> Iterator[Sample]:
        numbers = iter(rows)
        while some := list(itertools.islice(numbers, _ROWS)):
            known = self.table.take(some).to_pylist()
            for sample, about in zip(self.source.fetch(some), known, strict=True):
                yield replace(sample, about=about)


def _write(
    folder: Path, pictures: LabelledSet, form: Form, source: Path, run: RunDir | None, wrote: Callable[[int], object]
) -> None:
    if form.to == "rec":
        write_records(folder, pictures, form.layout, wrote)
    elif form.to == "folder":
        write_folder(folder, pictures, wrote)
    elif form.to == "train-shards":
        shards = form.shards or math.ceil(len(pictures) / PICTURES_PER_SHARD)
        write_train_shards(folder, pictures, shards, form.seed, wrote)
    elif run is None:
        write_dataset(folder, pictures, source.resolve().name, wrote=wrote)
    else:
        card, table = _front_matter(run), _ledger_and_plan(run)
        known = replace(pictures, fetch=_Known(pictures, table))
        name = str(card.pop("pretty_name", source.resolve().name))
        write_dataset(folder, known, name, table.schema, card, wrote=wrote)


def _ledger_and_plan(run: RunDir) -> pa.Table:
    """What ledger and plan know of the kept pictures: seed, landmarks, what rules measured, attributes asked for.

    Raises:
        ValueError: If they speak of other pictures, or use one name for two things.
    """
    ledger, plan = read_ledger(run.ledger), pq.read_table(run.plan).replace_schema_metadata(None)
    if ledger["key"].to_pylist() != plan["key"].to_pylist():
        raise ValueError(f"{run.ledger}: expected the rows of {run.plan}, found others")
    kept = ledger["kept"]
    known = ledger.select([name for name in ledger.column_names if name not in _SAID_OTHERWISE])
    asked = plan.select([name for name in plan.column_names if name not in (*_SAID_OTHERWISE, "chunk", "seed")])
    both = sorted({*known.column_names} & {*asked.column_names})
    if both:
        raise ValueError(f"{run.plan}: expected attributes of other names than the ledger's columns, found {both}")
    for field in asked.schema:
        known = known.append_column(field, asked[field.name])
    return known.filter(kept).combine_chunks()


def _front_matter(run: RunDir) -> dict[str, Any]:
    """Name, licence and tags from the run's own card, where it has one."""
    if not run.card.is_file():
        return {}
    parts = run.card.read_text().split("---\n", 2)
    said = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else {}
    chosen = {name: said[name] for name in ("pretty_name", "license", "license_name", "tags") if name in said}
    if "tags" in chosen:
        chosen["tags"] = [tag for tag in chosen["tags"] if tag != "webdataset"]
    return chosen


def _this_very(out: Path, made_from: str) -> dict[str, Any]:
    """What the export at this place says of itself, if it is the one that is asked for, and whole.

    Raises:
        ValueError: If it is another export, or none, or changed since.
    """
    said: Mapping[str, Any] = read_json(out / EXPORTED) if out.is_dir() else {}
    if said.get("made_from") != made_from:
        what = "another export" if "made_from" in said else "something else"
        raise ValueError(f"{out}: expected nothing there or this very export, found {what}; move it away or give --out")
    there = {str(path.relative_to(out)): sha256_of(path) for path in files_in(out) if path.name != EXPORTED}
    changed = sorted(name for name in {*there, *said["files"]} if there.get(name) != said["files"].get(name))
    if changed:
        raise ValueError(f"{out}: expected the files that its {EXPORTED} lists, found another or no {changed[0]}")
    return dict(said)


def _show(out: Path, said: Mapping[str, Any]) -> None:
    table = Table()
    for heading in ("export", "pictures", "identities", "files", "MB"):
        table.add_column(heading, justify="left" if heading == "export" else "right", overflow="fold")
    size = f"{said['bytes'] / 1e6:,.1f}"
    table.add_row(str(out), f"{said['pictures']:,}", f"{said['identities']:,}", f"{len(said['files']):,}", size)
    CONSOLE.print(table)
