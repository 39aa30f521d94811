"""What is seen in latents, differentiably: how a denoiser is taught who and what its pictures are to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generation import objectives
from generation.pixels import wide
from generation.regressor import CLASSES, NUMBERS
from generation.train.photographs import TIMES, Batch
from generation.train.recipe import at_least, one_of, within

# An estimate from noise is blurred, whatever was asked for.
READ = tuple(name for name in NUMBERS if name not in ("blur_px", "low_resolution_px"))
READ_PLACES = [NUMBERS.index(name) for name in READ]


class Reading(NamedTuple):
    """What a regressor makes of pictures: standardised `NUMBERS`, and the logits of each of `CLASSES`."""

    numbers: Float[Tensor, "b a"]
    glasses: Float[Tensor, "b g"]
    hat: Float[Tensor, "b h"]


@dataclass(frozen=True, eq=False)
class Reader:
    """How people look, differentiably: a regressor that the generator learns from, so never the one that certifies it.

    Attributes:
        read: Pictures and aligned crops in [-1, 1] -> a reading.
        mean, std: Of `NUMBERS`, as the regressor standardises them.
    """

    read: Callable[[Tensor, Tensor], Sequence[Tensor]]
    mean: Float[Tensor, " a"]
    std: Float[Tensor, " a"]


@dataclass(frozen=True, eq=False)
class Mirror:
    """What is seen in latents, differentiably: pictures decoded, aligned, embedded and read.

    Attributes:
        decode: Latents -> pictures in [-1, 1]; the autoencoder's `decode`.
        embed: Aligned crops in [-1, 1] -> vectors of the space that conditions, of any length; for an identity term.
        reader: For an attribute term.
    """

    decode: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor] | None = None
    reader: Reader | None = None

    def show(
        self, latents: Float[Tensor, "b c h w"], to_crop: Float[Tensor, "b 2 3"]
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 3 s s"]]:
        """Pictures, and the aligned crops of their faces."""
        pictures = self.decode(wide(latents)).float()
        return pictures, objectives.placed(pictures, to_crop)


@runtime_checkable
class Looks(Protocol):
    """A recipe that says what estimates are looked at for."""

    @property
    def identity_term(self) -> str: ...
    @property
    def identity_power(self) -> float: ...
    @property
    def attribute_weight(self) -> float: ...
    @property
    def looked_below(self) -> float: ...
    @property
    def looked_above(self) -> float: ...


IDENTITY_TERMS = ("none", "cosine", "triplet")


def check_looks(recipe: Looks) -> None:
    """Raises ValueError for the first value that is out of range or unknown."""
    one_of(recipe, IDENTITY_TERMS, "identity_term")
    at_least(recipe, 0, "identity_power", "attribute_weight")
    within(recipe, "more than 0, at most 1", lambda share: 0 < share <= 1, "looked_below")
    within(recipe, "0 to less than looked_below", lambda share: 0 <= share < recipe.looked_below, "looked_above")


def check_mirror(mirror: Mirror | None, recipe: Looks) -> None:
    """Raises ValueError for a term that there is nothing to look with for."""
    if recipe.identity_term != "none" and (mirror is None or mirror.embed is None):
        raise ValueError(f"identity_term: expected a mirror that embeds for {recipe.identity_term!r}, got none")
    if recipe.attribute_weight and (mirror is None or mirror.reader is None):
        raise ValueError(f"attribute_weight: expected a mirror with a reader for {recipe.attribute_weight}, got none")


def terms_of(
    mirror: Mirror, clean: Float[Tensor, "b c h w"], batch: Batch, recipe: Looks, names: Sequence[str]
) -> dict[str, Float[Tensor, ""]]:
    """What is seen in estimates of clean latents, against who and what was asked for.

    Args:
        names: Of the batch's attributes.
    Returns:
        "identity" and "attributes", means over the batch: 0 in rows that are not looked at, and for a term left out.
    """
    terms = {"identity": clean.new_zeros(()), "attributes": clean.new_zeros(())}
    share = batch.timesteps / TIMES
    looked = (share >= recipe.looked_above) & (share < recipe.looked_below)
    rows = torch.nonzero(looked & (batch.someone | batch.asked.any(1))).flatten()
    if not len(rows):
        return terms
    pictures, crops = mirror.show(clean[rows], batch.to_crop[rows])
    if recipe.identity_term != "none" and mirror.embed is not None:
        terms["identity"] = _identity_term(mirror.embed(crops).float(), batch, rows, recipe) / len(clean)
    if recipe.attribute_weight and mirror.reader is not None:
        reading = Reading(*(part.float() for part in mirror.reader.read(pictures, crops)))
        terms["attributes"] = attribute_term(mirror.reader, reading, batch, rows, names) / len(clean)
    return terms


def _identity_term(
    seen: Float[Tensor, "r d"], batch: Batch, rows: Int64[Tensor, " r"], recipe: Looks
) -> Float[Tensor, ""]:
    """Sum over rows; 0 where nobody was asked for."""
    if recipe.identity_term == "cosine":
        term = objectives.identity_distance(seen, batch.vectors[rows])
    else:
        term = objectives.identity_triplet(seen, batch.vectors[rows], batch.strangers[rows])
    weight = objectives.lateness_weight(batch.timesteps[rows], TIMES, recipe.identity_power)
    return (batch.someone[rows] * weight * term).sum()


def attribute_term(
    reader: Reader, reading: Reading, batch: Batch, rows: Int64[Tensor, " r"], names: Sequence[str]
) -> Float[Tensor, ""]:
    """Sum over rows and over what each of them asked for."""
    wanted, asked = batch.attributes[rows], batch.asked[rows]
    term = reading.numbers.new_zeros(())
    for column, name in enumerate(names):
        if name in CLASSES:
            off = objectives.style_distance(getattr(reading, name), wanted[:, column].round().long())
        elif name in READ:
            place = NUMBERS.index(name)
            standardised = (wanted[:, column] - reader.mean[place]) / reader.std[place]
            off = objectives.number_distance(reading.numbers[:, place], standardised)
        else:
            continue
        term = term + (asked[:, column] * off).sum()
    return term
