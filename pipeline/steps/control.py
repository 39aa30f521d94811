"""Control: how large renders of other people must be, to be compared with what was made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.progress import say
from pipeline.rundir import RunDir
from pipeline.steps.files import metadata
from pipeline.steps.make import expect_made
from pipeline.steps.order import Order
from stages.ledger import read_ledger


@dataclass(frozen=True)
class Size:
    """How large a made dataset is.

    Attributes:
        people: With at least one picture kept.
        pictures: Kept.
    """

    people: int
    pictures: int

    @property
    def for_control(self) -> int:
        """Pictures per person to plan for a control of this size: a tenth more, for the faces that are not found."""
        return math.ceil(1.1 * self.pictures / self.people)


def size(run: RunDir) -> Size:
    """Size of the dataset of a run. ValueError if it is not made yet, or nothing was kept."""
    expect_made(run)
    ledger = read_ledger(run.ledger)
    kept = ledger.filter(ledger["kept"])
    if len(kept) == 0:
        raise ValueError(f"{run.ledger}: expected pictures that were kept, got none of {len(ledger)}")
    return Size(len(kept["identity_id"].unique()), len(kept))


def begin_control(run: RunDir, order: Order) -> None:
    """Clears away a control that was made for a dataset of another size or config."""
    found = metadata(run.plan) or metadata(run.identities)
    if found.get("made_from", order.made_from) != order.made_from:
        say(f"control: {run.root} was made for another dataset; it is made again")
        for path in (run.identities, run.plan, *run.shards.glob("*"), *run.ledger.glob("*"), run.progress):
            path.unlink(missing_ok=True)
