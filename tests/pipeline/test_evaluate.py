"""A generator measured: the whole command in small, where it must end up with the truth, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from generation.regressor import CLASSES, NUMBERS
from generation.world import ATTRIBUTES
from pipeline.evaluate.people import as_rendered, portrayed, unseen
from pipeline.evaluate.pictures import Kept, Regressor, Seen, chunks_of
from pipeline.evaluate.sheets import CHANGES, attribute_rows, beside
from stages.generate.close_up import CloseUp
from stages.generate.rendered import Rendered
from stages.records import Images, Variation
from tests.pipeline.conftest import facemint
from tests.pipeline.toys import Noise, chunk

PEOPLE, PHOTOGRAPHS = 6, 3


def write_regressor(folder: Path) -> None:
    """Numbers and styles that depend on picture and crop, and mean nothing."""
    rng = np.random.default_rng(4)
    nodes = [helper.make_node("Add", ["pixels", "crops"], ["both"])]
    nodes += [helper.make_node("AveragePool", ["both"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16])]
    nodes += [helper.make_node("Flatten", ["pooled"], ["features"])]
    held, outputs = [], []
    for name, width in {"numbers": len(NUMBERS), **CLASSES}.items():
        held.append(numpy_helper.from_array(rng.standard_normal((147, width)).astype(np.float32), f"{name}_weight"))
        nodes.append(helper.make_node("MatMul", ["features", f"{name}_weight"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 112, 112]) for name in ("pixels", "crops")
    ]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "regressor.onnx")
    digest = hashlib.sha256((folder / "regressor.onnx").read_bytes()).hexdigest()
    entry = {"file": "regressor.onnx", "sha256": digest, "space": "", "dimensions": 0}
    (folder / "weights.json").write_text(json.dumps({"regressor": entry}))


@pytest.fixture(scope="session")
def regressor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regressor")
    write_regressor(folder)
    return folder


@pytest.fixture(scope="session")
def asked(weights: Path, regressor: Path) -> list[str]:
    """Words of a small evaluation with tiny weights, whose figures mean nothing."""
    return [
        "generator=rendered",
        "runner=local",
        f"people={PEOPLE}",
        f"images_per_identity={PHOTOGRAPHS}",
        "chunk_people=4",
        "sheet_people=2",
        f"embedder.weights={weights}",
        f"witness.weights={weights}",
        f"regressor_weights={regressor}",
        "enrol.max_cosine=1.0",
        "judge.rules.own_identity.min_cosine=-1.0",
        "judge.rules.own_identity.max_cosine=1.0",
        "judge.rules.nearest_other.max_cosine=1.0",
    ]


@pytest.fixture(scope="module")
def finished(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the renderer, as a user starts it. Not to be written to."""
    folder = tmp_path_factory.mktemp("evaluate") / "rendered"
    result = facemint("evaluate", *asked, f"run={folder}", "--markdown", str(folder / "page.md"))
    assert result.exit_code == 0, result.output
    assert "AUC own versus other" in result.stdout
    return folder


def test_it_leaves_figures_page_and_sheets(finished: Path) -> None:
    listed = {path.name for path in finished.iterdir()}
    assert listed >= {"evaluation.json", "evaluation.html", "attributes.png", "beside.png", "page.md"}
    assert not list(finished.rglob("*.part"))
    columns = len(CHANGES) + 2
    assert Image.open(finished / "attributes.png").width == columns * 116 - 4
    assert Image.open(finished / "beside.png").height == 2 * 2 * 116 - 4


def test_renders_are_as_like_their_people_as_renders_are(finished: Path) -> None:
    """The generator is the renderer itself, so its figures and the ceiling's are of one kind."""
    said = json.loads((finished / "evaluation.json").read_text())
    assert said["about"]["people"] == PEOPLE
    view = said["identity"]["asked"]
    assert view["generated"]["pictures"] <= PEOPLE * PHOTOGRAPHS
    assert view["generated"]["people"] == PEOPLE
    for figure in ("auc", "own_mean"):
        assert view["generated"][figure] == pytest.approx(view["renders"][figure], abs=0.2)
    assert set(said["attributes"]) == set(NUMBERS)
    assert set(said["styles"]) == set(CLASSES)
    assert said["identity"]["memorisation"] is None
    assert said["steps"] == []


def test_every_bar_is_told_to_have_passed_or_not_on_page_and_in_markdown(finished: Path) -> None:
    page, told = (finished / "evaluation.html").read_text(), (finished / "page.md").read_text()
    for bar in ("AUC own versus other", "rank-1 among 6 people", "yield of the judge", "yaw: median error", "smile"):
        assert bar in page
        assert bar in told
    assert told.splitlines()[2].startswith("`facemint evaluate generator=rendered runner=local people=6")
    assert "bars passed" in page
    assert "http" not in page.replace("http-equiv", "")  # it loads nothing


def test_the_same_words_again_make_no_picture_again(asked: list[str], finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.npz")}
    assert len(before) == 2 * (2 + 2 + 2 + 2 + 1)  # pictures and looks of four sets in two chunks, and of the sheet
    figures = json.loads((finished / "evaluation.json").read_text())
    result = facemint("evaluate", *asked, f"run={finished}")
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.npz")} == before
    again = json.loads((finished / "evaluation.json").read_text())
    assert {name: again[name] for name in again if name != "about"} == {
        name: figures[name] for name in figures if name != "about"
    }


def test_other_eyes_look_at_the_same_pictures(asked: list[str], finished: Path, tmp_path: Path) -> None:
    made = sorted(path.relative_to(finished) for path in (finished / "pictures").rglob("*.npz"))
    looks = len(list((finished / "seen").iterdir()))
    result = facemint("evaluate", *asked, f"run={finished}", "embedder.min_probability=0.4")
    assert result.exit_code == 0, result.output
    assert sorted(path.relative_to(finished) for path in (finished / "pictures").rglob("*.npz")) == made
    assert len(list((finished / "seen").iterdir())) == 2 * looks


@pytest.fixture(scope="module")
def painted(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same of a generator that is conditioned on the judge's vectors, and has steps; renders are made once."""
    part = ["generator._target_=tests.pipeline.toys.Painted", "generator.space=bundled-a-2", "+generator.steps=2"]
    without = [f"~generator.{name}" for name in ("size_px", "device", "threads")]
    folder = tmp_path_factory.mktemp("painted") / "page"
    return [*asked, *part, *without, "planner=portrait", "steps=[1,8]", "steps_people=4", f"run={folder}"]


def page_of(words: list[str]) -> Path:
    return Path(words[-1].removeprefix("run="))


def test_a_generator_of_the_judges_space_is_asked_by_portraits_and_its_steps_are_compared(
    painted: list[str],
) -> None:
    result = facemint("evaluate", *painted)
    assert result.exit_code == 0, result.output
    said = json.loads((page_of(painted) / "evaluation.json").read_text())
    assert set(said["attributes"]) == set(NUMBERS)  # the portrait plan names every attribute that can be read
    assert said["about"]["pictures_per_person"] == 3
    assert [line["steps"] for line in said["steps"]] == [1, 8]
    assert said["steps"][1]["within"] > said["steps"][0]["within"]  # with more steps there is less chance in a picture
    assert {line["people"] for line in said["steps"]} == {4}
    assert said["steps"][0]["smile_spearman"] is None
    assert (page_of(painted) / "evaluation.html").read_text().count("<polyline") == 3


def test_people_who_were_drawn_have_no_truth_but_are_known_among_their_own_pictures(
    painted: list[str], tmp_path: Path
) -> None:
    training = tmp_path / "learnt"
    training.mkdir()
    np.savez(training / "000000.npz", crops=np.random.default_rng(0).integers(0, 255, (9, 112, 112, 3), np.uint8))
    drawn = ["sampler=sphere", "sampler.dimensions=32", "steps=[]", f"training={training}"]
    result = facemint("evaluate", *[word for word in painted if "steps=[" not in word], *drawn)
    assert result.exit_code == 0, result.output
    said = json.loads((page_of(painted) / "evaluation.json").read_text())
    assert said["identity"]["asked"] is None
    assert said["identity"]["among"]["generated"]["auc"] > 0.7
    assert said["identity"]["memorisation"]["training_pictures"] == 9
    assert said["about"]["source"] == "people drawn by Sphere"
    assert "steps=[] was asked for" in (page_of(painted) / "evaluation.html").read_text()


FAULTS = {
    "a generator of another space": (
        ["generator.space=arcface-wf42m"],
        "embedder: expected the space that the generator is conditioned on, 'arcface-wf42m'",
    ),
    "a witness that is the judge": (["witness.space=bundled-a-2"], "witness: expected another space"),
    "renders of another framing": (
        ["generator@truth=close_up"],
        "truth: expected whole renders, as the generator's pictures are (generator@truth=rendered), got close-up",
    ),
    "too few people": (["people=1"], "people: expected a whole number from 4 to 1000000, got 1"),
    "one picture a person": (["images_per_identity=1"], "images_per_identity: expected a whole number from 2 to 1000"),
    "steps of nothing": (["steps=[0,4]"], "steps: expected a list of whole numbers of at least 1, got [0, 4]"),
    "all portraits asked with": (["asked_portraits=3"], "asked_portraits: expected fewer than the 3 of enrol.planner"),
    "people of another space": (["sampler=sphere"], "sampler: expected people in the space of the generator"),
    "no training renders": (["training=/nowhere"], "training: expected a folder of renders named *.npz, got /nowhere"),
    "an attribute that nobody honours": (
        ["+planner.attributes.beard={_target_: stages.plan.Fixed, value: 1.0}"],
        "planner: expected attributes that stages.generate.rendered.Rendered honours",
    ),
    "a generator that has learnt from another embedder's vectors": (
        ["generator=bundled", "generator@truth=close_up"],  # the tiny one has the bundled one's space
        "generator: expected weights that have learnt from the embedder's vectors (bundled-a-2, sha256 ",
    ),
    "no regressor": (["regressor_weights=/nowhere"], "regressor_weights: expected /nowhere/weights.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_refused_in_a_line_before_any_picture(fault: str, asked: list[str], tmp_path: Path) -> None:
    wrong, told = FAULTS[fault]
    result = facemint("evaluate", *asked, f"run={tmp_path / 'page'}", *wrong)
    assert result.exit_code == 2, result.output
    assert len([line for line in result.stderr.splitlines() if told in line]) == 1, result.stderr
    assert not (tmp_path / "page").exists()


def test_a_kept_generator_makes_a_chunk_once(tmp_path: Path) -> None:
    built = []

    def build() -> Noise:
        built.append(1)
        return Noise()

    first = Kept(build, str(tmp_path))(chunk(3))
    second = Kept(build, str(tmp_path))(chunk(3))
    assert isinstance(second, Images)
    assert np.array_equal(first.pixels, second.pixels)
    assert built == [1]


def test_chunks_hold_whole_people_and_every_row() -> None:
    rows = [Variation(f"{i:06d}_{k:03d}", i, k, {}) for i in range(5) for k in range(3)]
    chunks = chunks_of({i: np.zeros(2, np.float32) for i in range(5)}, rows, 2)
    assert [[one.id for one in each.identities] for each in chunks] == [[0, 1], [2, 3], [4]]
    assert [row for each in chunks for row in each.variations] == rows


def test_the_truth_is_photographed_alike_with_other_chance_and_a_background() -> None:
    rows = [Variation(f"000000_{k:03d}", 0, 77 + k, {"yaw_deg": 5.0 * k}) for k in range(4)]
    told = as_rendered(rows, 1)
    assert [row.attributes["yaw_deg"] for row in told] == [0.0, 5.0, 10.0, 15.0]
    assert not {row.seed for row in rows} & {row.seed for row in told}
    assert len({row.attributes["background"] for row in told}) == 4
    assert all(0 <= row.attributes["background"] <= 65535 for row in told)
    asked_for = as_rendered([Variation("000000_000", 0, 1, {"background": 7.0})], 1)
    assert asked_for[0].attributes["background"] == 7.0
    assert [(row.seed, row.attributes) for row in told] == [(row.seed, row.attributes) for row in as_rendered(rows, 1)]


def seen_portraits(found: list[list[bool]]) -> Seen:
    """Portraits of people, three each, whose every embedding is its own axis."""
    count = 3 * len(found)
    axes = np.eye(count, dtype=np.float32)
    nothing = np.zeros(count, np.int64)
    return Seen(
        np.repeat(np.arange(len(found)), 3), axes, np.full(count, 2.0, np.float32), np.zeros((count, 5, 2), np.float32),
        np.array(found).reshape(-1), axes, np.zeros((count, len(NUMBERS)), np.float32), nothing, nothing,
    )  # fmt: skip


def test_people_are_asked_for_by_one_portrait_and_known_by_the_others() -> None:
    seen = seen_portraits([[True, True, True], [False, True, True], [True, False, False], [True, True, True]])
    told = portrayed(unseen(4, 0), seen, 1, "bundled-a-2", unit=True)
    assert (told.ids, told.left_out) == ([0, 1, 3], 1)
    assert [int(vector.argmax()) for vector in told.vectors.values()] == [0, 4, 9]
    assert [np.flatnonzero(reference).tolist() for reference in told.references] == [[1, 2], [5], [10, 11]]
    raw = portrayed(unseen(4, 0), seen, 1, "bundled-a-2", unit=False)
    assert raw.vectors[0].max() == pytest.approx(2.0)


def test_a_generator_of_the_world_is_given_the_person_itself() -> None:
    world = unseen(2, 0)
    told = portrayed(world, seen_portraits([[True] * 3, [True] * 3]), 2, "world-1", unit=False)
    assert all(np.array_equal(told.vectors[person], world[person]) for person in world)


def test_people_without_a_face_in_any_portrait_are_too_few() -> None:
    with pytest.raises(ValueError, match="expected at least 2 people with a face in 2 portraits, got 1 of 2"):
        portrayed(unseen(2, 0), seen_portraits([[True] * 3, [False] * 3]), 1, "world-1", unit=False)


def test_nobody_is_in_two_seeds_and_fewer_people_are_the_first_of_more() -> None:
    assert np.array_equal(unseen(3, 5)[2], unseen(9, 5)[2])
    assert not np.array_equal(unseen(3, 5)[2], unseen(3, 6)[2])


def test_a_column_of_the_sheet_changes_what_it_says_and_the_last_ask_for_nothing() -> None:
    titles, rows = attribute_rows([4, 9], [name for name in ATTRIBUTES if name != "hat"])
    assert "hat" not in titles
    assert len(rows) == 2 * len(titles)
    plain, last = rows[0].attributes, rows[len(titles) - 1].attributes
    assert last == {}
    for title, row in zip(titles, rows, strict=False):
        changed = {name for name in row.attributes if row.attributes[name] != plain[name]}
        assert changed <= set(dict(CHANGES).get(title, {}))
    assert len({row.seed for row in rows if row.identity_id == 4}) == 3


def test_renders_stand_below_what_was_generated_of_the_same_person() -> None:
    generated = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(3, 3)
    lines = beside(generated, generated + 100, people=2)
    assert lines[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [100, 101, 102], [3, 4, 5], [103, 104, 105]]


def test_a_close_up_is_the_middle_of_a_larger_render() -> None:
    people = chunk(0, people=1, photographs=2)
    world = unseen(1, 0)
    (whole_person,) = (type(one)(one.id, world[0], one.reference) for one in people.identities)
    asked_for = type(people)(0, (whole_person,), people.variations)
    large = Rendered("world-1", size_px=140)(asked_for).pixels
    assert np.array_equal(CloseUp("world-1")(asked_for).pixels, large[:, 18:130, 14:126])


def test_a_file_that_is_no_regressor_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="expected outputs"):
        Regressor(weights / "embedder_a.onnx")
