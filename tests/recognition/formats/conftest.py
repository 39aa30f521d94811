"""What tests of the formats share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_power_cuts() -> Iterator[None]:
    """Waiting for the disk takes most of the time of a small file. Tests of a fault in `fsync` put their own in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
