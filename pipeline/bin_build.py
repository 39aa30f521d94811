"""Bin build: a verification set, `.bin`, from aligned pictures: pairs drawn anew, or those of a list.

Beside `faces.bin` go `faces.json` (pairs, folds, people, hashes, alignment) and `faces.people.json` (who is on each
picture, so that an interval can be one over people). The `.bin` comes last: where it is, all is.

Alignment is looked at by the bundled detector, in every picture in which it sees a face. Its landmarks lie off the
ArcFace template for two reasons: no face has the template's shape, least of all a turned one, and a crop may be aligned
otherwise. `residual_px` is the whole, the mean distance of the five landmarks to the template; `misplaced_px` is what a
new alignment would mend: how far the best similarity (Umeyama, 1991) moves the template's points. The limit is on the
latter.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from rich.table import Table

from benchmarks.bins import write_bin
from benchmarks.draw import draw_pairs
from benchmarks.pairs import interleaved, listed_folds, read_pairs
from benchmarks.people import check_labels, numbered, people_path, write_people
from generation.weights import FOLDER, bundled
from pipeline.progress import CONSOLE, Watch, say
from pipeline.steps.files import digest, read_json
from recognition.files import sha256_of, sync, whole_file
from recognition.formats import LabelledSet, Sample, decode_crop, open_set
from stages.embed.align import alignable, similarity, template
from stages.embed.detector import MIN_PROBABILITY, Detector

# Median of misplaced_px. Measured with the bundled detector on aligned crops of the world: 1.1 to 2.5 px, with large
# turns of the head 3.8; the same crops moved by 8 px: 8.7, shrunk to 0.8: 7.7, to 0.7 as loose crops are: 12.7.
LIMIT_PX = 5.0
PAIRS = 6000
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pairs.

    Attributes:
        pairs: How many are drawn; None is 6,000, as in LFW, and with a list its own.
        folds: How many; of a list that says so itself, its own.
        seed: Of what is drawn.
        pairs_file: A list in LFW's form instead.
        unaligned_ok: Whether pictures that seem aligned otherwise, or show no face to the detector, are taken as well.
    """

    pairs: int | None = None
    folds: int = 10
    seed: int = 0
    pairs_file: Path | None = None
    unaligned_ok: bool = False

    def __post_init__(self) -> None:
        if self.pairs_file is not None and (self.pairs is not None or self.seed):
            raise ValueError(f"pairs, seed: expected none with a list of pairs, got {self.pairs}, {self.seed}")


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Rows of the pictures of each pair, and the people of each fold by what they are called."""

    first: Int64[np.ndarray, " p"]
    second: Int64[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    people: tuple[tuple[str, ...], ...]
    person: tuple[str, ...]  # of each of the 2p stored pictures


def build_bin(source: Path, out: Path, wanted: Wanted, weights: Path = FOLDER) -> dict[str, Any]:
    """Builds a verification set from a folder of identities, or any set that `open_set` knows, and tells about it.

    Args:
        source: Pictures of 112x112, aligned.
        out: The `.bin`; what is said of it goes beside.
        wanted: Which pairs.
        weights: Where the bundled detector is.
    Returns:
        What the JSON says.
    Raises:
        ValueError: If pairs cannot be had, a picture is missing, broken or of another size, the crops do not look
            aligned, or something else lies at `out`.
    """
    if out.suffix != ".bin":
        raise ValueError(f"out: expected a name that ends in .bin, got {out}")
    pictures = open_set(source)
    detector = bundled("detector", weights)
    made_from = _made_from(pictures, wanted, detector.sha256)
    if out.exists():
        return _up_to_date(out, made_from)
    _check_beside(out.with_suffix(".json"))
    for name in pictures.left_out[:10]:
        say(f"bin build: left out {name}")
    chosen = _listed(pictures, wanted) if wanted.pairs_file is not None else _drawn(pictures, wanted)
    rows = np.unique(np.concatenate([chosen.first, chosen.second]))
    jpegs, alignment = _looked_at(pictures, rows, Detector(detector.verify(), 1))
    alignment |= {"limit_px": LIMIT_PX, "detector_sha256": detector.sha256}
    _check_alignment(source, alignment, wanted.unaligned_ok)
    said = {
        "made_from": made_from,
        "source": {"name": source.resolve().name, "kind": pictures.kind, "sha256": pictures.sha256},
        "drawn": None if wanted.pairs_file else {"folds": wanted.folds, "seed": wanted.seed},
        "pairs_file": _file(wanted.pairs_file),
        **_counts(chosen, len(rows)),
        "alignment": alignment,
    }
    _write(out, [jpegs[row] for pair in zip(chosen.first, chosen.second, strict=True) for row in pair], chosen, said)
    _show(out, said)
    return said


def _drawn(pictures: LabelledSet, wanted: Wanted) -> _Pairs:
    drawn = draw_pairs(
        pictures.identity_ids, PAIRS if wanted.pairs is None else wanted.pairs, wanted.folds, wanted.seed
    )
    names = [str(identity) for identity in pictures.identity_ids]
    person = tuple(names[row] for pair in zip(drawn.first, drawn.second, strict=True) for row in pair)
    people = tuple(tuple(map(str, fold.tolist())) for fold in drawn.people)
    return _Pairs(drawn.first, drawn.second, drawn.same, people, person)


def _listed(pictures: LabelledSet, wanted: Wanted) -> _Pairs:
    """The pairs of the list, in its order, which is that of the folds."""
    assert wanted.pairs_file is not None
    folds = listed_folds(wanted.pairs_file) or wanted.folds
    pairs = read_pairs(wanted.pairs_file)
    if not 2 <= folds <= len(pairs):
        raise ValueError(f"{wanted.pairs_file}: expected 2 to {len(pairs)} folds, got {folds}")
    pairs, mixed = interleaved(pairs, folds)
    if mixed:
        say(f"bin build: {wanted.pairs_file} has all pairs of one person first; each fold takes its part of both kinds")
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(pictures.keys):
        rows_of.setdefault(f"{os.path.splitext(key)[0]}.jpg", []).append(row)  # a list says .jpg
    rows_of |= {key: [row] for row, key in enumerate(pictures.keys)}
    names = [name for pair in pairs for name in (pair.first, pair.second)]
    missing = sorted({name for name in names if name not in rows_of})
    if missing:
        raise ValueError(
            f"{wanted.pairs_file}: expected all its pictures in {pictures.place}, {len(missing)} are missing, "
            f"{missing[0]} first"
        )
    for name in names:
        if len(rows_of[name]) > 1:
            found = " and ".join(pictures.keys[row] for row in rows_of[name])
            raise ValueError(f"{wanted.pairs_file}: expected one picture for {name} in {pictures.place}, found {found}")
    rows = np.array([rows_of[name] for name in names], np.int64).reshape(-1, 2)
    person = tuple(str(Path(name).parent) for name in names)
    same = np.array([pair.same for pair in pairs], bool)
    check_labels(str(wanted.pairs_file), numbered(person).reshape(-1, 2), same)
    blocks = np.array_split(np.arange(len(pairs)), folds)
    people = tuple(tuple(sorted({person[2 * row + side] for row in block for side in (0, 1)})) for block in blocks)
    return _Pairs(rows[:, 0].copy(), rows[:, 1].copy(), same, people, person)


def _looked_at(
    pictures: LabelledSet, rows: Int64[np.ndarray, " r"], detector: Detector
) -> tuple[dict[int, bytes], dict[str, Any]]:
    """The bytes of these pictures, each decoded once, and how they are aligned."""
    jpegs: dict[int, bytes] = {}
    residual, misplaced, waiting = list[float](), list[float](), list[np.ndarray]()

    def look() -> None:
        landmarks, probability = detector(np.stack(waiting))
        seen = landmarks[(probability >= MIN_PROBABILITY) & alignable(landmarks)].astype(np.float64)
        whole, part = off_template(seen)
        residual.extend(whole.tolist())
        misplaced.extend(part.tolist())
        waiting.clear()

    with Watch("bin build", len(rows), "pictures") as watch:
        for row, sample in zip(rows.tolist(), pictures.read(rows), strict=True):
            waiting.append(_crop(sample))
            jpegs[row] = sample.jpeg
            if len(waiting) == _BATCH or len(jpegs) == len(rows):
                look()
            watch.advance(1)
    return jpegs, {
        "pictures": len(rows),
        "seen": len(residual),
        "residual_px": _spread(residual),
        "misplaced_px": _spread(misplaced),
    }


def off_template(
    landmarks: Float64[np.ndarray, "b 5 2"],
) -> tuple[Float64[np.ndarray, " b"], Float64[np.ndarray, " b"]]:
    """How far, in px, landmarks in 112x112 crops are from the ArcFace template, and how far the best similarity onto it
    moves the template's own points: means over the five."""
    onto = template(112)
    matrices = similarity(landmarks, onto)
    moved = np.einsum("bij,pj->bpi", matrices[:, :, :2], onto) + matrices[:, None, :, 2]
    return np.linalg.norm(landmarks - onto, axis=2).mean(axis=1), np.linalg.norm(moved - onto, axis=2).mean(axis=1)


def _crop(sample: Sample) -> UInt8[np.ndarray, "112 112 3"]:
    try:
        return decode_crop(sample)
    except ValueError as error:
        if "expected 112x112 pixels" not in str(error):
            raise
        raise ValueError(
            f"{error}; nothing is resized here, since a resized photograph is not an aligned face: find five landmarks "
            "and warp each picture first, as insightface.utils.face_align.norm_crop(image, landmarks, 112) does"
        ) from error


def _check_alignment(source: Path, alignment: Mapping[str, Any], unaligned_ok: bool) -> None:
    if unaligned_ok:
        return
    if not alignment["seen"]:
        raise ValueError(
            f"{source}: expected faces that the detector can see, to check their alignment, it saw none in "
            f"{alignment['pictures']} pictures; --unaligned-ok builds without the check"
        )
    median = alignment["misplaced_px"]["median"]
    if median > LIMIT_PX:
        raise ValueError(
            f"{source}: expected crops aligned to the ArcFace template, so that in half of them a new alignment would "
            f"move it by at most {LIMIT_PX} px, found {median:.1f} px (landmarks "
            f"{alignment['residual_px']['median']:.1f} px off); align them, or say --unaligned-ok"
        )


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, high = np.percentile(values, [50, 95])
    return {"median": round(float(median), 3), "p95": round(float(high), 3)}


def _counts(chosen: _Pairs, pictures: int) -> dict[str, Any]:
    in_folds: dict[str, int] = {}
    for fold in chosen.people:
        for person in fold:
            in_folds[person] = in_folds.get(person, 0) + 1
    return {
        "pairs": len(chosen.same),
        "genuine": int(chosen.same.sum()),
        "impostor": int((~chosen.same).sum()),
        "pictures": pictures,
        "folds": len(chosen.people),
        "people": len(set(chosen.person)),
        "people_per_fold": [len(fold) for fold in chosen.people],
        "people_in_several_folds": sum(count > 1 for count in in_folds.values()),
    }


def _write(out: Path, jpegs: Sequence[bytes], chosen: _Pairs, said: dict[str, Any]) -> None:
    """The people and the JSON, and last the `.bin`, which is written elsewhere before: its hash stands in both."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        unfinished = Path(folder) / out.name
        write_bin(unfinished, jpegs, chosen.same)
        said |= {"sha256": sha256_of(unfinished), "bytes": unfinished.stat().st_size}
        write_people(unfinished, chosen.person)
        os.replace(people_path(unfinished), people_path(out))
        with whole_file(out.with_suffix(".json")) as file:
            file.write((json.dumps(said, indent=1) + "\n").encode())
        os.replace(unfinished, out)
    sync(out.parent)


def _made_from(pictures: LabelledSet, wanted: Wanted, detector: str) -> str:
    asked = asdict(wanted) | {"pairs_file": _file(wanted.pairs_file)}
    return digest("facemint bin build 1", pictures.sha256, detector, json.dumps(asked, sort_keys=True))


def _file(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    return {"name": path.name, "sha256": sha256_of(path)}


def _check_beside(path: Path) -> None:
    """What a build that was killed has left may be written over; nobody else's file."""
    if path.exists() and "made_from" not in read_json(path):
        raise ValueError(f"{path}: expected nothing there, found a file of something else; move it away")


def _up_to_date(out: Path, made_from: str) -> dict[str, Any]:
    said = read_json(out.with_suffix(".json"))
    if said.get("made_from") != made_from or said.get("sha256") != sha256_of(out):
        raise ValueError(
            f"{out}: expected nothing there or this very set, found another file; move it away or name another"
        )
    say(f"bin build: {out} is up to date")
    _show(out, said)
    return said


def _show(out: Path, said: Mapping[str, Any]) -> None:
    alignment, table = said["alignment"], Table(show_header=False)
    for fact, value in _facts(out, said, alignment):
        table.add_row(fact, value)
    CONSOLE.print(table)


def _facts(out: Path, said: Mapping[str, Any], alignment: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    per_fold, several = said["people_per_fold"], said["people_in_several_folds"]
    yield "set", str(out)
    yield "pairs", f"{said['pairs']:,}: {said['genuine']:,} of one person, {said['impostor']:,} of two"
    yield "pictures", f"{said['pictures']:,} of {said['people']:,} people"
    yield "folds", f"{said['folds']}, {min(per_fold)} to {max(per_fold)} people each, {several or 'nobody'} in several"
    yield "faces seen", f"{alignment['seen']:,} of {alignment['pictures']:,}"
    for name, fact in (
        ("residual_px", "landmarks off the template"),
        ("misplaced_px", "a new alignment would move it"),
    ):
        spread = alignment[name]
        yield (
            fact,
            "not known" if spread is None else f"{spread['median']:.2f} px median, {spread['p95']:.2f} px at 95 %",
        )
