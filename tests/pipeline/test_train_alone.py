"""`facemint train`: any labelled pictures, in one process or on Ray; and what stands there when it cannot begin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
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
from tests.pipeline.conftest import facemint, started
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


def image_folder(place: Path, people: int, each: int) -> Path:
    """PNG files, one subfolder each person."""
    for row, (crop, label) in enumerate(zip(*faces(people, each), strict=True)):
        folder = place / f"person_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(folder / f"{row}.png")
    return place


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
    assert said["seconds"] > 0
    assert said["recipe_sha256"][:12] in printed
    assert "48 pictures of 4 people, 1 processes on cpu; the result is the last epoch" in printed


def test_the_protocols_are_told_and_choose_nothing(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    (row,) = told(folder)["protocols"]
    assert row["epoch"] == 2
    assert f"epoch 2: toy {100 * row['toy']:.2f} %" in printed


def test_an_epoch_that_was_cut_short_in_scoring_is_scored_and_none_twice(
    finished: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    words = ("train", f"data={shards}", f"out={out}", f"protocols.folder={finished[0].parent / 'sets'}", *QUICK)
    scores = json.loads((out / "protocols.json").read_text())
    (out / "train.json").unlink()
    assert "epoch 2:" not in facemint(*words, "protocols.every=2").output
    (out / "train.json").unlink()
    (out / "protocols.json").unlink()
    assert "epoch 2:" in facemint(*words, "protocols.every=2").output
    assert json.loads((out / "protocols.json").read_text()) == scores
    assert told(out)["protocols"] == told(finished[0])["protocols"]


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


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(shards: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    (mine / "figures").mkdir(parents=True)
    for name in ("chapter.tex", "figures/one.png", "recogniser.onnx", "years.csv"):
        (mine / name).write_text("years of work")
    before = files(mine)
    result = facemint("train", f"data={shards}", f"out={mine}", *QUICK)
    assert result.exit_code == 2
    assert result.stderr == (
        f"facemint: out: {mine}: expected an empty folder or this very training's, found chapter.tex, figures, "
        "recogniser.onnx and 1 more; name another, or remove it\n"
    )
    assert "decode" not in result.stdout
    assert files(mine) == before


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (("trainer.epochs=1",), "recipe"),
        (("data={fewer}",), "set"),
        (("stream=true",), "stream"),
        (("start={out}/checkpoint.pt", "trainer.peak_lr=0.01"), "recipe and start"),
    ],
)
def test_a_training_makes_no_way_for_another(
    words: tuple[str, ...], differs: str, finished: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    out, fewer = Path(shutil.copytree(finished[0], tmp_path / "out")), tmp_path / "fewer.tar"
    write_shard(fewer, samples_of(4, 6))
    before = files(out)
    asked = (word.format(out=out, fewer=fewer) for word in words)
    result = facemint("train", f"data={shards}", f"out={out}", *QUICK, *asked)
    assert result.exit_code == 2
    assert f"facemint: out: {out}: expected an empty folder or this very" in result.stderr
    assert f"found a training that differs in {differs}; name another, or remove it\n" in result.stderr
    assert files(out) == before


def test_other_pictures_of_the_same_names_make_no_way_either(
    finished: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    out, data = Path(shutil.copytree(finished[0], tmp_path / "out")), tmp_path / "data"
    data.mkdir()
    for number in (0, 1):
        write_shard(data / f"{number:06d}.tar", samples_of(4, 12, seed=1)[number::2])
    before = files(out)
    words = (f"data={data}", f"out={out}", *QUICK)
    refused = facemint("train", *words)
    assert refused.exit_code == 1
    assert f"{out}: expected a training on the pictures of {data}, found one begun with others" in refused.stderr
    assert files(out) == before
    shutil.rmtree(out / "crops")  # so that nothing but the fingerprint tells
    refused = facemint("train", *words)
    assert refused.exit_code == 1
    assert "found a training that differs in inputs" in refused.stderr
    assert files(out).items() >= {name: there for name, there in before.items() if "crops/" not in name}.items()


def test_a_training_that_stopped_before_its_end_goes_on_in_its_folder(
    finished: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    for name in ("train.json", "recogniser.onnx"):
        (out / name).unlink()
    before = (out / CHECKPOINT).stat().st_mtime_ns
    result = facemint("train", f"data={shards}", f"out={out}", *QUICK)
    assert result.exit_code == 0, result.output
    assert (out / CHECKPOINT).stat().st_mtime_ns == before  # not an epoch was trained again
    assert told(out)["weights_sha256"] == told(finished[0])["weights_sha256"]


def test_ctrl_c_says_how_to_go_on_and_the_same_words_go_on_to_the_same_weights(
    finished: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("train", f"data={shards}", f"out={out}", "checkpoint_steps=1", *QUICK)
    driver = started(*words)
    while not (out / CHECKPOINT).exists():
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert said.splitlines()[-1] == f"interrupted; the same words go on in {out}"
    assert not (out / "train.json").exists()
    result = facemint(*words)
    assert result.exit_code == 0, result.output
    assert told(out)["weights_sha256"] == told(finished[0])["weights_sha256"]


def test_a_training_that_stopped_at_a_broken_picture_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    people = image_folder(tmp_path / "people", 4, 4)
    broken = people / "person_3" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    words = (f"data={people}", f"out={tmp_path / 'out'}", *QUICK, "trainer.epochs=1", "workers=1")
    stopped = facemint("train", *words)
    assert stopped.exit_code == 1
    assert "picture person_3/3.png: " in stopped.stderr
    broken.write_bytes(whole)
    result = facemint("train", *words)
    assert result.exit_code == 0, result.output
    assert told(tmp_path / "out")["images"] == 16


def test_an_image_folder_and_a_stream_of_it_train_too(tmp_path: Path) -> None:
    words = (f"data={image_folder(tmp_path / 'people', 4, 6)}", *QUICK, "trainer.epochs=1", "workers=1")
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


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainer.peak_lr=1e30",), "facemint: loss: expected a finite number, got "),
        (("device=null", "ray.num_gpus=64"), "facemint: ray: expected a machine with 128 GPUs for 2 workers, found "),
    ],
)
def test_what_stops_ray_train_is_one_line(words: tuple[str, ...], said: str, shards: Path, tmp_path: Path) -> None:
    result = facemint("train", f"data={shards}", *QUICK, f"out={tmp_path / 'out'}", "ray.workers=2", *words)
    assert result.exit_code == 1, result.output
    assert [line[: len(said)] for line in result.stderr.splitlines() if line.startswith("facemint: ")] == [said]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data=nowhere",), "data: "),
        ((), "data: expected a run directory, shards, a .rec, an image folder or a Hugging Face dataset, got none"),
        (("log=wandb",), "log: expected wandb to be installed (pip install wandb), found no such module"),
        (("log=paper",), "log: expected one of none, tensorboard, wandb, got 'paper'"),
        (("trainer.precision=fp16",), "trainer.precision: expected bf16 or fp32 on a CPU, got fp16"),
        (("trainer.dropout=1.5",), "trainer: Recipe.dropout: expected a value in [0, 1), got 1.5"),
        (
            ("trainer.backbone=plain_b", "trainer.dropout=0.4"),
            "trainer: Recipe.dropout: expected 0, as plain_b drops nothing, got 0.4",
        ),
        (("trainer.speed=9",), "trainer: expected arguments of recognition.train.Recipe"),
        (("protocols.every=0",), "protocols.every: expected a whole number of at least 1, got 0"),
        (("protocols.folder=nowhere",), "protocols.folder: expected a folder of *.bin files"),
        (("device=tpu",), "device: expected cpu, cuda or cuda:0 and so on, got 'tpu'"),
        (("device=cpu", "ray.workers=2", "ray.num_gpus=1"), "device: expected cuda, as ray.num_gpus is 1, got cpu"),
        (("device=cuda", "ray.workers=2"), "device: expected cpu, as ray.num_gpus is 0, got cuda"),
        (("ray.workers=-1",), "ray.workers: expected a whole number of at least 0, got -1"),
        (("workers=0",), "workers: expected a whole number of at least 1, got 0"),
        (("workers=two",), "workers: expected a whole number of at least 1, got 'two'"),
        (("stream=yess",), "stream: expected true or false, got 'yess'"),
        (("stream=true", "trainer.batches=pk"), "trainer.batches: expected shuffled, as a stream cannot choose"),
        (("trainer.batches=pk", "trainer.batch_size=64"), "trainer.batches: expected at least 16 people for batches"),
        (("start={sets}/broken.bin",), "start: expected the checkpoint.pt of a training, got another file, "),
        (("ray.workers=5",), "trainer.batch_size: expected a multiple of 5 processes x 1 micro-batches, got 8"),
    ],
)
def test_what_cannot_begin_says_why_before_anything_is_decoded(
    words: tuple[str, ...], said: str, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.bin").write_text("neither a set nor a checkpoint")
    words = tuple(word.format(sets=tmp_path) for word in words)
    data = () if any(word.startswith("data=") for word in words) or not words else (f"data={shards}",)
    result = facemint("train", *data, *QUICK, f"out={tmp_path / 'out'}", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_protocol_is_found_before_anything_is_decoded(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.bin").write_text("no set")
    result = facemint("train", f"data={shards}", *QUICK, f"out={tmp_path / 'out'}", f"protocols.folder={tmp_path}")
    assert result.exit_code == 1
    assert f"facemint: {tmp_path / 'broken.bin'}: " in result.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_of_one_person_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "000000.tar", samples_of(1, 4))
    result = facemint("train", f"data={tmp_path}", f"out={tmp_path / 'out'}", *QUICK)
    assert result.exit_code == 2
    assert "data: labels: expected at least 2 classes, got 1" in result.stderr
