"""`facemint bin build`: a set that insightface reads, pairs by the rules, alignment looked at."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.bins import read_bin
from generation.weights import bundled
from generation.world import SPACE, sample_people
from pipeline import bin_build as module
from pipeline.bin_build import Wanted, build_bin, off_template
from recognition.formats import LabelledSet, Sample, open_set, write_folder
from stages.embed.align import crop, similarity, template
from stages.embed.detector import Detector
from stages.generate.rendered import Rendered
from stages.plan import Planner, Uniform
from stages.records import Chunk, Identity
from tests.benchmarks.small_run import jpeg_of
from tests.pipeline.conftest import facemint
from tests.stages.conftest import write_detector

PEOPLE, PHOTOGRAPHS = 8, 3
PEOPLE_OF_THE_WORLD = sample_people(6, np.random.default_rng(0))


def face(person: int, number: int) -> np.ndarray:
    """A picture that the tiny detector takes for a face: it is not dark."""
    rough = np.random.default_rng([person, number]).integers(120, 200, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(rough).resize((112, 112), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A detector that finds every face exactly where the template has it."""
    folder = tmp_path_factory.mktemp("weights")
    write_detector(folder / "detector.onnx")
    sha256 = hashlib.sha256((folder / "detector.onnx").read_bytes()).hexdigest()
    listing = {"detector": {"file": "detector.onnx", "space": "", "dimensions": 0, "sha256": sha256}}
    (folder / "weights.json").write_text(json.dumps(listing))
    return folder


@pytest.fixture
def faces(tmp_path) -> Path:
    samples = [
        Sample(f"{person:02d}_{number}", jpeg_of(face(person, number)), person, {})
        for person in range(PEOPLE)
        for number in range(PHOTOGRAPHS)
    ]
    (tmp_path / "faces").mkdir()
    write_folder(tmp_path / "faces", LabelledSet.of(samples))
    return tmp_path / "faces"


@pytest.fixture
def lfw(tmp_path) -> tuple[Path, Path]:
    """Named people in two folds, and LFW's list of pairs of them; one picture is a PNG."""
    for name in ("Abel", "Bea", "Cy", "Dee"):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for number in (1, 2):
            (tmp_path / "lfw" / name / f"{name}_{number:04d}.jpg").write_bytes(jpeg_of(face(ord(name[0]), number)))
    Image.fromarray(face(3, 3)).save(tmp_path / "lfw" / "Dee" / "Dee_0003.png")
    (tmp_path / "pairs.txt").write_text("2\t1\nAbel\t1\t2\nAbel\t1\tBea\t2\nCy\t2\t1\nCy\t1\tDee\t3\n")
    return tmp_path / "lfw", tmp_path / "pairs.txt"


def test_pairs_are_drawn_and_insightface_would_load_them(faces, tmp_path, weights):
    out = tmp_path / "sets" / "faces.bin"
    said = build_bin(faces, out, Wanted(pairs=16, folds=2, seed=3), weights)
    jpegs, same = pickle.loads(out.read_bytes())  # noqa: S301  as load_bin does, on our own file
    assert same == ([True] * 4 + [False] * 4) * 2
    who = {sample.jpeg: sample.identity_id for sample in open_set(faces)}
    people = [who[jpeg] for jpeg in jpegs]
    assert [a == b for a, b in zip(people[::2], people[1::2], strict=True)] == same
    assert not {*people[:16]} & {*people[16:]}  # folds
    images, labels = read_bin(out)
    assert (images.shape, labels.tolist()) == ((32, 112, 112, 3), same)
    assert said == json.loads((tmp_path / "sets" / "faces.json").read_text())
    assert said["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (said["pairs"], said["genuine"], said["impostor"]) == (16, 8, 8)
    assert (said["folds"], said["people_per_fold"], said["people_in_several_folds"]) == (2, [4, 4], 0)
    assert said["source"]["sha256"] == open_set(faces).sha256
    sidecar = json.loads((tmp_path / "sets" / "faces.people.json").read_text())
    assert sidecar["bin_sha256"] == said["sha256"]
    assert sidecar["person"] == [str(person) for person in people]
    assert sorted(path.name for path in out.parent.iterdir()) == ["faces.bin", "faces.json", "faces.people.json"]


def test_the_same_words_give_the_same_bytes_and_then_say_up_to_date(faces, tmp_path, weights, capsys):
    wanted = Wanted(pairs=8, folds=2)
    for name in ("a", "b"):
        build_bin(faces, tmp_path / name / "faces.bin", wanted, weights)
    read = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab"]
    assert read[0] == read[1]
    build_bin(faces, tmp_path / "a" / "faces.bin", wanted, weights)
    assert "is up to date" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"faces\.bin: expected nothing there or this very set, found another file"):
        build_bin(faces, tmp_path / "a" / "faces.bin", Wanted(pairs=8, folds=2, seed=1), weights)


def test_a_list_of_pairs_is_kept_in_its_order(lfw, tmp_path, weights):
    folder, pairs = lfw
    said = build_bin(folder, tmp_path / "lfw.bin", Wanted(pairs_file=pairs), weights)
    jpegs, same = pickle.loads((tmp_path / "lfw.bin").read_bytes())  # noqa: S301
    assert same == [True, False, True, False]
    names = ["Abel/Abel_0001.jpg", "Abel/Abel_0002.jpg", "Abel/Abel_0001.jpg", "Bea/Bea_0002.jpg"]
    names += ["Cy/Cy_0002.jpg", "Cy/Cy_0001.jpg", "Cy/Cy_0001.jpg", "Dee/Dee_0003.png"]
    assert jpegs == [(folder / name).read_bytes() for name in names]
    assert (said["folds"], said["people_per_fold"], said["people_in_several_folds"]) == (2, [2, 2], 0)
    assert said["pairs_file"] == {"name": "pairs.txt", "sha256": hashlib.sha256(pairs.read_bytes()).hexdigest()}
    person = json.loads((tmp_path / "lfw.people.json").read_text())["person"]
    assert person == ["Abel", "Abel", "Abel", "Bea", "Cy", "Cy", "Cy", "Dee"]


def test_people_who_are_in_several_folds_of_a_list_are_counted(lfw, tmp_path, weights):
    folder, pairs = lfw
    pairs.write_text("2\t1\nAbel\t1\t2\nAbel\t1\tBea\t2\nAbel\t2\t1\nCy\t1\tDee\t3\n")
    assert build_bin(folder, tmp_path / "lfw.bin", Wanted(pairs_file=pairs), weights)["people_in_several_folds"] == 1


def test_a_list_that_has_one_kind_first_is_dealt_out_to_the_folds(lfw, tmp_path, weights, capsys):
    folder, pairs = lfw
    listed = [("Abel/Abel_0001.jpg", "Abel/Abel_0002.jpg", 1), ("Cy/Cy_0002.jpg", "Cy/Cy_0001.jpg", 1)]
    listed += [("Abel/Abel_0001.jpg", "Bea/Bea_0002.jpg", 0), ("Cy/Cy_0001.jpg", "Dee/Dee_0003.png", 0)]
    pairs.write_text("".join(f"{first} {label}\n{second} {label}\n" for first, second, label in listed))
    said = build_bin(folder, tmp_path / "calfw.bin", Wanted(pairs_file=pairs, folds=2), weights)
    assert pickle.loads((tmp_path / "calfw.bin").read_bytes())[1] == [True, False, True, False]  # noqa: S301
    assert (said["folds"], said["people_in_several_folds"]) == (2, 0)
    assert "has all pairs of one person first" in " ".join(capsys.readouterr().out.split())


def test_a_label_that_contradicts_the_folders_is_refused(lfw, tmp_path, weights):
    folder, pairs = lfw
    pairs.write_text("Abel/Abel_0001.jpg 1\nBea/Bea_0002.jpg 1\nCy/Cy_0001.jpg 0\nDee/Dee_0003.png 0\n")
    with pytest.raises(ValueError, match="expected people that agree with the labels, got 1 pairs that do not"):
        build_bin(folder, tmp_path / "calfw.bin", Wanted(pairs_file=pairs, folds=2), weights)


def test_a_missing_picture_is_not_passed_over(lfw, tmp_path, weights):
    folder, pairs = lfw
    (folder / "Bea" / "Bea_0002.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected all its pictures in .*lfw, 1 are missing, Bea/Bea_0002\.jpg"):
        build_bin(folder, tmp_path / "lfw.bin", Wanted(pairs_file=pairs), weights)
    assert not list(tmp_path.glob("lfw.*"))


def test_two_pictures_that_a_list_may_mean_are_not_chosen_from(lfw, tmp_path, weights):
    folder, pairs = lfw
    shutil.copy(folder / "Dee" / "Dee_0003.png", folder / "Dee" / "Dee_0003.jpeg")
    with pytest.raises(ValueError, match=r"one picture for Dee/Dee_0003\.jpg in .*lfw, found .*\.jpeg and .*\.png"):
        build_bin(folder, tmp_path / "lfw.bin", Wanted(pairs_file=pairs), weights)


@pytest.mark.parametrize(
    ("content", "fault"), [('{"mine": 1}', "nothing there, found a file of"), ("[]", "an object"), ("x", "JSON")]
)
def test_a_file_of_somebody_else_is_not_written_over(faces, tmp_path, weights, content, fault):
    (tmp_path / "faces.json").write_text(content)
    with pytest.raises(ValueError, match=rf"faces\.json: expected .*{fault}"):
        build_bin(faces, tmp_path / "faces.bin", Wanted(pairs=8, folds=2), weights)
    assert (tmp_path / "faces.json").read_text() == content


def test_photographs_are_not_resized_in_silence(faces, tmp_path, weights):
    large = io.BytesIO()
    Image.new("RGB", (250, 250), (200, 200, 200)).save(large, "JPEG")
    (faces / "000003" / "03_1.jpg").write_bytes(large.getvalue())
    with pytest.raises(
        ValueError, match=r"03_1\.jpg: expected 112x112 .*, got 250x250; nothing is resized .*norm_crop"
    ):
        build_bin(faces, tmp_path / "faces.bin", Wanted(pairs=48, folds=2), weights)
    assert not list(tmp_path.glob("faces.*"))


def test_a_picture_without_a_face_to_see_needs_a_word(faces, tmp_path, weights):
    for path in faces.rglob("*.jpg"):
        path.write_bytes(jpeg_of(np.random.default_rng(len(path.name)).integers(0, 9, (112, 112, 3)).astype(np.uint8)))
    with pytest.raises(ValueError, match=r"faces that the detector can see, .* it saw none in .* --unaligned-ok"):
        build_bin(faces, tmp_path / "faces.bin", Wanted(pairs=8, folds=2), weights)
    said = build_bin(faces, tmp_path / "faces.bin", Wanted(pairs=8, folds=2, unaligned_ok=True), weights)
    assert (said["alignment"]["seen"], said["alignment"]["residual_px"]) == (0, None)


def test_what_is_off_the_template_is_the_similarity_of_a_misalignment():
    turn = np.deg2rad(10)
    linear = 0.9 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = template(112) @ linear.T + [3.0, -2.0]
    residual, misplaced = off_template(np.stack([template(112), moved]))
    np.testing.assert_allclose(residual, [0, np.linalg.norm(moved - template(112), axis=1).mean()], atol=1e-9)
    back = (template(112) - [3.0, -2.0]) @ np.linalg.inv(linear).T
    np.testing.assert_allclose(misplaced, [0, np.linalg.norm(back - template(112), axis=1).mean()], atol=1e-9)
    stretched = template(112) * [1.0, 1.1]  # a longer face, aligned as well as can be: nothing to mend
    matrix = similarity(stretched[None], template(112))[0]
    aligned = stretched @ matrix[:, :2].T + matrix[:, 2]
    residual, misplaced = off_template(aligned[None])
    assert residual[0] > 0.5
    np.testing.assert_allclose(misplaced, 0, atol=1e-9)


def test_the_bundled_detector_tells_aligned_faces_from_loose_crops_of_them(tmp_path):
    people = [Identity(k, traits, np.ones(1, np.float32)) for k, traits in enumerate(PEOPLE_OF_THE_WORLD)]
    rows = tuple(row for one in people for row in Planner(2, {"yaw_deg": Uniform(-20, 20)})(one.id, run_seed=1))
    pixels = Rendered(SPACE, size_px=112)(Chunk(0, tuple(people), rows)).pixels
    landmarks, probability = Detector(bundled("detector").verify(), 1)(pixels)
    assert (probability > 0.5).all()
    tight = crop(pixels, landmarks)
    shrink = cv2.getRotationMatrix2D((55.5, 55.5), 0, 0.7)
    loose = np.stack([cv2.warpAffine(each, shrink, (112, 112), borderMode=cv2.BORDER_REPLICATE) for each in tight])
    wanted = Wanted(pairs=8, folds=2)
    for name, crops in (("tight", tight), ("loose", loose)):
        (tmp_path / name).mkdir()
        made = [Sample(row.key, jpeg_of(each), row.identity_id, {}) for row, each in zip(rows, crops, strict=True)]
        write_folder(tmp_path / name, LabelledSet.of(made))
    alignment = build_bin(tmp_path / "tight", tmp_path / "tight.bin", wanted)["alignment"]
    assert alignment["seen"] == alignment["pictures"]
    assert alignment["misplaced_px"]["median"] < module.LIMIT_PX / 2
    with pytest.raises(ValueError, match=r"loose: expected crops aligned .* at most 5.0 px, found [0-9.]+ px"):
        build_bin(tmp_path / "loose", tmp_path / "loose.bin", wanted)
    assert not (tmp_path / "loose.bin").exists()
    said = build_bin(tmp_path / "loose", tmp_path / "loose.bin", Wanted(pairs=8, folds=2, unaligned_ok=True))
    assert said["alignment"]["misplaced_px"]["median"] > module.LIMIT_PX


def failing_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Lets the disk fail when it is asked to put something on it, or to rename it, for the step-th time."""
    asked = itertools.count()

    def failing(call):
        def called(*words):
            if next(asked) == step:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*words)

        return called

    for name in ("replace", "fsync"):
        patch.setattr(os, name, failing(getattr(os, name)))


def test_a_fault_at_any_step_leaves_no_set_or_a_whole_one(faces, tmp_path, weights):
    failed = []
    for step in range(14):
        out = tmp_path / f"{step}" / "faces.bin"
        with pytest.MonkeyPatch.context() as patch:
            failing_at(step, patch)
            try:
                build_bin(faces, out, Wanted(pairs=8, folds=2), weights)
            except OSError:
                failed.append(step)
        names = {path.name for path in out.parent.iterdir()}
        assert names <= {"faces.json", "faces.people.json"} or names == {"faces.bin", "faces.json", "faces.people.json"}
        said = build_bin(faces, out, Wanted(pairs=8, folds=2), weights)  # again, where the disk has room
        assert said["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert failed == list(range(12))  # .bin 3, people 4, JSON 3; the rename, its folder


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pairs", "0"], "a multiple of twice as many pairs, got 0, 10"),
        (["--pairs", "7"], "a multiple of twice as many pairs, got 7, 10"),
        (["--pairs", "600"], "of each kind in fold 0, got 30"),
        (["--seed", "-1", "--pairs", "20"], "seed: expected at least 0, got -1"),
        (["--pairs", "8", "--pairs-file", "x"], "pairs, seed: expected none with a list of pairs"),
    ],
)
def test_a_mistake_is_one_line(faces, tmp_path, words, told):
    result = facemint("bin", "build", str(faces), str(tmp_path / "faces.bin"), *words)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert facemint("bin", "build", str(faces), str(tmp_path / "faces.txt")).exit_code == 1


def test_the_command_prints_what_it_has_seen(faces, tmp_path):
    words = ["--pairs", "8", "--folds", "2", "--unaligned-ok"]
    result = facemint("bin", "build", str(faces), str(tmp_path / "faces.bin"), *words)
    assert result.exit_code == 0, result.output
    for told in ("8: 4 of one person, 4 of two", "nobody in", "px median"):
        assert told in result.stdout
