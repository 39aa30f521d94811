"""The command line, `facemint`: `run`, `check`, `train`, `verify`, `export`, `bin build`, `evaluate` and the rest."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pipeline.ending import WRONG, Debug, ended, expected
from pipeline.progress import CONSOLE, say
from pipeline.rundir import RunDir
from pipeline.verification.words import verify

CONF = Path(__file__).resolve().parents[1] / "conf"
FREE_WORDS = {"ignore_unknown_options": True}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A synthetic face-recognition dataset factory: from one config to a scored training set.",
)
bins = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Verification sets, .bin.")
app.add_typer(bins, name="bin", short_help="Builds a verification set, .bin.")
Words = Annotated[list[str] | None, typer.Argument(help="Hydra's words.", show_default=False)]


@app.command(context_settings=FREE_WORDS, short_help="Makes a dataset, trains, verifies, reports.")
def run(words: Words = None, debug: Debug = False) -> None:
    """Makes a dataset, trains on it, verifies and reports: all steps, or those asked for.

    \b
    Words are Hydra's: experiment=demo, people=500, generator=rendered, runner=local,
    run=DIR (the run directory), steps=[verify,report]. The same words go on where a run
    stopped. run=DIR of an existing run takes the words that it was begun with; new words win.
    -m makes a sweep: facemint run -m people=100,200,400
    --cfg job shows the config.
    """
    _hydra(words or [], debug, only_check=False)


@app.command(context_settings=FREE_WORDS, short_help="Lists all that would stop a run.")
def check(words: Words = None, debug: Debug = False) -> None:
    """Looks whether a run could begin, with the words that `run` takes, and lists all that is wrong."""
    _hydra(words or [], debug, only_check=True)


QUICK = {"people": "12", "images_per_identity": "4", "chunk_people": "4", "steps": "[1,2]", "steps_people": "6"}


@app.command(context_settings=FREE_WORDS, short_help="Measures a generator against the truth.")
def evaluate(
    words: Words = None,
    quick: Annotated[bool, typer.Option("--quick", help="A dozen people: does everything fit together?")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the figures to this Markdown file, too.")] = None,
    debug: Debug = False,
) -> None:
    """Measures a generator on people that nobody was trained on, beside renders of the same people: one page.

    \b
    Words are Hydra's: generator=rendered, people=1000, images_per_identity=8, seed=0,
    sampler=population (people drawn, instead of unseen people of the world),
    generator@truth=close_up (what the renders beside it are framed like),
    training=FOLDER (of the renders it has learnt), runner=local, run=DIR.
    Pictures are kept in run=DIR: the same words measure again without making them again.
    """
    words = words or []
    said = {_key(word) for word in words}
    small = [f"{name}={value}" for name, value in QUICK.items() if quick and name not in said]
    _evaluate([*words, *small], debug, markdown)


@app.command(short_help="Puts the scores of runs side by side.")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", exists=True, file_okay=False)],
    over: Annotated[str | None, typer.Option(metavar="KEY", help="A config key in which they differ.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw them over that key: .html, a page; .svg, the picture.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    debug: Debug = False,
) -> None:
    """Puts the scores of runs side by side.

    \b
    The runs of a sweep, over what was swept, with a picture of accuracy, identity and variety:
    facemint compare runs/sources/*=* --over sampler._target_ --page sources.html
    """
    from benchmarks.report import Swept, write_over
    from benchmarks.report import compare as side_by_side
    from pipeline.sweep import values_of

    scores = {str(run): run / "scores.json" for run in runs}
    with ended(debug, failed=WRONG):  # nothing is made: all that can be wrong is what was asked for
        if page is not None and over is None:
            raise ValueError(f"page: expected --over KEY, which {page} is drawn over, got none")
        for run in map(RunDir, runs):
            if not (run.config.is_file() or run.scores.is_file()):
                raise ValueError(f"expected a run directory, with {run.config}, found no such file")
        swept = None if over is None else Swept(over, values_of([RunDir(run) for run in runs], over))
        table = side_by_side(scores, swept)
        if page is not None and swept is not None:
            write_over(page, scores, swept)
        if markdown:
            say(table.markdown())
        else:
            CONSOLE.print(table.table())
        if page is not None:
            say(f"compare: wrote {page}")


@app.command(short_help="Writes a run's pictures in a format that the field reads.")
def export(
    source: Annotated[str, typer.Argument(help="run=NAME, or the place of any labelled set.", show_default=False)],
    to: Annotated[str, typer.Option(help="rec, folder, hf or train-shards.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where it goes; default of a run: export/TO in it.")] = None,
    layout: Annotated[str, typer.Option(help="Of rec: insightface or headerless.")] = "insightface",
    shards: Annotated[int | None, typer.Option(help="Of train-shards; default: one for 10,000 pictures.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of train-shards.")] = 0,
    debug: Debug = False,
) -> None:
    """Writes the kept pictures of a finished run, or any labelled set, in another format; JPEG bytes unchanged.

    \b
    facemint export run=demo --to rec                   train.rec, train.idx, property, train.lst
    facemint export run=demo --to hf --out FOLDER       Parquet and a card: datasets.load_dataset(FOLDER)
    facemint export run=demo --to train-shards --shards 64     mixed tars and sizes.json
    facemint export faces/train.rec --to folder --out FOLDER   a .rec taken apart: FOLDER/000123/00000017.jpg
    """
    from pipeline.export import Form, source_of
    from pipeline.export import export as write_export

    with ended(debug):
        write_export(source_of(source), Form(to, layout, shards, seed), out)


@bins.command(name="build", short_help="Builds a verification set from aligned pictures.")
def build(
    source: Annotated[
        Path, typer.Argument(help="A subfolder for each identity, crops of 112x112.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.bin", help="The set.", show_default=False)],
    pairs: Annotated[int | None, typer.Option(help="How many are drawn, half of one person; default: 6000.")] = None,
    folds: Annotated[int, typer.Option(help="Disjoint in people.")] = 10,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    pairs_file: Annotated[Path | None, typer.Option(metavar="FILE", help="LFW's pairs.txt instead.")] = None,
    unaligned_ok: Annotated[bool, typer.Option("--unaligned-ok", help="Whatever their alignment.")] = False,
    debug: Debug = False,
) -> None:
    """Builds a verification set that insightface reads, with a JSON beside it: pairs, folds, people, alignment.

    \b
    facemint bin build faces/ faces.bin --pairs 6000 --folds 10 --seed 0
    facemint bin build lfw_112/ lfw.bin --pairs-file pairs.txt
    """
    from pipeline.bin_build import Wanted, build_bin

    with ended(debug):
        build_bin(source, out, Wanted(pairs, folds, seed, pairs_file, unaligned_ok))


app.command(short_help="Scores a model on verification sets.")(verify)


@app.command(short_help="Trains the bundled models.")
def weights(
    out: Annotated[Path | None, typer.Option(help="Where they go; default: generation/weights.")] = None,
    work: Annotated[Path, typer.Option(help="Renders and checkpoints; what is there is not made again.")] = Path(
        "runs/weights"
    ),
    workers: Annotated[int, typer.Option(help="Processes at a time.", min=1)] = 2,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    debug: Debug = False,
) -> None:
    """Trains the bundled models on renders, on a CPU or a GPU; goes on where it stopped."""
    from generation.weights import FOLDER
    from pipeline.weights.make import make_weights

    with ended(debug):
        make_weights(out or FOLDER, work, workers=workers, device=device, say=say)


@app.command(context_settings=FREE_WORDS, short_help="Trains the bundled generator's denoiser alone.")
def train_generator(words: Words = None, debug: Debug = False) -> None:
    """Trains the denoiser on the renders and latents that `facemint weights` has made, with losses of your choice.

    \b
    Words are Hydra's, over conf/train_generator.yaml: work=DIR run=DIR, device=cuda,
    recipe.partial_dropout=0.25, recipe.prediction=epsilon, recipe.min_snr_gamma=5,
    recipe.identity_term=triplet, start=DIR (of another training, whose average it begins from).
    The same words go on where a training stopped. Under torchrun:
    torchrun --nproc-per-node 2 -m pipeline.cli train-generator work=DIR run=DIR
    """
    _train_generator(words or [], debug)


@app.command(context_settings=FREE_WORDS, short_help="Trains the bundled generator on, by its own pictures.")
def tune_generator(words: Words = None, debug: Debug = False) -> None:
    """Trains a generator on, by the pictures that it draws: who and what is seen in them, beside renders.

    \b
    Words are Hydra's, over conf/tune_generator.yaml: work=DIR (renders; what is there is not made again), run=DIR,
    start=FILE (another generator than the bundled one), device=cuda, recipe.steps=1000, recipe.drawn_steps=2.
    The same words go on where a training stopped. Under torchrun:
    torchrun --nproc-per-node 2 -m pipeline.cli tune-generator work=DIR run=DIR
    """
    _tune_generator(words or [], debug)


@app.command(context_settings=FREE_WORDS, short_help="Trains a recogniser on any labelled pictures.")
def train(words: Words = None, debug: Debug = False) -> None:
    """Trains a recogniser on labelled pictures, whoever made them, and writes it as PyTorch and ONNX.

    \b
    Words are Hydra's, over conf/train.yaml: data=DIR_OR_REC (a run, shards, a .rec, an image folder, a Hugging Face
    dataset), trainer=ir50_adaface (conf/trainer/), out=DIR, trainer.epochs=30, device=cuda,
    stream=true, log=tensorboard, protocols.folder=DIR protocols.every=2 (scored while it trains).
    The same words go on where a training stopped. Under torchrun:
    torchrun --nproc-per-node 8 -m pipeline.cli train data=DIR out=DIR; on Ray Train: ray.workers=2
    """
    _train(words or [], debug)


def _hydra(words: Sequence[str], debug: bool, only_check: bool) -> None:
    """Runs, or only checks, with these words."""
    from hydra._internal.utils import get_args_parser
    from omegaconf import DictConfig

    from pipeline import factory

    mine = get_args_parser().parse_args(list(words)).overrides
    anew = any(_key(word) == "steps" for word in mine)
    flags = [word for word in words if word not in mine]

    def task(cfg: DictConfig) -> float | None:
        return factory.run(cfg, anew=anew, only_check=only_check)

    _compose("config", ["run", *flags, *_remembered(mine), *mine], task, debug)


def _train_generator(words: Sequence[str], debug: bool) -> None:
    """Trains the denoiser with these words."""
    from omegaconf import DictConfig

    def task(cfg: DictConfig) -> None:
        from pipeline.weights.alone import train_alone

        train_alone(cfg)

    _compose("train_generator", ["train-generator", *words], task, debug)


def _tune_generator(words: Sequence[str], debug: bool) -> None:
    """Trains a generator on with these words."""
    from omegaconf import DictConfig

    def task(cfg: DictConfig) -> None:
        from pipeline.weights.tuning import tune_alone

        tune_alone(cfg)

    open_words = [f"++{word}" if word.startswith("recipe.") else word for word in words]  # the file names few
    _compose("tune_generator", ["tune-generator", *open_words], task, debug)


def _train(words: Sequence[str], debug: bool) -> None:
    """Trains a recogniser with these words."""
    from omegaconf import DictConfig

    def task(cfg: DictConfig) -> None:
        from pipeline.train_alone import train_alone

        train_alone(cfg)

    # A recipe's file names some of its fields: the others may be said, too, and whatever is none is refused by name.
    open_words = [f"++{word}" if word.startswith("trainer.") else word for word in words]
    _compose("train", ["train", *open_words], task, debug)


def _evaluate(words: Sequence[str], debug: bool, markdown: Path | None) -> None:
    """Evaluates with these words."""
    from omegaconf import DictConfig

    def task(cfg: DictConfig) -> None:
        from pipeline.evaluate.command import evaluate

        evaluate(cfg, markdown)

    _compose("evaluate", ["evaluate", *words], task, debug)


def _compose(config: str, words: Sequence[str], task: Callable[[Any], Any], debug: bool) -> None:
    """Gives Hydra's own entry the words after the verb, and the composed config to the task."""
    import hydra
    from omegaconf import DictConfig

    from pipeline import factory

    _log_to_the_console()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its errors to us, and we say them in one line
    stopped: list[BaseException] = []

    def guarded(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except expected() as error:
            if isinstance(error, KeyboardInterrupt):
                error.args = (_how_to_go_on(words[0], factory.where(), factory.in_a_sweep()),)
            factory.leave_no_trace(factory.where())
            if factory.in_a_sweep():
                raise
            stopped.append(error)  # Hydra would add lines of its own
        return None

    before = sys.argv
    sys.argv = ["facemint", *words[1:]]
    with ended(debug):
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config)(guarded)()
        finally:
            sys.argv = before
        if stopped:
            raise stopped[0]


def _how_to_go_on(verb: str, folder: Path, in_a_sweep: bool) -> str:
    """A run remembers its words; whatever else is begun again with the same ones goes on, too."""
    if verb == "run" and not in_a_sweep:
        return f"facemint run run={folder} goes on from here"
    return f"the same words go on in {folder}"


def _key(word: str) -> str:
    """What an override overrides: `people` of `people=10`, `+people=10`, `~people`."""
    return word.split("=", 1)[0].lstrip("+~")


def _remembered(words: Sequence[str]) -> list[str]:
    """The words that an existing run was begun with, less those that are said again."""
    places = [word.split("=", 1)[1] for word in words if _key(word) == "run" and "=" in word]
    if not places:
        return []
    run = RunDir(Path(places[-1]))
    if not run.overrides.is_file():
        return []
    said = {_key(word) for word in words}
    old = [word for word in yaml.safe_load(run.overrides.read_text()) or [] if _key(word) not in said]
    if old:
        say(f"run {run.root} goes on with the words that it was begun with: {' '.join(old)}")
    return old


class _Console(logging.Handler):
    """Log lines of the pipeline, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _log_to_the_console() -> None:
    logger = logging.getLogger("pipeline")
    if not logger.handlers:
        logger.addHandler(_Console())
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    app()
