"""IJB-B and IJB-C: templates of several pictures compared with templates, after insightface's `eval_ijbc`.

A template is all that is known of a person on one occasion: pictures, and frames of videos. Pictures of one medium are
averaged, media are summed, and the sum is normalised; a pair of templates scores the dot product.

The conventions move results by a point and more, so a setting is named in every result: N1 keeps the length of an
embedding as a weight (N0 does not), D1 multiplies by the detector's score, F1 adds the mirror image. The table takes
the point of the ROC whose FPR is nearest to the target, without interpolation, on a curve without its collinear points.

Meta files, space-separated, `x` being `ijbb` or `ijbc`: `x_face_tid_mid.txt` (picture, template, medium),
`x_name_5pts_score.txt` (picture, five points, score) in the same order, `x_template_pair_label.txt` (template,
template, label); for 1:N `x_1N_gallery_G1.csv`, `G2` (`S1`, `S2` of IJB-B) and `x_1N_probe_mixed.csv` (template,
subject, ...), comma-separated after a header.

Letters: n pictures, k templates, p pairs, d dimensions.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from sklearn.metrics import roc_curve

from benchmarks.far import RULE, TARGETS, tar_at_far, wilson_interval95
from benchmarks.identification import closed_set, open_set
from benchmarks.pictures import decode_whole, read_picture
from benchmarks.protocols import BATCH, Model
from benchmarks.verify import auc

PROTOCOL = "insightface-ijb-v1"
TID_MID, PAIRS, POINTS = "_face_tid_mid.txt", "_template_pair_label.txt", "_name_5pts_score.txt"
RANKS_1N = (1, 5, 10)
_BLOCK = 4096  # templates at a time; pairs a hundred times as many
Align = Callable[[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "5 2"]], UInt8[np.ndarray, "112 112 3"]]


class Setting(NamedTuple):
    """What becomes of a picture's embedding before it goes into its template."""

    norm: bool = True
    detector: bool = True
    flip: bool = True

    def __str__(self) -> str:
        return f"N{self.norm:d}D{self.detector:d}F{self.flip:d}"


DEFAULT = Setting()  # of eval_ijbc: N1D1F1
SETTINGS = {str(each): each for each in itertools.starmap(Setting, itertools.product((True, False), repeat=3))}


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Templates of 1:N and whose they are."""

    name: str
    templates: Int64[np.ndarray, " k"]
    people: Int64[np.ndarray, " k"]


@dataclass(frozen=True, slots=True, eq=False)
class TemplateSet:
    """IJB-B or IJB-C as its meta files have it.

    Attributes:
        name: `ijbb` or `ijbc`.
        pictures: Files, of loose crops. landmarks: Five points on each. faceness: The detector's score.
        templates: Of each picture. media: Of each picture, within its template.
        first, second: Templates of each pair. same: Whether it is of one person.
        galleries, probes: Of 1:N; none where their files are not there.
    """

    name: str
    pictures: Sequence[Path]
    landmarks: Float32[np.ndarray, "n 5 2"]
    faceness: Float32[np.ndarray, " n"]
    templates: Int64[np.ndarray, " n"]
    media: Int64[np.ndarray, " n"]
    first: Int64[np.ndarray, " p"]
    second: Int64[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    galleries: Sequence[Gallery] = ()
    probes: Gallery | None = None
    meta: Sequence[Path] = ()


def is_template_set(folder: Path) -> bool:
    """Whether a folder has IJB's meta files, in itself or in `meta`."""
    return any(folder.glob(f"*{TID_MID}")) or any(folder.glob(f"meta/*{TID_MID}"))


def read_templates(folder: str | os.PathLike[str]) -> TemplateSet:
    """Reads the meta files of IJB-B or IJB-C; pictures are looked for in `loose_crop`, and read later.

    Raises:
        ValueError: If a file is missing, or malformed, or they contradict each other, or pictures are missing (how
            many, and the first of them); names the file.
    """
    folder = Path(folder)
    found = sorted([*folder.glob(f"*{TID_MID}"), *folder.glob(f"meta/*{TID_MID}")])
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one meta file named *{TID_MID}, got {len(found)}")
    name, meta = found[0].name.removesuffix(TID_MID), found[0].parent
    names, templates, media = _columns(found[0], [object, np.int64, np.int64])
    points_path, pairs_path = meta / f"{name}{POINTS}", meta / f"{name}{PAIRS}"
    pointed, *numbers = _columns(points_path, [object] + [np.float32] * 11)
    _expect_the_same(found[0], points_path, names, pointed)
    figures = np.stack(numbers, axis=1)
    if not np.isfinite(figures).all():
        raise ValueError(f"{points_path}: expected finite numbers, got {figures[~np.isfinite(figures)][0]}")
    first, second, label = _columns(pairs_path, [np.int64] * 3)
    _check_pairs(pairs_path, first, second, label, templates)
    galleries, probes, more = _one_to_many(meta, name, templates)
    return TemplateSet(
        name,
        _pictures(folder, names),
        figures[:, :10].reshape(-1, 5, 2),
        figures[:, 10],
        templates,
        media,
        first,
        second,
        label == 1,
        galleries,
        probes,
        [found[0], points_path, pairs_path, *more],
    )


def embed_pictures(
    data: TemplateSet,
    model: Model,
    align: Align,
    work: Path,
    batch: int = BATCH,
    watch: Callable[[int], None] | None = None,
) -> Float32[np.ndarray, "n e"]:
    """Raw embeddings of all pictures, of the mirror image after those of the picture, in a file that is mapped.

    470,000 pictures of 512 dimensions are 1.9 GB, which need not be in memory.

    Args:
        align: Cuts the face out of a loose crop by its five points.
        work: A folder for `features.npy`.
        watch: Told how many pictures each batch had.
    Raises:
        ValueError: If a picture cannot be decoded, the model gives no usable embeddings, or the disk has no room.
    """
    features: np.memmap | None = None
    for start in range(0, len(data.pictures), batch):
        rows = range(start, min(start + batch, len(data.pictures)))
        crops = np.stack(
            [
                align(decode_whole(read_picture(data.pictures[row]), str(data.pictures[row])), data.landmarks[row])
                for row in rows
            ]
        )
        both = np.concatenate([np.asarray(model(x)) for x in (crops, np.ascontiguousarray(crops[:, :, ::-1]))], axis=-1)
        if both.ndim != 2 or len(both) != len(rows) or not np.isfinite(both).all():
            raise ValueError(f"{data.name}: expected finite embeddings (b, d) from the model, got shape {both.shape}")
        if features is None:
            features = _mapped(work, len(data.pictures), both.shape[1])
        features[rows.start : rows.stop] = both
        if watch is not None:
            watch(len(rows))
    if features is None:
        raise ValueError(f"{data.name}: expected pictures, got none")
    return features


def template_vectors(
    features: Float32[np.ndarray, "n e"],
    templates: Int64[np.ndarray, " n"],
    media: Int64[np.ndarray, " n"],
    faceness: Float32[np.ndarray, " n"],
    setting: Setting = DEFAULT,
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, "k d"]]:
    """Templates, ascending, and the unit vector of each.

    Args:
        features: Of each picture the raw embedding and then that of its mirror image; may be mapped from a file, of
            which a block is read at a time.
    Raises:
        ValueError: If a template has no direction: its embeddings cancel or are 0.
    """
    order = np.lexsort((media, templates))
    names, starts = np.unique(templates[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    vectors = np.empty((len(names), features.shape[1] // 2))
    for block in range(0, len(names), _BLOCK):
        last = min(block + _BLOCK, len(names))
        rows = order[starts[block] : ends[last - 1]]
        weighed = _weighed(features, rows, faceness, setting).astype(np.float64)
        changes = np.diff(templates[rows]) != 0
        medium = np.flatnonzero(np.append(True, changes | (np.diff(media[rows]) != 0)))  # first rows of the media
        means = np.add.reduceat(weighed, medium, axis=0) / np.diff(np.append(medium, len(rows)))[:, None]
        sums = np.add.reduceat(means, np.searchsorted(medium, starts[block:last] - starts[block]), axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError(f"template {names[block + int(np.argmin(lengths))]}: expected a direction, got length 0")
        vectors[block:last] = sums / lengths
    return names, vectors


def pair_scores(
    names: Int64[np.ndarray, " k"],
    vectors: Float64[np.ndarray, "k d"],
    first: Int64[np.ndarray, " p"],
    second: Int64[np.ndarray, " p"],
) -> Float32[np.ndarray, " p"]:
    """Dot products of pairs of templates, in blocks; float32: 15.6 million are 63 MB."""
    scores, vectors = np.empty(len(first), np.float32), vectors.astype(np.float32)
    step = 4 * _BLOCK
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        left, right = (vectors[np.searchsorted(names, each[rows])] for each in (first, second))
        scores[rows] = np.einsum("pd,pd->p", left, right)
    return scores


def nearest_fpr_table(
    scores: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"], targets: Sequence[float] = TARGETS
) -> list[tuple[float, float, float]]:
    """(target, TPR, FPR reached) at the point of scikit-learn's ROC whose FPR is nearest; the larger TPR on ties.

    Collinear points are left out of that curve, so the nearest may be well away from the target: it is told.
    """
    fpr, tpr, _ = roc_curve(same, scores)
    fpr, tpr = fpr[::-1], tpr[::-1]
    best = [int(np.argmin(np.abs(fpr - target))) for target in targets]
    return [(target, float(tpr[at]), float(fpr[at])) for target, at in zip(targets, best, strict=True)]


def score_templates(
    data: TemplateSet, features: Float32[np.ndarray, "n e"], setting: Setting = DEFAULT
) -> dict[str, Any]:
    """What a model's features score on IJB: an entry of `protocols`, as in JSON.

    `table` is insightface's, figure by figure, also where the impostors cannot carry it; `tar_at_far` says
    "insufficient data" there.
    """
    names, vectors = template_vectors(features, data.templates, data.media, data.faceness, setting)
    scores = pair_scores(names, vectors, data.first, data.second)
    genuine = int(data.same.sum())
    points = []
    for point in tar_at_far(scores, data.same):
        told = point.told()
        if point.tar is not None:
            told["interval95"] = list(wilson_interval95(round(point.tar * genuine), genuine))
        points.append(told)
    return {
        "protocol": f"{PROTOCOL} {setting}",
        "setting": str(setting),
        "pairs": len(scores),
        "impostor_pairs": len(scores) - genuine,
        "templates": len(names),
        "pictures": len(data.pictures),
        "coverage": 1.0,
        "table": [{"far_target": target, "tar": tpr, "far": fpr} for target, tpr, fpr in _table(scores, data.same)],
        "tar_at_far": points,
        "far_rule": RULE,
        "interval95_by": "Wilson, pairs as if independent: subjects of the pairs are not in the meta files",
        "auc": auc(scores, data.same),
        "identification": _identified(data, names, vectors),
    }


def _table(scores: np.ndarray, same: np.ndarray) -> list[tuple[float, float, float]]:
    return nearest_fpr_table(scores, same, sorted(TARGETS))


def _identified(data: TemplateSet, names: np.ndarray, vectors: np.ndarray) -> dict[str, Any] | None:
    """1:N, per gallery and their means; None where the set has no galleries."""
    if data.probes is None:
        return None
    probes, people = vectors[np.searchsorted(names, data.probes.templates)], data.probes.people
    told: dict[str, Any] = {}
    for gallery in data.galleries:
        enrolled = vectors[np.searchsorted(names, gallery.templates)]
        mated = np.isin(people, gallery.people)
        ranks = closed_set(enrolled, gallery.people, probes[mated], people[mated], RANKS_1N)
        told[gallery.name] = {**ranks, "tpir_at_fpir": open_set(enrolled, gallery.people, probes, people)}
    means = {f"rank_{k}": float(np.mean([each[f"rank_{k}"] for each in told.values()])) for k in RANKS_1N}
    return {**told, "mean": means}


def _weighed(features: np.ndarray, rows: np.ndarray, faceness: np.ndarray, setting: Setting) -> np.ndarray:
    """Embeddings of some pictures under a setting, float32 as in the original."""
    half = features.shape[1] // 2
    taken = np.asarray(features[np.sort(rows)])[np.argsort(np.argsort(rows))]  # a mapped file is read in its order
    weighed = taken[:, :half] + taken[:, half:] if setting.flip else taken[:, :half]
    if not setting.norm:
        weighed = weighed / np.sqrt(np.sum(weighed**2, axis=-1, keepdims=True))
    return weighed * faceness[rows, None] if setting.detector else weighed


def _mapped(work: Path, rows: int, columns: int) -> np.memmap:
    needed, free = rows * columns * 4, shutil.disk_usage(work).free
    if needed > free:
        raise ValueError(f"{work}: expected {needed / 1e9:.1f} GB free for the features, got {free / 1e9:.1f} GB")
    return np.lib.format.open_memmap(work / "features.npy", mode="w+", dtype=np.float32, shape=(rows, columns))


def _columns(path: Path, types: Sequence[Any], separator: str = r"\s+", skip: int = 0) -> list[np.ndarray]:
    """Columns of a meta file."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a meta file, found none")
    kinds = dict(enumerate(types))  # told beforehand: 15.7 million lines of words would be gigabytes
    try:
        _check_first_line(path, len(types), separator, skip)
        table = pd.read_csv(path, sep=separator, header=None, skiprows=skip, quoting=3, na_filter=False, dtype=kinds)
        return [table[place].to_numpy() for place in kinds]
    except (ValueError, OverflowError) as fault:  # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: {fault}") from fault


def _check_first_line(path: Path, columns: int, separator: str, skip: int) -> None:
    with path.open(encoding="utf-8") as file:
        line = next(itertools.islice(file, skip, None), "")
    fields = line.split(",") if separator == "," else line.split()
    if len(fields) < columns or (separator != "," and len(fields) > columns):
        raise ValueError(f"expected {columns} columns, got {len(fields)} in line {skip + 1}")


def _expect_the_same(one: Path, other: Path, names: np.ndarray, others: np.ndarray) -> None:
    if len(names) != len(others):
        raise ValueError(f"{other}: expected as many pictures as {one} has, {len(names)}, got {len(others)}")
    differing = np.flatnonzero(names != others)
    if len(differing):
        at = differing[0]
        raise ValueError(f"{other}: expected {str(names[at])!r} in line {at + 1}, as in {one}, got {str(others[at])!r}")


def _check_pairs(path: Path, first: np.ndarray, second: np.ndarray, label: np.ndarray, templates: np.ndarray) -> None:
    if not np.isin(label, (0, 1)).all():
        wrong = np.flatnonzero(~np.isin(label, (0, 1)))[0]
        raise ValueError(f"{path}: expected 0 or 1 as the label in line {wrong + 1}, got {label[wrong]}")
    known = np.unique(templates)
    for each in (first, second):
        strange = np.flatnonzero(~np.isin(each, known))
        if len(strange):
            raise ValueError(
                f"{path}: expected templates that have pictures, got {each[strange[0]]} in line {strange[0] + 1}, "
                "which has none"
            )
    if len(np.unique(label)) < 2:
        raise ValueError(f"{path}: expected genuine and impostor pairs, got one kind")


def _pictures(folder: Path, names: np.ndarray) -> list[Path]:
    """Where the loose crops are."""
    root = folder / "loose_crop"
    there = {entry.name for entry in os.scandir(root)} if root.is_dir() else set()
    missing = [name for name in names if name not in there]
    if missing:
        shown = ", ".join(missing[:3])
        raise ValueError(f"{root}: expected {len(names)} pictures, {len(missing)} are not there: {shown} ...")
    return [root / name for name in names]


def _one_to_many(meta: Path, name: str, templates: np.ndarray) -> tuple[list[Gallery], Gallery | None, list[Path]]:
    """Galleries and probes of 1:N, where their files are there: all or none."""
    probe, found = meta / f"{name}_1N_probe_mixed.csv", sorted(meta.glob(f"{name}_1N_gallery_*.csv"))
    if not probe.exists() and not found:
        return [], None, []
    if not probe.exists() or len(found) != 2:
        raise ValueError(f"{meta}: expected two galleries and {probe.name} for 1:N, or none of them, got {len(found)}")
    read = [_gallery(path, templates) for path in (*found, probe)]
    return read[:2], read[2], [*found, probe]


def _gallery(path: Path, templates: np.ndarray) -> Gallery:
    """A line per picture; a template once."""
    of_lines, people = _columns(path, [np.int64, np.int64], ",", skip=1)
    names, first = np.unique(of_lines, return_index=True)
    if not np.isin(names, templates).all():
        strange = names[~np.isin(names, templates)][0]
        raise ValueError(f"{path}: expected templates that have pictures, got {strange}, which has none")
    return Gallery(path.stem.rpartition("_")[2], names, people[first])
