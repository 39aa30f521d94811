"""The words of `facemint verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.ending import Debug, ended

if TYPE_CHECKING:
    from pipeline.verification.command import Order

Text = str | None
KEYS = ("model", "protocols", "against")


def verify(
    words: Annotated[list[str], typer.Argument(metavar="MODEL PROTOCOLS...", help="A model, then sets.")],
    against: Annotated[Path | None, typer.Option(help="Another model: a paired verdict.")] = None,
    out: Annotated[Path | None, typer.Option(help="The JSON file; default: verify-<model>.json.")] = None,
    backbone: Annotated[Text, typer.Option(help="Network of .pt weights.")] = None,
    against_backbone: Annotated[Text, typer.Option(help="Of the other model; default: the same.")] = None,
    bgr: Annotated[bool | None, typer.Option("--bgr/--rgb", help="Channel order of the network; default: RGB.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, of .pt weights.")] = False,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Add the mirror image, as insightface.")] = True,
    mean: Annotated[float | None, typer.Option(help="Of the input; default: insightface's rule.")] = None,
    std: Annotated[float | None, typer.Option(help="Of the input; default: insightface's rule.")] = None,
    device: Annotated[Text, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    batch: Annotated[int, typer.Option(help="Crops at once.")] = 64,
    threads: Annotated[int, typer.Option(help="Of the CPU; 0: the library's choice.")] = 0,
    form: Annotated[Text, typer.Option(help="bin, pairs, rfw, ijb, tinyface; default: by what is there.")] = None,
    images: Annotated[Path | None, typer.Option(help="Aligned crops of a list of pairs; default: its folder.")] = None,
    pairs_kind: Annotated[Text, typer.Option(help="lfw, rfw, two_lines, label_first; default: by the lines.")] = None,
    folds: Annotated[int | None, typer.Option(help="Of a list of pairs; default: its own, or 10.")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Score the pairs that are there.")] = False,
    ijb: Annotated[str, typer.Option(help="Settings of IJB, after commas.")] = "N1D1F1",
    choose_on: Annotated[
        Text, typer.Option(metavar="SET", help="Of a folder of checkpoints, take the best on SET; marks the score.")
    ] = None,
    fruits: Annotated[bool, typer.Option("--fruits", help="Time the whole pipeline on one thread, too.")] = False,
    work: Annotated[Path | None, typer.Option(help="Where features of IJB go meanwhile.")] = None,
    debug: Debug = False,
) -> None:
    """Scores a model, ours or theirs, on verification sets.

    \b
    MODEL is an .onnx file, .pt weights (with --backbone), or a run directory.
    PROTOCOLS are .bin files or folders of them, a list of pairs with its folder of
    aligned crops, an IJB folder, RFW, or TinyFace.
    facemint verify w600k_r50.onnx sets/               lfw.bin, cfp_fp.bin, agedb_30.bin ...
    facemint verify runs/demo sets/ --against runs/other      which is better, and by how much?
    facemint verify model=backbone.pt protocols=lfw/pairs.txt --images lfw/112 --backbone iresnet50
    """
    from benchmarks.models import Settings
    from benchmarks.sets import Opening
    from pipeline.verification.command import Order

    with ended(debug):
        model, protocols, other = _said(words)
        settings = Settings(backbone, bgr, fp16, mean, std, device, batch, threads)
        theirs = replace(settings, backbone=against_backbone or backbone)
        order = Order(
            model,
            protocols,
            against or other,
            settings,
            theirs,
            Opening(form, images, pairs_kind, folds, allow_missing),
            flip,
            choose_on,
            tuple(ijb.split(",")),
            fruits,
            work,
        )
        _tell(order, out or Path(f"verify-{model.stem}.json"))


def _tell(order: Order, out: Path) -> None:
    """Verifies, shows the tables and writes the file."""
    from pipeline.progress import CONSOLE, say
    from pipeline.steps.files import write_text
    from pipeline.verification.command import verify_order
    from pipeline.verification.table import lines, tables

    if out.is_dir():
        raise ValueError(f"out: expected the name of a JSON file, got a folder, {out}")
    told = verify_order(order)
    write_text(out, json.dumps(told, indent=1, allow_nan=False))
    for table in tables(told):
        CONSOLE.print(table)
    for line in lines(told):
        say(f"verify: {line}")
    say(f"verify: wrote {out}")


def _said(words: Sequence[str]) -> tuple[Path, list[Path], Path | None]:
    """Model, sets and other model: by place, or by name as in `model=a.onnx protocols=sets`.

    Raises:
        ValueError: If a word is unknown, or there is no model or no set.
    """
    named = {key: value for key, _, value in (word.partition("=") for word in words) if key in KEYS and value}
    rest = [word for word in words if word.partition("=")[0] not in KEYS]
    model = named.get("model") or (rest.pop(0) if rest else None)
    listed = named.get("protocols", "").strip("[]")
    protocols = [*(each.strip() for each in listed.split(",") if each.strip()), *rest]
    if model is None or not protocols:
        raise ValueError(f"expected a model and at least one verification set, got {' '.join(words) or 'nothing'}")
    return Path(model), [Path(each) for each in protocols], Path(named["against"]) if "against" in named else None
