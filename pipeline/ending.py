"""Endings: how every verb of `facemint` ends where it cannot go on: a line for each fault, and an exit code.

What is expected to go wrong has said what is wrong with its words; all else keeps its traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pipeline.progress import say

WRONG, FAILED, INTERRUPTED = 2, 1, 130  # a mistake in the words or the config; what stopped on its way; Ctrl-C

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def ended(debug: bool, failed: int = FAILED) -> Iterator[None]:
    """Ends the command with a line and an exit code where something that is expected to stop it does.

    Args:
        debug: Whether the traceback is shown, too.
        failed: Exit code of what is neither a mistake in the config nor Ctrl-C.
    """
    try:
        yield
    except expected() as error:
        if debug:
            traceback.print_exception(error)
        raise typer.Exit(_told(error, failed)) from None


def expected() -> tuple[type[BaseException], ...]:
    """What may stop a command and has said enough with its words; imported when something does."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from pipeline.runners import GaveUpError, StallError, StationError

    of_runners = (StationError, GaveUpError, StallError)
    of_words = (HydraException, OmegaConfBaseException)
    return (ValueError, OSError, MemoryError, *_of_gpus(), *of_runners, *of_words, KeyboardInterrupt)


def _of_gpus() -> tuple[type[BaseException], ...]:
    """A GPU that is full, where anybody has imported torch: only then can it have been."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError,)


def _told(error: BaseException, failed: int) -> int:
    """Says what stopped the command, and gives the exit code for it. What Ctrl-C carries is how to go on."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from pipeline.preflight import ConfigError

    if isinstance(error, KeyboardInterrupt):
        say("; ".join(["interrupted", *map(str, error.args)]))
        return INTERRUPTED
    room = "; smaller batches take less" if isinstance(error, (MemoryError, *_of_gpus())) else ""
    lines = error.problems if isinstance(error, ConfigError) else [_one_line(error) + room]
    for line in lines:
        print(f"facemint: {line}", file=sys.stderr)
    return WRONG if isinstance(error, ConfigError | HydraException | OmegaConfBaseException) else failed


def _one_line(error: BaseException) -> str:
    """The error's words on one line, without what Hydra and OmegaConf add about themselves."""
    told = str(error).split("\nConfig search path:")[0].splitlines()
    kept = [line for line in told if not line.strip().startswith(("full_key:", "object_type="))]
    return " ".join(" ".join(kept).split()) or repr(error)
