"""`facemint verify`: from words to tables and a JSON file, for models and sets of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bins import write_bin
from benchmarks.people import write_people
from benchmarks.protocols import load_protocol
from generation.weights import FOLDER
from pipeline.protocols import WorldProtocols
from pipeline.runners.local import Local
from pipeline.verification.command import Order, verify_order
from pipeline.verification.table import tables
from tests.benchmarks.test_bins import picture
from tests.benchmarks.test_models import toy_onnx
from tests.pipeline.conftest import facemint

PAIRS = 40


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets: `easy`, whose genuine pairs are one picture twice, with people; `hard`, of noise, without."""
    folder = tmp_path_factory.mktemp("sets")
    same = np.arange(PAIRS) % 2 == 0
    people = np.stack([np.arange(PAIRS), np.where(same, np.arange(PAIRS), 1000 + np.arange(PAIRS))], axis=1)
    write_bin(folder / "easy.bin", [picture(int(person)) for person in people.reshape(-1)], same)
    write_people(folder / "easy.bin", people.reshape(-1).tolist())
    write_bin(folder / "hard.bin", [picture(i) for i in range(2 * PAIRS)], same)
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return toy_onnx(tmp_path / "toy.onnx")


def test_a_model_is_scored_on_a_folder_of_sets_with_all_that_made_the_score(
    toy: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    result = facemint("verify", str(toy), str(sets), "--out", str(out))
    assert result.exit_code == 0, result.output
    told = json.loads(out.read_text())
    assert (told["protocol"], told["chosen_on"], told["flip"]) == ("insightface-v1", None, True)
    assert told["protocols"]["easy"]["accuracy"] > 0.9 > told["protocols"]["hard"]["accuracy"]
    assert told["protocols"]["easy"]["interval95_by"].startswith("bootstrap over people")
    assert told["protocols"]["hard"]["interval95_by"].startswith("bootstrap over pairs")
    assert told["mean_accuracy"] == pytest.approx(np.mean([each["accuracy"] for each in told["protocols"].values()]))
    assert len(told["model"]["sha256"]) == len(told["sets"]["easy"]["sha256"]) == 64
    assert told["model"]["provider"] == "CPUExecutionProvider"
    assert {"processor", "cores", "onnxruntime"} <= told["hardware"].keys()
    for words in ("insightface-v1, in %", "insufficient data", "the last epoch is scored, by rule", f"wrote {out}"):
        assert words in result.output


def test_words_may_be_named_as_in_a_config(toy: Path, sets: Path, tmp_path: Path) -> None:
    words = [f"model={toy}", f"protocols=[{sets / 'easy.bin'},{sets / 'hard.bin'}]", f"against={toy}"]
    result = facemint("verify", *words, "--out", str(tmp_path / "told.json"))
    assert result.exit_code == 0, result.output
    assert "the model and the other not distinguishable: gap of +0.00 points [+0.00, +0.00]" in result.output
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["verdict"]["protocols"]["easy"]["mcnemar_p"] == 1
    assert list(told["against"]["protocols"]) == ["easy", "hard"]


def test_coverage_is_shown_where_pairs_miss_a_picture(toy: Path, sets: Path) -> None:
    told = verify_order(Order(toy, [sets / "easy.bin"]))
    assert "coverage" not in [column.header for column in next(tables(told)).columns]
    told["protocols"]["easy"]["coverage"] = 0.5
    shown = {column.header: list(column.cells) for column in next(tables(told)).columns}
    assert shown["coverage"] == ["50.0"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--backbone", "iresnet50"), "got iresnet50 with {0}"),
        (("--against-backbone", "iresnet18"), "got iresnet18 with no model"),
        (("against={0}", "--against-backbone", "iresnet18"), "got iresnet18 with {0}"),
    ],
)
def test_a_backbone_that_no_weights_need_is_refused(toy: Path, sets: Path, words: tuple[str, ...], found: str) -> None:
    result = facemint("verify", str(toy), str(sets), *(word.format(toy) for word in words))
    assert result.exit_code == 1
    expected = "facemint: backbone: expected with .pt, .pth, .ckpt, .safetensors alone, "
    assert result.stderr == f"{expected}{found.format(toy)}\n"


def test_a_score_that_was_chosen_on_a_set_is_marked(sets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "epochs"
    folder.mkdir()
    toy_onnx(folder / "epoch_1.onnx")
    shutil.copy(FOLDER / "embedder_b.onnx", folder / "epoch_2.onnx")
    refused = facemint("verify", str(folder), str(sets))
    assert refused.exit_code == 1
    assert "The last epoch is scored by rule" in refused.stderr
    result = facemint("verify", str(folder), str(sets), "--choose-on", "easy", "--out", str(tmp_path / "told.json"))
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["chosen_on"] == "easy"
    assert "chosen on easy: not a test score" in told["checkpoint"]
    best = max(told["candidates"], key=told["candidates"].get)
    assert told["model"]["file"].endswith(best)
    assert told["protocols"]["easy"]["accuracy"] == told["candidates"][best]
    assert "easy (chosen on)" in result.output
    assert "checkpoint: chosen on easy" in result.output


def test_the_whole_pipeline_is_timed_when_asked_for(world: Path, tmp_path: Path) -> None:
    out, faces = tmp_path / "told.json", tmp_path / "faces.bin"
    shutil.copy(world / "wild.bin", faces)
    result = facemint("verify", str(FOLDER / "embedder_a.onnx"), str(faces), "--fruits", "--out", str(out))
    assert result.exit_code == 0, result.output
    told = json.loads(out.read_text())["fruits"]["faces"]
    assert set(told["times"]) == {"detect", "align", "embed", "match", "whole"}
    assert set(told["under"]) == {"100_ms", "500_ms", "1000_ms"}
    assert "FRUITS" in result.output


WILD = WorldProtocols(["wild"], pairs=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders of 20 pairs, in which the bundled detector finds faces. Not to be written to."""
    folder = tmp_path_factory.mktemp("world")
    WILD.prepare(folder, Local())
    return folder


def test_the_worlds_protocols_know_their_people(world: Path, tmp_path: Path) -> None:
    before = Path(shutil.copytree(world, tmp_path / "world"))
    protocol = load_protocol(before / "wild.bin")
    assert protocol.people is not None
    np.testing.assert_array_equal(protocol.people[:, 0] == protocol.people[:, 1], protocol.same)
    (before / "wild.people.json").unlink()  # of a run before people were written down
    WILD.prepare(before, Local())
    again = load_protocol(before / "wild.bin")
    np.testing.assert_array_equal(again.people, protocol.people)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{toy}"], "expected a model and at least one verification set"),
        (["{toy}", "nowhere"], "nowhere: expected a verification set, found nothing"),
        (["gone.onnx", "{sets}"], "gone.onnx: expected a model, a run directory"),
        (["{sets}/easy.bin", "{sets}"], "easy.bin: expected a name ending in .onnx"),
        (["{toy}", "{sets}", "{sets}/easy.bin"], "protocols: expected each name once, got easy more than once"),
        (["{toy}", "{sets}", "--ijb", "N2D0F1"], "ijb: expected some of N1D1F1"),
        (
            ["{toy}", "{sets}", "--choose-on", "lfw"],
            "expected one of the sets of pairs, easy, hard, got 'lfw'",
        ),
        (["{toy}", "{sets}", "--choose-on", "easy"], "choose-on: expected a folder of checkpoints to choose from"),
        (["{toy}", "{sets}", "--out", "{sets}"], "out: expected the name of a JSON file, got a folder, "),
        (["{toy}", "{sets}", "--folds", "3"], "folds: expected with lists of pairs alone, got easy, hard"),
        (["{toy}", "{sets}", "--folds", "0"], "folds: expected at least 2, got 0"),
        (["{toy}", "{sets}", "--device", "tpu"], "device: expected cpu or cuda, got 'tpu'"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, toy: Path, sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "told.json"
    result = facemint("verify", "--out", str(out), *(word.format(toy=toy, sets=sets) for word in words))
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()
