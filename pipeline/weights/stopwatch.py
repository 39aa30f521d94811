"""How long the parts of a work folder have taken, over all sittings, killed ones included."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from pipeline.steps.files import read_json, write_text


class Stopwatch:
    """Seconds of each part, in a file that is added to.

    Args:
        path: The file: {part: seconds}.
        every_s: Between writes, so much of a sitting is not counted if it is killed.
    """

    def __init__(self, path: Path, every_s: float = 15.0) -> None:
        self.path, self.every_s = path, every_s

    @property
    def seconds(self) -> Mapping[str, float]:
        """Of each part, in the order in which they were begun."""
        return read_json(self.path)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts the time until this ends, however it does."""
        before, started, ended = self.seconds, time.monotonic(), Event()

        def write() -> None:
            lasted = time.monotonic() - started
            write_text(self.path, json.dumps({**before, part: before.get(part, 0.0) + lasted}, indent=1))

        def keep_writing() -> None:
            while not ended.wait(self.every_s):
                write()

        writer = Thread(target=keep_writing, daemon=True)
        writer.start()
        try:
            yield
        finally:
            ended.set()
            writer.join()
            write()
