"""`make weights` in small: every part of it, on models that have learnt nothing."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from generation import diffusion
from generation.train import DetectorRecipe
from generation.train.autoencoder import AutoencoderRecipe
from generation.train.calibrate import CalibrationRecipe
from generation.train.decoder import DecoderRecipe
from generation.train.distil import DistilRecipe
from generation.train.generator import GeneratorRecipe
from generation.train.regressor import RegressorRecipe
from generation.train.tune import TuningRecipe
from generation.weights import bundled
from generation.world import attribute_table, render, sample_people
from generation.world.scenes import generator_attributes
from pipeline.cli import app
from pipeline.weights import sheets
from pipeline.weights.generator import distilled
from pipeline.weights.made import CONTROLS, renders_of, sources_of, told_controls
from pipeline.weights.make import make_weights
from pipeline.weights.recipe import GeneratorOrder, WeightsRecipe
from pipeline.weights.regressor import RegressorOrder
from pipeline.weights.renders import CloseUps, mapped, rendered
from pipeline.weights.stopwatch import Stopwatch
from pipeline.weights.workers import KEEPS_MEMORY, pool
from stages.generate.bundled import Bundled
from stages.records import Chunk, Identity, Variation
from stages.sample.population import Population, fit
from tests.generation.small import DENOISER, denoiser, generator

FULL = WeightsRecipe()
# Far enough that half precision keeps it, which rounds away what two steps of the default's rate do.
TUNING = TuningRecipe(
    steps=2,
    batch_size=4,
    peak_lr=1e-2,
    warmup_steps=1,
    drawn_steps=1,
    learnt_steps=1,
    ema_decay=0.5,
    precision="fp32",
    threads=1,
)
SMALL = dataclasses.replace(
    FULL,
    people=25,
    pictures=2,
    detector_people=25,
    held_out=25,
    protocol_pairs=20,
    detector=DetectorRecipe(steps=2, batch_size=10, checkpoint_every=1, precision="fp32", threads=1),
    embedder_a=dataclasses.replace(FULL.embedder_a, epochs=2, batch_size=25),
    embedder_b=dataclasses.replace(FULL.embedder_b, epochs=2, batch_size=25),
    regressor=RegressorOrder(
        people=75,
        pictures=1,
        held_out=50,
        other_people=25,
        training=RegressorRecipe(steps=2, batch_size=4, checkpoint_every=1, precision="fp32", threads=1),
    ),
    generator=GeneratorOrder(
        people=25,
        pictures=2,
        held_out=5,
        autoencoder=AutoencoderRecipe(steps=2, batch_size=2, widths=(16, 16, 16), precision="fp32", threads=1),
        reader=RegressorRecipe(steps=2, batch_size=4, seed=29, precision="fp32", threads=1),
        denoiser=GeneratorRecipe(steps=2, batch_size=4, precision="fp32", threads=1),
        decoder=DecoderRecipe(steps=2, batch_size=4, critic_from=1, precision="fp32", threads=1),
        tuning=(TUNING, dataclasses.replace(TUNING, steps=3, peak_lr=1e-6, seed=43)),
        calibration=CalibrationRecipe(batches=2, batch_size=4, steps=3),
    ),
)


@pytest.fixture(autouse=True, scope="module")
def quick_sheets():
    """Most of what a training of two steps takes is its contact sheet; those of `made`, in a process of its own, are
    drawn in full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "UNTAUGHT", dataclasses.replace(sheets.UNTAUGHT, steps=1))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out") / "not" / "there"
    make_weights(out, work, SMALL, device="cpu", say=lambda _: None)
    return work, out


def test_the_files_are_listed_with_the_hashes_that_they_have(made):
    _, out = made
    for name, space in (
        ("detector", ""),
        ("regressor", ""),
        ("embedder_a", "bundled-a-2"),
        ("embedder_b", "bundled-b-2"),
    ):
        weights = bundled(name, out)
        assert weights.verify().stat().st_size > 100_000
        assert weights.space == space


def test_the_card_tells_recipe_hashes_and_every_score(made):
    work, out = made
    card = (out / "CARD.md").read_text()
    scores = json.loads((work / "scores.json").read_text())
    assert "20 people x 2 close-ups" in card
    for entry in json.loads((out / "weights.json").read_text()).values():
        assert entry["sha256"] in card
    for name in ("embedder_a", "embedder_b"):
        assert len(scores[name]["protocols"]) == 5
        for protocol, score in scores[name]["protocols"].items():
            assert protocol in card
            assert f"{100 * score['accuracy']:.2f}" in card
    assert f"{scores['detector']['wild']['mean_error_px']:.2f}" in card
    assert "25 people x 2 photographs" in card
    assert "from its own drawings: 8 of 1 steps" in card
    assert "then 12 of 1 steps" in card


def test_the_card_tells_how_long_it_took_and_on_what(made):
    work, out = made
    card = (out / "CARD.md").read_text()
    seconds = json.loads((work / "seconds.json").read_text())
    assert list(seconds) == ["renders", "models that measure", "generator"]
    assert min(seconds.values()) > 0
    assert f"Made in {sum(seconds.values()) / 3600:.1f} hours (renders {seconds['renders'] / 60:.0f} minutes" in card
    assert f"{os.cpu_count()} cores of" in card


def test_sittings_are_added_up_broken_off_or_killed_ones_too(tmp_path):
    watch = Stopwatch(tmp_path / "seconds.json", every_s=0.05)
    assert watch.seconds == {}
    with pytest.raises(KeyboardInterrupt):
        break_off(watch)
    broken_off = watch.seconds["first"]
    with watch.of("second"):
        pass
    with watch.of("first"):
        time.sleep(0.2)
    assert list(watch.seconds) == ["first", "second"]
    assert watch.seconds["first"] >= broken_off + 0.2


def break_off(watch):
    with watch.of("first"):
        assert within_seconds(20, lambda: watch.seconds.get("first", 0) > 0.1)  # while it goes on: it may be killed
        raise KeyboardInterrupt


def test_what_is_there_is_not_made_again(made):
    work, out = made
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.np*")} | {
        path: path.stat().st_mtime_ns for path in work.glob("*.onnx")
    }
    assert before
    make_weights(out, work, SMALL, device="cpu", say=lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_work_of_another_recipe_is_refused(made):
    work, out = made
    with pytest.raises(ValueError, match='"people": 26'):
        make_weights(out, work, dataclasses.replace(SMALL, people=26), device="cpu", say=lambda _: None)


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileExistsError, match="out"):
        make_weights(tmp_path / "out", tmp_path / "work", SMALL, device="cpu", say=lambda _: None)
    assert {path.name for path in (tmp_path / "work").rglob("*") if path.is_file()} == {"recipe.json"}


def somebody(vector):
    """One photograph of one person."""
    row = Variation("000000_000", 0, 5, {"yaw_deg": 20.0})
    return Chunk(0, (Identity(0, vector, vector),), (row,))


def test_the_generator_that_is_shipped_draws_whom_its_population_holds(made):
    _, out = made
    person = Population(bundled("population", out).verify(), 4, "bundled-a-2", unit=True)(1, np.random.default_rng(0))
    pictures = Bundled("bundled-a-2", steps=1, batch_size=1, weights=out)(somebody(person[0])).pixels
    assert pictures.shape == (1, 112, 112, 3)
    assert bundled("generator", out).space == ""


def test_the_generator_is_told_all_that_can_be_learnt_in_the_worlds_order(made):
    _, out = made
    told = [control.name for control in diffusion.load(out / "generator.safetensors").denoiser.shape.controls]
    assert told == [name for name in CONTROLS if name not in ("background", "noise", "jpeg_quality")]
    assert {control.name for control in told_controls() if control.logarithmic} == {"low_resolution_px"}


def test_a_round_of_tuning_goes_on_from_the_one_before(made):
    work, out = made
    first = torch.load(work / "generator" / "tuning_1" / "tuned.pt", weights_only=True)["average"]
    before, shipped = (
        diffusion.load(path).denoiser.state_dict()
        for path in (work / "generator" / "teacher.safetensors", out / "generator.safetensors")
    )
    name = "project.weight"  # of identity vectors, which calibration leaves as it is
    learnt = (first[name] - before[name]).norm()
    assert learnt > 0.1 * before[name].norm()
    assert (first[name] - shipped[name]).norm() < 0.2 * learnt  # `taken` of it, and a second round of tiny steps


def test_people_of_the_generator_are_close_ups_drawn_from_their_own_stream(made):
    work, _ = made
    rng = np.random.default_rng([7_005, 2026, 0])
    vectors = np.repeat(sample_people(25, rng), 2, 0)
    rows = [row for _ in range(25) for row in generator_attributes(2, rng)]
    seeds = rng.integers(0, 2**63 - 1, len(rows))
    drawn = render(vectors[:3], attribute_table(rows[:3]), seeds[:3], 140)
    folder = work / "generator" / "renders"
    assert np.array_equal(np.load(folder / "pictures.npy")[:3], drawn.pixels[:, 18:130, 14:126])
    np.testing.assert_allclose(np.load(folder / "landmarks.npy")[:3], drawn.landmarks - [14, 18], atol=1e-4)
    assert np.array_equal(np.load(folder / "attributes.npy"), attribute_table(rows))
    assert np.array_equal(np.load(folder / "seeds.npy"), seeds)


def test_renders_of_a_version_that_kept_no_seeds_are_refused(made, tmp_path):
    work, _ = made
    (kept,) = (work / "generator" / "renders").glob("[0-9]*.npz")
    with np.load(kept) as arrays:
        np.savez(tmp_path / kept.name, **{name: arrays[name] for name in arrays if name != "seeds"})
    with (
        pool(1) as processes,
        pytest.raises(ValueError, match=r"expected seeds in .*000000.npz, got pictures, .*another version"),
    ):
        rendered(tmp_path, renders_of(SMALL.generator), processes, "cpu", lambda _: None)


def test_a_contact_sheet_shows_people_who_were_not_trained_on(made):
    work, _ = made
    sheets = sorted((work / "generator" / "sheets").glob("*.png"))
    assert sheets[-1].name == "sheet_000002.png"
    sheet = np.asarray(Image.open(sheets[-1]))
    pictures, labels = (np.load(work / "generator" / "renders" / f"{name}.npy") for name in ("pictures", "labels"))
    first = sheet[:112, :112]
    whose = labels[[np.array_equal(picture, first) for picture in pictures]]
    assert len(whose) == 1
    assert whose[0] >= 20


def test_a_student_of_the_teacher_is_told_its_guidance_and_is_not_tuned(made, tmp_path):
    work, _ = made
    student = DistilRecipe(steps=2, batch_size=4, precision="fp32", threads=1)
    order = dataclasses.replace(SMALL.generator, student=student, tuning=())
    shutil.copytree(work / "generator", tmp_path / "generator")
    teacher = diffusion.load(tmp_path / "generator" / "teacher.safetensors")
    model = distilled(tmp_path / "generator", order, teacher, lambda _: None, "cpu")
    assert model.taught == ((1.0, 4.0), (1.0, 3.0))
    with pytest.raises(ValueError, match="tuning: expected none beside a student"):
        dataclasses.replace(order, tuning=SMALL.generator.tuning)


def test_the_population_is_of_people_not_of_pictures(made):
    work, _ = made
    folder = work / "generator"
    vectors, labels = np.load(folder / "vectors.npy"), np.load(folder / "renders" / "labels.npy")
    rows = sources_of(mapped(folder / "renders", CloseUps))
    rows = rows[labels[rows] < 20]  # the others are held out
    count = np.bincount(labels[rows], minlength=20)
    people = [p for p in range(20) if count[p] >= np.bincount(count[count > 0]).argmax()]
    means = np.stack([vectors[rows][labels[rows] == p].sum(0) for p in people])
    expected, _ = fit((means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32))
    np.testing.assert_allclose(np.load(folder / "population.npz")["mean"], expected, atol=1e-6)


def tuned_alone(work, run, *words):
    few = ["recipe.steps=2", "recipe.batch_size=4", "recipe.learnt_steps=1"]
    plain = ["recipe.threads=1", "recipe.precision=fp32", "device=cpu"]
    return ["tune-generator", f"work={work}", f"run={run}", *few, *plain, *words]


def test_the_bundled_generator_is_tuned_from_its_file_alone_and_again_the_same(made, tmp_path):
    work, _ = made
    (tmp_path / "work").mkdir()
    shutil.copytree(
        work / "generator", tmp_path / "work" / "generator", ignore=shutil.ignore_patterns("*.pt", "l*.npz")
    )
    shutil.copytree(work / "generator" / "reader", tmp_path / "work" / "generator" / "reader", dirs_exist_ok=True)
    words = [*tuned_alone(work, tmp_path / "run"), f"work={tmp_path / 'work'}"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert f"draw with generator=bundled generator.weights={tmp_path / 'run'}" in first.output
    before = diffusion.load(bundled("generator").verify())
    written = bundled("generator", tmp_path / "run").verify()
    after = diffusion.load(written)
    assert not torch.equal(after.denoiser.project.weight, before.denoiser.project.weight)
    for name, tensor in before.autoencoder.state_dict().items():
        assert torch.equal(tensor, after.autoencoder.state_dict()[name]), name
    assert (tmp_path / "run" / "sheets" / "sheet_000002.png").is_file()
    bytes_before = written.read_bytes()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert written.read_bytes() == bytes_before
    other = CliRunner().invoke(app, [*words, "recipe.identity_weight=0.5"])
    assert other.exit_code != 0
    assert '"identity_weight": 0.5' in other.stderr


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("start=nowhere", "start: expected a generator's file, found no nowhere"),
        ("start={work}/scores.json", "expected scores.json to be a safetensors file"),
        ("embedder_onnx=nowhere", "embedder_onnx: expected embedder A's ONNX file, found no nowhere"),
        ("embedder_onnx={work}/detector.onnx", "expected a network of the design asked for"),
        ("embedder_onnx={work}/scores.json", "expected an ONNX file in"),
        ("embedder_onnx={work}/embedder_a.onnx", "embedder_onnx: expected the embedder whose vectors "),
        ("sheet_minutes=0", "sheet_minutes: expected more than 0, got 0"),
        ("workers=0", "workers: expected at least 1, got 0"),
        ("recipe.scheduler=lcm", "scheduler: expected one of ddim, dpm, got 'lcm'"),
        ("recipe.colour=red", "unexpected keyword argument 'colour'"),
    ],
)
def test_what_a_tuning_cannot_begin_with_is_refused_in_a_line_before_any_work(made, tmp_path, word, told):
    work, _ = made
    result = CliRunner().invoke(app, [*tuned_alone(work, tmp_path / "run"), word.format(work=work)])
    assert result.exit_code != 0
    assert told in result.stderr
    assert not list((tmp_path / "run").rglob("*"))


def test_a_generator_that_is_told_no_circumstances_is_not_tuned(made, tmp_path):
    work, _ = made
    untold = dataclasses.replace(generator(), denoiser=denoiser(dataclasses.replace(DENOISER, circumstances=0)))
    diffusion.save(untold, tmp_path / "old.safetensors")
    result = CliRunner().invoke(app, tuned_alone(work, tmp_path / "run", f"start={tmp_path / 'old.safetensors'}"))
    assert result.exit_code != 0
    assert "start: expected a generator that is told 597 circumstances in" in result.stderr


def trained_alone(work, run, *words):
    few = ["recipe.steps=2", "recipe.batch_size=4", "recipe.threads=1", "recipe.precision=fp32"]
    return ["train-generator", f"work={work}", f"run={run}", "device=cpu", *few, *words]


def test_a_denoiser_is_trained_alone_with_an_identity_term_and_again_the_same(made, tmp_path):
    work, _ = made
    words = trained_alone(work, tmp_path / "run", "recipe.identity_term=triplet", "recipe.looked_below=0.9")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'run' / 'generator.safetensors'}" in result.output
    first = (tmp_path / "run" / "generator.safetensors").read_bytes()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == first
    other = CliRunner().invoke(app, [*words, "recipe.partial_dropout=0.5"])
    assert other.exit_code != 0
    assert '"partial_dropout": 0.5' in other.stderr


def test_a_denoiser_needs_the_reader_that_it_learns_from_and_it_trained_to_its_end(made, tmp_path):
    work, _ = made
    other = tmp_path / "work"
    shutil.copytree(work, other, ignore=shutil.ignore_patterns("*.npz.part"))
    reader = other / "generator" / "reader" / "regressor.pt"
    kept = torch.load(reader, weights_only=True)
    torch.save(kept | {"step": 1}, reader)
    half = CliRunner().invoke(app, trained_alone(other, tmp_path / "run"))
    assert half.exit_code != 0
    assert "expected a reader of 2 steps" in half.stderr
    reader.unlink()
    none = CliRunner().invoke(app, trained_alone(other, tmp_path / "run"))
    assert none.exit_code != 0
    assert "expected reader/regressor.pt in" in none.stderr


def as_denoisers_were(told):
    told["denoiser"]["identity_below"] = 0.7  # as it was called once
    return "identity_below"


def as_tunings_were(told):
    told["tuning"] = told["tuning"][0]  # there was one
    return "TuningRecipe"


@pytest.mark.parametrize("older", [as_denoisers_were, as_tunings_were])
def test_the_work_of_another_version_is_told_in_a_line(made, tmp_path, older):
    work, _ = made
    (tmp_path / "generator").mkdir()
    told = json.loads((work / "generator" / "recipe.json").read_text())
    named = older(told)
    (tmp_path / "generator" / "recipe.json").write_text(json.dumps(told))
    result = CliRunner().invoke(app, trained_alone(tmp_path, tmp_path / "run"))
    assert result.exit_code != 0
    assert "work: expected the work of this version in" in result.stderr
    assert named in result.stderr


def test_what_the_generator_learns_from_is_not_born_as_what_certifies_it():
    twin = dataclasses.replace(SMALL.generator, reader=SMALL.regressor.training)
    with pytest.raises(ValueError, match=r"generator\.reader\.seed: expected another than regressor\.training\.seed"):
        dataclasses.replace(SMALL, generator=twin)


def test_a_denoiser_begins_where_another_training_ended_and_another_start_is_another_training(made, tmp_path):
    work, _ = made
    still = ["recipe.steps=1", "recipe.peak_lr=1e-12", "recipe.identity_term=none", "recipe.attribute_weight=0"]
    words = [*trained_alone(work, tmp_path / "run", *still), f"start={work / 'generator'}"]
    for again in (words, words, [*words[:-1], f"start={work / 'generator' / 'denoiser.pt'}"]):  # the same file
        result = CliRunner().invoke(app, again)
        assert result.exit_code == 0, result.output
    began, ended = (average_of(folder / "denoiser.pt") for folder in (work / "generator", tmp_path / "run"))
    assert all(torch.allclose(ended[name], began[name], atol=1e-6) for name in began)
    other = CliRunner().invoke(app, words[:-1])
    assert other.exit_code != 0
    assert "to hold the work of recipe" in other.stderr


def average_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["average"]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("nowhere", "start: expected the folder of another training, with denoiser.pt, found no nowhere"),
        ("{work}", "with denoiser.pt, found no {work}/denoiser.pt"),
        ("{work}/scores.json", "start: expected the checkpoint of a training in {work}/scores.json, got another file"),
        ("{work}/generator/autoencoder.pt", "start: expected a denoiser of the same shape in {work}/generator/autoenc"),
        (
            "{work}/generator",
            "that predicts 'epsilon' in {work}/generator/denoiser.pt, got 'v'",
        ),
    ],
)
def test_what_nothing_can_start_from_is_refused_in_a_line_before_any_work(made, tmp_path, start, told):
    work, _ = made
    words = trained_alone(work, tmp_path / "run", "recipe.prediction=epsilon", f"start={start.format(work=work)}")
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert told.format(work=work) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list((tmp_path / "run").rglob("*"))


def test_a_denoiser_trained_alone_draws_as_weights_that_are_not_distilled(made, tmp_path):
    work, out = made
    run = tmp_path / "run"
    words = trained_alone(work, run, "recipe.identity_term=none", "recipe.partial_dropout=0.25")
    assert CliRunner().invoke(app, words).exit_code == 0
    assert json.loads((run / "weights.json").read_text()).keys() == {"generator"}
    assert diffusion.load(bundled("generator", run).verify()).taught is None
    pictures = Bundled("bundled-a-2", steps=1, batch_size=1, weights=run)(
        somebody(np.eye(1, 128, dtype=np.float32)[0])
    ).pixels
    assert pictures.shape == (1, 112, 112, 3)
    assert not list(run.glob("*.part"))
    words = ["experiment=partial_dropout", f"generator.weights={run}", f"run={tmp_path / 'dataset'}"]
    checked = CliRunner().invoke(app, ["check", f"weights={out}", *words])
    assert checked.exit_code == 0, checked.output
    refused = CliRunner().invoke(app, ["check", *words])  # by the bundled embedder, which it has not learnt from
    assert "generator: expected weights that have learnt from the embedder's vectors (bundled-a-2" in refused.stderr


def test_a_work_folder_without_the_embedder_of_its_vectors_is_refused(made, tmp_path):
    work, _ = made
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "generator").symlink_to(work / "generator")
    result = CliRunner().invoke(app, trained_alone(tmp_path / "work", tmp_path / "run"))
    assert result.exit_code != 0
    assert f"found no {tmp_path / 'work' / 'embedder_a.onnx'}" in result.stderr


def test_two_processes_train_one_denoiser(made, tmp_path):
    work, _ = made
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "pipeline.cli", *trained_alone(work, tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on cpu, 2 processes") == 1
    assert diffusion.load(tmp_path / "run" / "generator.safetensors").space == "bundled-a-2"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("recipe.cross_pairs=2", "cross_pairs: expected 0 to 1, got 2"),
        ("recipe.identity_term=euclid", "identity_term: expected one of none, cosine, triplet, got 'euclid'"),
        ("sheet_minutes=0", "sheet_minutes: expected more than 0, got 0"),
        ("work=nowhere", "work: expected a folder that `facemint weights` has worked in"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_a_line(made, tmp_path, word, told):
    work, _ = made
    result = CliRunner().invoke(app, [*trained_alone(work, tmp_path / "run"), word])
    assert result.exit_code != 0
    assert told in result.stderr
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"people": 30}, "people: expected a positive multiple of 25, got 30"),
        ({"pictures": 0}, "pictures: expected at least 1, got 0"),
        ({"held_out": 8000}, "held_out: expected 1 to 7999, got 8000"),
    ],
)
def test_an_order_of_a_generator_out_of_range_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        GeneratorOrder(**wrong)


def malloc_of_a_worker():
    return {name: os.environ.get(name) for name in KEEPS_MEMORY}


def test_workers_keep_their_memory_and_the_parent_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    before = dict(os.environ)
    with pool(1) as processes:
        seen = processes.submit(malloc_of_a_worker).result()
    assert seen == KEEPS_MEMORY | {"MALLOC_TOP_PAD_": "7"}
    assert dict(os.environ) == before


KILLED = """
import os, sys, time
from pathlib import Path
from pipeline.weights.workers import pool

def work(told):
    Path(told + ".part").write_text(str(os.getpid()))
    os.replace(told + ".part", told)
    time.sleep(600)

if __name__ == "__main__":
    with pool(1) as processes:
        processes.submit(work, sys.argv[1])
        time.sleep(600)
"""


def test_workers_end_when_what_began_them_is_killed(tmp_path):
    script, told = tmp_path / "killed.py", tmp_path / "pid"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, script, told], env=os.environ | {"PYTHONPATH": os.getcwd()}) as parent:
        assert within_seconds(60, told.exists)
        worker = int(told.read_text())
        parent.kill()
    assert within_seconds(20, lambda: not is_running(worker))


def within_seconds(seconds, true):
    return any(true() or time.sleep(0.1) for _ in range(10 * seconds))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
