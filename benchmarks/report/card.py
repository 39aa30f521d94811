"""The dataset's card, in the form that Hugging Face reads: YAML on top, prose below."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.report import facts
from benchmarks.report.facts import Missing
from benchmarks.report.page import environment
from recognition.files import whole_file

# names of licences that the hub knows; every other one is "other" with its name beside it
HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
)
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def write_card(
    out_md: str | os.PathLike[str],
    *,
    name: str,
    licence: str,
    ledger: str | os.PathLike[str],
    scores: str | os.PathLike[str],
    config: str | os.PathLike[str],
    identities: str | os.PathLike[str],
) -> None:
    """Writes `DATASET_CARD.md`: counts, recipe, licence, provenance and limits of a run's dataset.

    Args:
        out_md: The card; replaced at once when it is whole.
        name: Of the dataset.
        licence: Of the pictures, as the generator states it.
        ledger: Folder of ledger parts. scores: `scores.json`. config: The run's config. identities: Parquet table.
    Raises:
        ValueError: If nothing was kept (there is no dataset to describe), or if a file is not what it should be.
    """
    made = facts.read_yield(Path(ledger))
    if isinstance(made, Missing) or not made.kept:
        raise ValueError(f"{ledger}: expected a ledger with pictures kept, got none")
    people = facts.read_people(Path(identities))
    template = environment(autoescape=False).get_template("card.md.jinja")  # Markdown: escaped where it matters, below
    text = template.render(
        name=name,
        licence=licence,
        hub_licence=licence.lower() if licence.lower() in HUB_LICENCES else "other",
        size=next((label for limit, label in SIZES if made.kept < limit), "n>10M"),
        made=made,
        people=people,
        origin=facts.origin(people),
        authentic=facts.authentic(people),
        scores=facts.read_scores(Path(scores)),
        config=facts.read_text(Path(config)),
    )
    out = Path(out_md)
    with whole_file(out) as file:
        file.write(text.encode())
