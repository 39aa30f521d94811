"""The first minutes: what the field's usual disasters look like before a night is lost to them, a sentence each.

Findings are told and kept, and training goes on, since a set may be odd on purpose; only what can be nothing but a
fault stops it. Nothing here changes the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch.nn import functional as F

from recognition.train.embedding import embed
from recognition.train.networks import dimensions
from recognition.train.pictures import Data
from recognition.train.scan import FLAT_LEVELS, Scan
from recognition.train.state import State

PAIRS = 1000  # of one label, fewer of which say nothing of pixels: renders in the wild give 3 deviations with 300
PAIRS_EMBEDDED, EMBEDDED = 100, 192  # fewer say nothing of embeddings; pictures that are embedded
LEARNT_AFTER = 300  # steps, or the first epoch if it is shorter
SPREAD = 3.0  # standard deviations above chance from which on labels mean something
NORM_FACTOR = 30.0  # of sqrt(d), which the BatchNorm at the end of every backbone gives at first
BLUE_LEVELS = 5.0  # faces are redder than blue, by tens of levels
_CLASSES = 20_000  # that the expected first loss is drawn over


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    Attributes:
        name: Of the check.
        said: A sentence with the figures.
    """

    name: str
    said: str


class Checks:
    """Looks at the pictures before training, and at loss, norms and embeddings as it begins.

    Args:
        data: What is trained on.
        state: The training; findings that it already has are not told again.
        say: Takes each new finding.
        first: Whether this is the first process, which alone looks at pictures.
        fresh: Whether the training begins with random weights at its first step.
        per_epoch: Steps of an epoch.
    Raises:
        ValueError: If every picture looked at is of one colour.
    """

    def __init__(
        self, data: Data, state: State, say: Callable[[str], None], first: bool, fresh: bool, per_epoch: int
    ) -> None:
        self.state, self.say, self.first, self.fresh = state, say, first, fresh
        self.learnt_after = min(LEARNT_AFTER, per_epoch)
        self.findings = [Finding(*told) for told in state.findings]
        self.classes = int(data.labels.max()) + 1
        self.looked = not fresh
        if first:
            self.images, self.labels = data.subset()
            for finding in (*of_labels(data.labels), *of_pictures(self.images, self.labels), *of_scan(data.scan())):
                self._find(finding)

    def step(self, step: int, loss: float, norm: float) -> None:
        """Takes loss and mean norm of the embeddings of a step, counted from 1."""
        size = dimensions(self.state.model)
        if step == 1 and self.fresh:
            for finding in of_first_loss(loss, expected_loss(self.state, self.classes)):
                self._find(finding)
        for finding in of_norm(step, norm, size):
            self._find(finding)
        if self.first and not self.looked and step >= self.learnt_after:
            self.looked = True
            rows = np.argsort(self.labels, kind="stable")[:EMBEDDED]
            raw = embed(self.state.model, self.images[rows], flip=False)
            for finding in of_embeddings(step, raw, self.labels[rows]):
                self._find(finding)

    def _find(self, finding: Finding) -> None:
        if finding.name not in {each.name for each in self.findings}:
            self.findings.append(finding)
            self.state.findings.append([finding.name, finding.said])
            self.say(f"warning: {finding.said}")


def of_labels(labels: Int64[np.ndarray, " n"]) -> Iterator[Finding]:
    """Labels that are one class with a few exceptions, or a class for every picture."""
    counts = np.bincount(labels)
    if len(counts) > 2 and counts.max() > len(labels) / 2:
        share = 100 * counts.max() / len(labels)
        yield Finding("one_class", f"{share:.0f} % of the pictures are of one of {len(counts)} people: labels lost?")
    if counts.max() == 1:
        yield Finding("single_pictures", f"each of {len(counts)} people has one picture: nothing to learn from")


def of_pictures(images: UInt8[np.ndarray, "n 112 112 3"], labels: Int64[np.ndarray, " n"]) -> Iterator[Finding]:
    """Channel order, and labels that have nothing to do with the pictures, on a few pictures of a few people.

    Raises:
        ValueError: If every picture is of one colour.
    """
    if all(int(np.ptp(image)) <= FLAT_LEVELS for image in images):
        raise ValueError(f"images: expected faces, got {len(images)} of one colour among those looked at, all of them")
    red, _, blue = images[:, 28:100, 28:84].mean((0, 1, 2))
    if blue - red > BLUE_LEVELS:
        yield Finding(
            "channel_order",
            f"the middle of the pictures is bluer (mean {blue:.0f}) than red (mean {red:.0f}), where skin is redder: "
            "are the channels BGR instead of RGB?",
        )
    spread = above_chance(_thumbnails(images), labels, PAIRS)
    if spread is not None and spread < SPREAD:
        yield Finding(
            "random_labels",
            f"pictures of one label are no more alike than others ({spread:.1f} standard deviations, expected "
            f"{SPREAD:.0f} or more, {len(labels)} pictures): are labels shuffled against pictures?",
        )


def of_scan(scan: Scan) -> Iterator[Finding]:
    """Pictures that show nothing, or that two people share."""
    if scan.flat:
        yield Finding("flat_pictures", f"{scan.flat} of {scan.looked_at} pictures show one colour and nothing else")
    if scan.twins:
        one, other = scan.twins[0]
        yield Finding(
            "two_labels",
            f"{len(scan.twins)} of {scan.looked_at} pictures are there again under another label, such as rows {one} "
            f"and {other}",
        )


def of_first_loss(loss: float, expected: float) -> Iterator[Finding]:
    """Loss of the first step against that of random embeddings."""
    if not 0.5 * expected <= loss <= 1.5 * expected:
        yield Finding(
            "first_loss",
            f"the loss of the first step is {loss:.2f}, where untrained weights give about {expected:.2f}: is "
            "something trained already, or scaled wrongly?",
        )


def of_norm(step: int, norm: float, size: int) -> Iterator[Finding]:
    """Mean norm of the raw embeddings: XNorm."""
    usual = math.sqrt(size)
    if not usual / NORM_FACTOR <= norm <= usual * NORM_FACTOR:
        what = "explode" if norm > usual else "vanish"
        yield Finding("norms", f"embeddings {what}: mean norm {norm:.3g} at step {step}, usually about {usual:.3g}")


def of_embeddings(step: int, raw: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"]) -> Iterator[Finding]:
    """What the network makes of a few pictures once it has begun to learn, with its running statistics."""
    if not np.isfinite(raw).all():
        yield Finding("norms", f"embeddings in eval mode are not finite at step {step}")
        return
    yield from of_norm(step, float(np.linalg.norm(raw, axis=1).mean()), raw.shape[1])
    spread = above_chance(raw, labels, PAIRS_EMBEDDED)
    if spread is not None and spread < SPREAD:
        yield Finding(
            "not_learning",
            f"after {step} steps the network tells {len(np.unique(labels))} people whom it trains on apart no better "
            f"than chance ({spread:.1f} standard deviations)",
        )


def above_chance(features: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], least: int) -> float | None:
    """How many standard deviations the mean cosine of two pictures of one label lies above that of shuffled labels.

    Features are centred first. None where fewer than `least` pairs share a label, or all do.
    """
    same = labels[:, None] == labels
    pairs = np.triu(same, 1).sum()
    if pairs < least or same.all():
        return None
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, 0.0)
    rng = np.random.default_rng(0)
    chance = []
    for _ in range(200):
        order = rng.permutation(len(labels))
        chance.append((cosine[np.ix_(order, order)] * same).sum())
    return float(((cosine * same).sum() - np.mean(chance)) / max(float(np.std(chance)), 1e-12))


@torch.no_grad()
def expected_loss(state: State, classes: int) -> float:
    """Mean cross-entropy of random unit embeddings against random centres: the first loss of fresh weights."""
    size, some = dimensions(state.model), min(classes, _CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cosine = torch.randn(64, some).div_(math.sqrt(size)).clamp_(-1, 1)
        labels = torch.randint(some, (64,))
        norms = torch.full((64,), math.sqrt(size))
        logits = state.recipe.margin.module()(cosine, labels, norms)
    # The classes that were left out add their share to the denominator.
    return float(F.cross_entropy(logits, labels)) + math.log(classes / some)


def _thumbnails(images: UInt8[np.ndarray, "n 112 112 3"]) -> Float[np.ndarray, "n d"]:
    """Means of 8 x 8 pixels, each picture with mean 0 and deviation 1: light and contrast tell nobody apart."""
    small = images.reshape(len(images), 14, 8, 14, 8, 3).mean((2, 4)).reshape(len(images), -1)
    small -= small.mean(1, keepdims=True)
    return small / np.maximum(small.std(1, keepdims=True), 1e-6)
