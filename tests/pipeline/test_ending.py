"""How commands end where they cannot go on: lines, exit codes, Ctrl-C, and the traceback for those who ask."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from hydra.errors import InstantiationException
from torch import OutOfMemoryError

from pipeline.ending import FAILED, INTERRUPTED, WRONG, ended
from pipeline.preflight import ConfigError
from pipeline.runners import StallError
from tests.pipeline.conftest import facemint

NOWHERE = "/nowhere"  # a place that no command finds anything in


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("faces: expected some,\n got none"), FAILED, ["faces: expected some, got none"]),
        (FileNotFoundError(2, "No such file or directory", "a.bin"), FAILED, ["No such file or directory: 'a.bin'"]),
        (StallError("nothing finished"), FAILED, ["nothing finished"]),
        (ConfigError(["people: none", "seed: none"]), WRONG, ["people: none", "seed: none"]),
        (InstantiationException("no part\nfull_key: sampler"), WRONG, ["no part"]),
        (TimeoutError(), FAILED, ["TimeoutError()"]),
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            FAILED,
            ["Tried to allocate 2 GiB; smaller batches take less"],
        ),
    ],
)
def test_what_is_expected_to_go_wrong_is_a_line_for_each_fault_and_a_code(
    error: BaseException, code: int, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as stopped, ended(debug=False):
        raise error
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.exit_code == code
    assert len(lines) == len(told)
    assert all(line.startswith("facemint: ") and line.endswith(end) for line, end in zip(lines, told, strict=True))


def test_ctrl_c_is_no_fault_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped, ended(debug=False):
        raise KeyboardInterrupt("the same words go on")
    assert stopped.value.exit_code == INTERRUPTED
    told = capsys.readouterr()
    assert (told.out, told.err) == ("interrupted; the same words go on\n", "")


def test_what_nobody_expects_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), ended(debug=False):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "words",
    [
        ("run", "steps=[sampel]", "run={tmp}/run"),
        ("train", f"data={NOWHERE}", "out={tmp}/out"),
        ("train-generator", f"work={NOWHERE}", "run={tmp}/run"),
        ("evaluate", "people=1", "run={tmp}/run"),
        ("verify", f"{NOWHERE}.onnx", NOWHERE),
        ("compare", "{tmp}", "--over", "seed"),
        ("export", NOWHERE, "--to", "rec", "--out", "{tmp}/out"),
        ("bin", "build", NOWHERE, "{tmp}/faces.bin"),
        ("weights", "--work", "{tmp}", "--device", "cpu"),  # where another recipe's work is
    ],
    ids=lambda words: words[0],
)
def test_every_verb_says_its_fault_in_a_line_and_shows_the_traceback_for_debug(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    said = [word.format(tmp=tmp_path) for word in words]
    plain = facemint(*said)
    assert plain.exit_code in (FAILED, WRONG), plain.output
    assert plain.stderr.startswith("facemint: ")
    assert "Traceback" not in plain.stderr
    shown = facemint(*said, "--debug")
    assert shown.exit_code == plain.exit_code
    assert shown.stderr.startswith("Traceback")
    assert shown.stderr.endswith(plain.stderr)
