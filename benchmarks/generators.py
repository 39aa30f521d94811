"""What a generator of faces does: whose they are, how unlike each other, how like what was asked for, whether copied.

Every function takes arrays. Embeddings are the witness's, who neither made nor judged the pictures. The same figures of
renders, beside those of generated pictures, are the ceiling: what is lost to the measuring itself.

Letters: n pictures, d embedding dimensions, i people, v values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import rankdata

from benchmarks.verify import auc

HISTOGRAM_BINS = 100  # of cosines from -1 to 1
ENTROPY_BINS = 16
PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 99.9)


# --- whose -----------------------------------------------------------------------------------------------------------


def templates(
    embeddings: Float[np.ndarray, "n d"], owners: Int64[np.ndarray, " n"], people: int
) -> Float64[np.ndarray, "i d"]:
    """One reference per person 0 to people - 1: the unit mean of its unit embeddings, as in set-based protocols.

    Raises:
        ValueError: If somebody has no embedding, or embeddings that cancel out.
    """
    unit = _unit(embeddings)
    sums = np.zeros((people, unit.shape[1]))
    np.add.at(sums, owners, unit)
    lengths = np.linalg.norm(sums, axis=1)
    lost = np.flatnonzero(lengths < 1e-9)
    if len(lost):
        raise ValueError(f"expected an embedding with a direction for each of {people} people, got none for {lost[0]}")
    return sums / lengths[:, None]


def enrolment_split(owners: Int64[np.ndarray, " n"]) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which pictures enrol their person and which probe: the first half of each person's, and the rest.

    Of an odd number of pictures the middle one probes. Who has a single picture is in neither.
    """
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], owners[order])
    person = np.unique(owners, return_inverse=True)[1]
    counts = np.bincount(person)[person]
    turn = np.empty(len(owners), np.int64)
    turn[order] = np.arange(len(owners)) - starts
    enrolled = (turn < counts // 2) & (counts > 1)
    return enrolled, ~enrolled & (counts > 1)


def own_versus_other(
    probes: Float[np.ndarray, "n d"], owners: Int64[np.ndarray, " n"], references: Float[np.ndarray, "i d"]
) -> dict[str, Any]:
    """Every picture against the reference of its own person, and against those of all others.

    Args:
        probes: Unit norm.
        owners: Row of each picture's person in `references`.
        references: Unit norm, one per person.
    Returns:
        `auc`: the chance that a picture is more like its own person than another picture is like another person, over
        all n * i pairs. `rank1`: the share of pictures that are strictly nearest to their own person among i people.
        Means and standard deviations of both kinds of cosine, and their histograms.
    Raises:
        ValueError: If there are fewer than two people, no picture, or an owner that is no row.
    """
    if len(references) < 2 or not len(probes):
        raise ValueError(f"expected pictures and at least two people, got {len(probes)} and {len(references)}")
    if owners.min() < 0 or owners.max() >= len(references):
        raise ValueError(f"expected owners from 0 to {len(references) - 1}, got {owners.min()} to {owners.max()}")
    cosine = _unit(probes) @ _unit(references).T
    same = np.zeros(cosine.shape, bool)
    same[np.arange(len(probes)), owners] = True
    own, other = cosine[same], cosine[~same]
    best_other = np.where(same, -np.inf, cosine).max(1)
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    return {
        "pictures": len(probes),
        "people": len(references),
        "auc": auc(cosine.ravel(), same.ravel()),
        "rank1": float((own > best_other).mean()),
        "own_mean": float(own.mean()),
        "own_std": float(own.std()),
        "other_mean": float(other.mean()),
        "other_std": float(other.std()),
        "histogram": {
            "low": -1.0,
            "high": 1.0,
            "own": np.histogram(own.clip(-1, 1), edges)[0].tolist(),
            "other": np.histogram(other.clip(-1, 1), edges)[0].tolist(),
        },
    }


def among_themselves(embeddings: Float[np.ndarray, "n d"], owners: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """`own_versus_other` by enrolment split: half of a person's pictures are its reference, the other half probe.

    Raises:
        ValueError: If fewer than two people have two pictures.
    """
    enrolled, probing = enrolment_split(owners)
    people, rows = np.unique(owners[enrolled], return_inverse=True)
    if len(people) < 2:
        raise ValueError(f"expected at least two people with two pictures each, got {len(people)}")
    references = templates(embeddings[enrolled], rows, len(people))
    return own_versus_other(embeddings[probing], np.searchsorted(people, owners[probing]), references)


def within_people(embeddings: Float[np.ndarray, "n d"], owners: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """How alike two pictures of one person are: cosines of all pairs, and the mean distance 1 - cos of each person.

    Raises:
        ValueError: If nobody has two pictures.
    """
    unit = _unit(embeddings)
    of = [np.flatnonzero(owners == person) for person in np.unique(owners)]
    pairs = [(unit[rows] @ unit[rows].T)[np.triu_indices(len(rows), 1)] for rows in of if len(rows) > 1]
    if not pairs:
        raise ValueError("expected somebody with two pictures, got nobody")
    cosine = np.concatenate(pairs)
    return {
        "pairs": len(cosine),
        "mean_cosine": float(cosine.mean()),
        "std_cosine": float(cosine.std()),
        "mean_distance": float(1 - cosine.mean()),
        "mean_distance_of_people": _percentiles(np.array([1 - mine.mean() for mine in pairs])),
    }


# --- how like renders, and how like those trained on ----------------------------------------------------------------


def frechet(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Squared Frechet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau, 1982).

    As FID (Heusel et al., 2017, https://arxiv.org/abs/1706.08500, eq. 6), on whatever embeddings are given. Few$
    pictures bias it upwards, so compare only distances of equal numbers of them.

    Raises:
        ValueError: If a set has fewer than two rows, or a number is not finite.
    """
    for name, rows in (("first", first), ("second", second)):
        if len(rows) < 2 or not np.isfinite(rows).all():
            raise ValueError(f"{name}: expected at least 2 rows of finite numbers, got shape {rows.shape}")
    a, b = first.astype(np.float64), second.astype(np.float64)
    difference = a.mean(0) - b.mean(0)
    ca, cb = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = _square_root(ca)
    # tr (C1 C2)^(1/2) = tr (C1^(1/2) C2 C1^(1/2))^(1/2): the latter is symmetric, so its eigenvalues are real.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cb @ root), 0)).sum()
    return float(max(difference @ difference + np.trace(ca) + np.trace(cb) - 2 * cross, 0.0))


def frechet_beside_floor(
    generated: Float[np.ndarray, "n d"],
    generated_owners: Int64[np.ndarray, " n"],
    renders: Float[np.ndarray, "m d"],
    render_owners: Int64[np.ndarray, " m"],
) -> dict[str, Any]:
    """The Frechet distance of generated pictures to renders of other people, and of renders to the same renders.

    People are halved by their numbers, even and odd. Even generated people are held against odd renders; even renders
    against odd renders are the floor. All sets are cut to the size of the smallest, since few pictures add to it.
    """
    sets = [
        generated[generated_owners % 2 == 0],
        renders[render_owners % 2 == 0],
        renders[render_owners % 2 == 1],
    ]
    size = min(map(len, sets))
    even, floor, odd = (rows[:size] for rows in sets)
    return {"pictures": size, "generated": frechet(even, odd), "renders": frechet(floor, odd)}


def nearest(
    embeddings: Float[np.ndarray, "n d"], among: Float[np.ndarray, "m d"], block: int = 1024
) -> Float64[np.ndarray, " n"]:
    """Cosine of each embedding to the nearest of others; exact."""
    table = _unit(among).astype(np.float32).T
    unit = _unit(embeddings).astype(np.float32)
    parts = [(unit[start : start + block] @ table).max(1) for start in range(0, len(unit), block)]
    return np.concatenate(parts).astype(np.float64)


def memorisation(
    generated: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "h d"], training: Float[np.ndarray, "m d"]
) -> dict[str, Any]:
    """How near pictures come to the nearest picture trained on, beside held-out renders that cannot be copies.

    Returns:
        Percentiles of both, the largest, and `above`: the share of generated pictures nearer than 999 of 1000 held-out
        renders are. Of a generator that copies nothing it is about 0.001.
    """
    ours, control = nearest(generated, training), nearest(held_out, training)
    limit = float(np.quantile(control, 0.999))
    return {
        "training_pictures": len(training),
        "generated": _percentiles(ours) | {"max": float(ours.max())},
        "renders": _percentiles(control) | {"max": float(control.max())},
        "limit": limit,
        "above": float((ours > limit).mean()),
    }


# --- how like what was asked for -------------------------------------------------------------------------------------


def asked_versus_seen(asked: Float[np.ndarray, " n"], seen: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Median absolute error, and Spearman's rank correlation (ties by mean rank); None where all of one kind are equal.

    Raises:
        ValueError: If the lengths differ, there is nothing, or a number is not finite.
    """
    if len(asked) != len(seen) or not len(asked) or not (np.isfinite(asked).all() and np.isfinite(seen).all()):
        raise ValueError(f"expected as many finite numbers asked as seen, got {len(asked)} and {len(seen)}")
    constant = np.ptp(asked) == 0 or np.ptp(seen) == 0
    rank = None if constant else float(np.corrcoef(rankdata(asked), rankdata(seen))[0, 1])
    error = np.abs(asked.astype(np.float64) - seen)
    return {"pictures": len(asked), "median_error": float(np.median(error)), "spearman": rank}


def styles_seen(asked: Int64[np.ndarray, " n"], seen: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """How often the style asked for is the style seen: over all pictures, and as the mean over the styles asked for.

    The second is the figure to read where most pictures have none.
    """
    if len(asked) != len(seen) or not len(asked):
        raise ValueError(f"expected as many styles asked as seen, got {len(asked)} and {len(seen)}")
    of = {int(style): float((seen[asked == style] == style).mean()) for style in np.unique(asked)}
    return {
        "pictures": len(asked),
        "accuracy": float((asked == seen).mean()),
        "balanced_accuracy": float(np.mean(list(of.values()))),
        "of_style": of,
    }


def entropy_bits(values: Float[np.ndarray, " v"], low: float, high: float, bins: int = ENTROPY_BINS) -> float:
    """Shannon entropy of a histogram over [low, high], in bits: log2(bins) where all bins are equally full.

    Values outside count in the outer bins.
    """
    if not low < high or bins < 2:
        raise ValueError(f"expected low < high and at least 2 bins, got {low}, {high} and {bins}")
    counts = np.histogram(values.clip(low, high), bins, (low, high))[0]
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


# --- bars ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and what it must reach: `value` at least `least`, at most `most`; None where it was not measured."""

    name: str
    value: float | None
    least: float | None = None
    most: float | None = None
    renders: float | None = None  # the same figure of renders

    @property
    def told(self) -> str:
        """What must be reached, in words."""
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    @property
    def passed(self) -> bool | None:
        if self.value is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def bars(evaluation: Mapping[str, Any]) -> list[Bar]:
    """What the figures of an evaluation must reach. A figure that was not measured has no value, and does not pass."""
    view = "asked" if evaluation["identity"]["asked"] else "among"
    ours, theirs = (evaluation["identity"][view][kind] for kind in ("generated", "renders"))
    within = evaluation["identity"]["within"]
    gap = abs(within["generated"]["mean_cosine"] - within["renders"]["mean_cosine"])
    kept = evaluation["yield"]
    whose = "against renders of the person asked for" if view == "asked" else "among generated pictures"
    return [
        Bar(f"AUC own versus other, {whose}", ours["auc"], least=0.995, renders=theirs["auc"]),
        Bar(f"rank-1 among {ours['people']:,} people, {whose}", ours["rank1"], least=0.8, renders=theirs["rank1"]),
        Bar("yield of the judge", kept["generated"]["share"], least=0.8, renders=kept["renders"]["share"]),
        _attribute_bar(evaluation, "yaw_deg", "median_error", "yaw: median error, degrees", most=8.0),
        *(
            _attribute_bar(evaluation, name, "spearman", f"{name.split('_')[0]}: rank correlation", least=0.8)
            for name in ("smile", "age_years", "light_azimuth_deg")
        ),
        Bar("mean cosine within a person, distance to renders'", gap, most=0.07, renders=0.0),
    ]


def _attribute_bar(
    evaluation: Mapping[str, Any],
    attribute: str,
    figure: str,
    name: str,
    least: float | None = None,
    most: float | None = None,
) -> Bar:
    told = evaluation["attributes"].get(attribute, {"generated": {figure: None}, "renders": {figure: None}})
    return Bar(name, told["generated"][figure], least, most, told["renders"][figure])


# --- arithmetic ------------------------------------------------------------------------------------------------------


def _unit(embeddings: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """In float64, after a look whether they are unit vectors indeed."""
    unit = embeddings.astype(np.float64)
    norms = np.linalg.norm(unit, axis=1)
    if not np.allclose(norms, 1, atol=1e-3):
        raise ValueError(f"expected unit embeddings, got norms from {norms.min()} to {norms.max()}")
    return unit / norms[:, None]


def _square_root(symmetric: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    values, axes = np.linalg.eigh(symmetric)
    return (axes * np.sqrt(np.maximum(values, 0))) @ axes.T


def _percentiles(values: Float64[np.ndarray, " v"], at: Sequence[float] = PERCENTILES) -> dict[str, float]:
    return {f"p{q:g}": float(np.percentile(values, q)) for q in at} | {"mean": float(values.mean())}
