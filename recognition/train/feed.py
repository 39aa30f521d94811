"""Micro-batches made ready by a thread while the network computes: gathered, and pinned where there is a GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import torch
from torch import Tensor

from recognition.train.pictures import Unit

AHEAD = 4  # micro-batches made ready at most


class Feed:
    """Tensors on a device, one micro-batch ahead of the network or more: `with Feed(units, device) as feed:`.

    What the units raise is raised where the micro-batch would have come.

    Args:
        units: The micro-batches; read in a thread of its own.
        device: Where they are wanted.
    """

    def __init__(self, units: Iterator[Unit], device: torch.device) -> None:
        self.units, self.device = units, device
        self.ready: queue.Queue[tuple[Tensor, Tensor] | BaseException | None] = queue.Queue(AHEAD)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._fill, name="feed", daemon=True)

    def __enter__(self) -> Feed:
        self.thread.start()
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            item = self.ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            images, labels = item
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        while self.thread.is_alive():  # it may wait for room
            try:
                self.ready.get(timeout=0.01)
            except queue.Empty:
                continue
        close = getattr(self.units, "close", None)
        if close is not None:
            close()

    def _fill(self) -> None:
        try:
            for images, labels in self.units:
                pair = torch.from_numpy(images), torch.from_numpy(labels)
                if self.device.type == "cuda":
                    pair = pair[0].pin_memory(), pair[1].pin_memory()
                if not self._put(pair):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that trains)
            self._put(error)

    def _put(self, item: tuple[Tensor, Tensor] | BaseException | None) -> bool:
        """Whether it was taken before the feed was stopped."""
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
