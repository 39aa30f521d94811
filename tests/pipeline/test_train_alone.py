"""`facemint train`: any labelled pictures, in one process or on Ray; and what stands there when it cannot begin."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from insightface.model_zoo import get_model
from PIL import Image

from benchmarks.bins import write_bin
from recognition.formats import write_shard
from recognition.train import CHECKPOINT, Recipe, load_trained
from recognition.train.logs import JSONL
from recognition.train.memory_map import opened
from tests.pipeline.conftest import facemint
from tests.recognition.train.conftest import faces
from tests.recognition.train.test_memory_map import samples_of

QUICK = ("trainer.epochs=2", "trainer.warmup_epochs=0", "trainer.batch_size=8", "trainer.threads=1", "device=cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people of twelve pictures each, in two tars."""
    folder, samples = tmp_path_factory.mktemp("shards"), samples_of(4, 12)
    for number in (0, 1):
        write_shard(folder / f"{number:06d}.tar", samples[number::2])
    return folder


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A training, scored on the way, and what it printed. Not to be written to."""
    folder = tmp_path_factory.mktemp("train")
    jpegs = [sample.jpeg for sample in samples_of(20, 2, seed=1)]
    (folder / "sets").mkdir()
    write_bin(folder / "sets" / "toy.bin", jpegs, np.arange(20) % 2 == 0)
    words = (f"data={shards}", f"out={folder / 'out'}", f"protocols.folder={folder / 'sets'}", "protocols.every=2")
    result = facemint("train", *words, *QUICK)
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def told(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())


def test_it_leaves_checkpoint_onnx_and_what_it_did(finished: tuple[Path, str], shards: Path) -> None:
    folder, printed = finished
    assert {path.name for path in folder.iterdir()} >= {CHECKPOINT, JSONL, "train.json", "recogniser.onnx", "crops"}
    said = told(folder)
    assert (said["images"], said["identities"], said["processes"], said["chosen"]) == (48, 4, 1, "the last epoch")
    assert said["recipe_sha256"] == Recipe(epochs=2, warmup_epochs=0, batch_size=8, threads=1).sha256
    assert said["recipe"]["backbone"] == "iresnet_tiny"
    assert len(said["losses"]) == 2
    assert said["recipe_sha256"][:12] in printed
    assert "48 pictures of 4 people, 1 processes on cpu; the result is the last epoch" in printed


def test_the_protocols_are_told_and_choose_nothing(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    (row,) = told(folder)["protocols"]
    assert row["epoch"] == 2
    assert f"epoch 2: toy {100 * row['toy']:.2f} %" in printed


def test_insightface_reads_its_onnx_and_torch_its_checkpoint(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    crops = faces(4, 1)[0]
    reader = get_model(str(folder / "recogniser.onnx"), providers=["CPUExecutionProvider"])
    recipe = Recipe(epochs=2, warmup_epochs=0, batch_size=8, threads=1)
    model = load_trained(folder, recipe).model
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    with torch.inference_mode():
        expected = model(x).numpy()
    ours = reader.get_feat([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops])
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_the_same_words_again_train_nothing(finished: tuple[Path, str], shards: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    before = (out / CHECKPOINT).stat().st_mtime_ns
    result = facemint("train", f"data={shards}", f"out={out}", *QUICK)
    assert result.exit_code == 0, result.output
    assert "is up to date" in result.output
    assert (out / CHECKPOINT).stat().st_mtime_ns == before
    assert told(out)["losses"] == told(finished[0])["losses"]


def test_an_image_folder_and_a_stream_of_it_train_too(tmp_path: Path) -> None:
    for row, (crop, label) in enumerate(zip(*faces(4, 6), strict=True)):
        folder = tmp_path / "people" / f"person_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(folder / f"{row}.png")
    words = (f"data={tmp_path / 'people'}", *QUICK, "trainer.epochs=1", "workers=1")
    for extra, out in (("stream=false", "mapped"), ("stream=true", "streamed")):
        result = facemint("train", *words, extra, f"out={tmp_path / out}")
        assert result.exit_code == 0, result.output
        assert told(tmp_path / out)["images"] == 24
    assert opened(tmp_path / "mapped" / "crops") is not None
    assert not (tmp_path / "streamed" / "crops").exists()


@pytest.mark.usefixtures("ray_session")
def test_two_workers_of_ray_train_do_what_one_process_with_two_micro_batches_does(shards: Path, tmp_path: Path) -> None:
    # A rate so low that rounding stays rounding: at 0.1, one process whose first weights differ by 6e-8 ends 1e-2 away.
    words = (f"data={shards}", *QUICK, "trainer.precision=fp32", "trainer.peak_lr=0.001")
    two = facemint("train", *words, f"out={tmp_path / 'two'}", "ray.workers=2")
    assert two.exit_code == 0, two.output
    one = facemint("train", *words, f"out={tmp_path / 'one'}", "trainer.accumulate=2")
    assert one.exit_code == 0, one.output
    assert told(tmp_path / "two")["processes"] == 2
    np.testing.assert_allclose(told(tmp_path / "two")["losses"], told(tmp_path / "one")["losses"], rtol=1e-6)
    assert (tmp_path / "two" / "recogniser.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data=nowhere",), "data: "),
        ((), "data: expected a run directory, shards, a .rec, an image folder or a Hugging Face dataset, got none"),
        (("log=wandb",), "log: expected wandb to be installed (pip install wandb), found no such module"),
        (("log=paper",), "log: expected one of none, tensorboard, wandb, got 'paper'"),
        (("trainer.precision=fp16",), "trainer.precision: expected bf16 or fp32 on a CPU, got fp16"),
        (("trainer.dropout=1.5",), "trainer: Recipe.dropout: expected a value in [0, 1), got 1.5"),
        (("trainer.speed=9",), "trainer: expected arguments of recognition.train.Recipe"),
        (("protocols.every=0",), "protocols.every: expected a whole number of at least 1, got 0"),
        (("protocols.folder=nowhere",), "protocols.folder: expected a folder of *.bin files"),
        (("ray.workers=5",), "trainer.batch_size: expected a multiple of 5 processes x 1 micro-batches, got 8"),
    ],
)
def test_what_cannot_begin_says_why_before_anything_is_decoded(
    words: tuple[str, ...], said: str, shards: Path, tmp_path: Path
) -> None:
    data = () if any(word.startswith("data=") for word in words) or not words else (f"data={shards}",)
    result = facemint("train", *data, *QUICK, f"out={tmp_path / 'out'}", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (tmp_path / "out" / "crops").exists()


def test_pictures_of_one_person_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "000000.tar", samples_of(1, 4))
    result = facemint("train", f"data={tmp_path}", f"out={tmp_path / 'out'}", *QUICK)
    assert result.exit_code == 2
    assert "data: labels: expected at least 2 classes, got 1" in result.stderr
