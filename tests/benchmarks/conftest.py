from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.small_run import build_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build_run(tmp_path / "run")
