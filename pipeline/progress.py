"""Progress: a live bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

CONSOLE = Console(highlight=False, soft_wrap=True)
PLAIN_EVERY_S = 5.0


def say(line: str) -> None:
    """Prints a line above the bar, if there is one; bytes of a file's name that are no text, as escapes."""
    CONSOLE.print(line.encode("utf-8", "backslashreplace").decode(), markup=False)


class Watch:
    """Shows how far a piece of work is: `with Watch("make", 2048, "pictures") as watch: watch.advance(16)`.

    Args:
        label: What is being done.
        total: How much there is to do.
        unit: Of what, in the plural.
        quiet: Whether nothing is said: of all processes that do the same, one speaks.
    """

    def __init__(self, label: str, total: int, unit: str, quiet: bool = False) -> None:
        self.quiet = quiet
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def __enter__(self) -> Watch:
        self.started = self.told = time.monotonic()
        if CONSOLE.is_terminal and not self.quiet:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]}")
            self.bar = Progress(
                *columns, TextColumn("time left"), TimeRemainingColumn(), console=CONSOLE, transient=True
            )
            self.task = self.bar.add_task(self.label, total=self.total, rate="")
            self.bar.start()
        return self

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.bar is not None:
            self.bar.update(self.task, advance=amount, rate=f"{self.rate:.1f} {self.unit}/s")
        elif not self.quiet and time.monotonic() - self.told >= PLAIN_EVERY_S:
            self.told = time.monotonic()
            left_s = (self.total - self.done) / self.rate
            say(f"{self.label}: {self.done} of {self.total} {self.unit}, {self.rate:.1f}/s, {left_s:.0f} s left")

    def reach(self, done: int) -> None:
        """Says how much is done in all."""
        self.advance(done - self.done)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.quiet:
            return
        took_s = time.monotonic() - self.started
        ending = "" if kind is None else ", cut short"
        say(f"{self.label}: {self.done} of {self.total} {self.unit} in {took_s:.1f} s, {self.rate:.1f}/s{ending}")
