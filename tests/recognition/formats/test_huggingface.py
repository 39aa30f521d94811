"""Hugging Face datasets: what `datasets` makes of them, and Parquet files of strangers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.formats import LabelledSet, Sample, open_set, write_dataset
from recognition.formats import huggingface as module
from tests.recognition.formats.making import contents, damaged, people, picture, same_people_or_refused, sets

COLUMNS = pa.schema(
    [("seed", pa.int64()), ("norm", pa.float32()), ("kept", pa.bool_()), ("points", pa.list_(pa.float32(), 4))]
)


@pytest.fixture
def source() -> LabelledSet:
    about = {"norm": 0.5, "kept": True, "points": [1.0, 2.0, 3.0, 4.5], "left": "out"}
    return LabelledSet.of([replace(sample, about={**sample.about, **about}) for sample in people({900: 3, 7: 2})])


@pytest.fixture
def dataset(tmp_path, source) -> Path:
    write_dataset(tmp_path, source, "Some faces: a set", COLUMNS, {"license": "mit"}, rows_per_file=2)
    return tmp_path


def test_datasets_loads_the_same_bytes_labels_and_columns(dataset, source, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets  # after the environment, which it reads then

    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert rows.features["label"].names == ["000007", "000900"]
    assert rows.features["image"] == datasets.Image()
    assert rows[0]["image"].size == (112, 112)
    raw = rows.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == [sample.jpeg for sample in source]
    assert rows["label"][:] == source.labels.tolist()
    assert rows["identity_id"][:] == source.identity_ids.tolist()
    assert rows["key"][:] == list(source.keys)
    assert rows[3]["points"] == [1.0, 2.0, 3.0, 4.5]
    assert rows[3]["seed"] == list(source)[3].about["seed"]


def test_the_card_says_what_the_hub_asks_for(dataset, source):
    text = (dataset / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pretty_name"] == "Some faces: a set"
    assert front["license"] == "mit"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    (split,) = front["dataset_info"]["splits"]
    assert (split["name"], split["num_examples"]) == ("train", 5)
    assert split["num_bytes"] == sum(len(sample.jpeg) for sample in source)
    files = sorted((dataset / "data").iterdir())
    assert [path.name for path in files] == [f"train-0000{k}-of-00003.parquet" for k in range(3)]
    assert front["dataset_info"]["download_size"] == sum(path.stat().st_size for path in files)


def test_what_is_written_is_read_back(dataset, source):
    opened = open_set(dataset)
    assert opened.kind == "huggingface"
    assert opened.sha256 == source.sha256
    assert opened.keys == source.keys
    read = list(opened)
    assert read[1].about == {name: value for name, value in list(source)[1].about.items() if name != "left"}
    assert list(opened.read([4, 0, 1])) == [read[4], read[0], read[1]]


@given(source=sets)
@settings(max_examples=25, deadline=None)
def test_any_bytes_come_back(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    write_dataset(folder, source, "a set", rows_per_file=3)
    assert contents(open_set(folder)) == contents(source)


def test_the_same_set_gives_the_same_bytes(tmp_path, source):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, source, "a set", COLUMNS)
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    assert len(files) == 2
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (pa.schema([("label", pa.int64())]), r"names of their own beside .* got \['label'\]"),
        (pa.schema([("x", pa.int64()), ("x", pa.int64())]), r"got \['x', 'x'\]"),
        (pa.schema([("x", pa.timestamp("s"))]), r"expected int64, float32, .* got timestamp\[s\]"),
        (pa.schema([("gone", pa.int64())]), r"picture 000900_000: expected \['gone'\] to be known of it"),
        (pa.schema([("left", pa.int64())]), "pictures 000900_000 to 000900_002: .*out"),
    ],
)
def test_a_column_that_cannot_be_is_refused(tmp_path, source, columns, fault):
    with pytest.raises(ValueError, match=fault):
        write_dataset(tmp_path, source, "a set", columns)


# --- files of strangers ----------------------------------------------------------------------------------------------

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROW = {"image": [{"bytes": picture(), "path": None}], "label": [3]}


def stranger(path: Path, columns: dict[str, list], types: dict[str, pa.DataType] | None = None) -> Path:
    kinds = {"image": IMAGE, **(types or {})}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, compression="snappy")
    return path


def test_a_dataset_of_somebody_else_needs_no_more_than_image_and_label(tmp_path):
    stranger(tmp_path / "train.parquet", {**ROW, "caption": ["a face"]})
    (sample,) = open_set(tmp_path)
    assert sample == Sample("00000000", picture(), 3, {"caption": "a face"})
    assert list(open_set(tmp_path / "train.parquet")) == [sample]


@pytest.mark.parametrize(
    ("columns", "types", "fault"),
    [
        ({"label": [1]}, {}, "expected columns image, a struct with bytes, and label"),
        ({"image": ROW["image"]}, {}, "expected columns image, a struct with bytes, and label"),
        ({**ROW, "image": [b"1"]}, {"image": pa.binary()}, "expected columns image, a struct with bytes"),
        ({**ROW, "image": [{"bytes": "x"}]}, {"image": pa.struct([("bytes", pa.string())])}, "expected bytes in image"),
        ({**ROW, "label": ["x"]}, {}, "expected label in every row, found string"),
        ({**ROW, "label": [None]}, {"label": pa.int64()}, "expected label in every row, found int64, 1 nulls"),
        ({**ROW, "label": [-1]}, {}, "expected an identity of at least 0"),
        ({**ROW, "label": [2**64 - 1]}, {"label": pa.uint64()}, "out of bounds|not in range"),
        ({**ROW, "key": [1]}, {}, "expected key in every row, found int64"),
        (
            {**ROW, "image": [{"bytes": None, "path": "a.jpg"}]},
            {},
            "expected 1 to 16777216 bytes as picture 00000000, found 0",
        ),
        ({**ROW, "image": [None]}, {}, "expected 1 to 16777216 bytes as picture 00000000, found 0"),
        ({"image": ROW["image"] * 2, "label": [0, 0], "identity_id": [5, 6]}, {}, "one identity_id for each label"),
        ({"image": ROW["image"] * 2, "label": [0, 1], "identity_id": [5, 5]}, {}, "one identity_id for each label"),
        (
            {"image": ROW["image"] * 2, "label": [0, 1], "key": ["a", "a"]},
            {},
            "each key once, found 'a' twice",
        ),
        ({"image": [], "label": []}, {"label": pa.int64()}, "expected at least 1 picture, found 0"),
    ],
)
def test_columns_that_are_missing_or_contradict_each_other_are_refused(tmp_path, columns, types, fault):
    stranger(tmp_path / "train.parquet", columns, types)
    with pytest.raises(ValueError, match=f"{tmp_path}.*({fault})"):
        list(open_set(tmp_path))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: (d / "train-00001-of-00003.parquet").unlink(), "expected all of 00003 files of train, found 2"),
        (lambda d: (d / "train-00003-of-00003.parquet").write_bytes(b""), "expected all of 00003 files"),
        (lambda d: (d / "test-00000-of-00001.parquet").write_bytes(b""), "files of one split, found test, train"),
        (lambda d: (d / "train-00001-of-00003.parquet").write_bytes(b""), "train-00001.*expected a whole Parquet file"),
        (lambda d: stranger(d / "train-00001-of-00003.parquet", ROW), "expected files of the same columns"),
        (lambda d: stranger(d.parent / "train.parquet", ROW), "Parquet files in it or in its data/, found both"),
    ],
)
def test_files_that_are_missing_too_many_or_others_are_refused(dataset, change, fault):
    change(dataset / "data")
    with pytest.raises(ValueError, match=fault):
        open_set(dataset)


def test_a_row_group_that_claims_more_than_the_file_holds_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(module, "_MAX_GROUP_BYTES", 1000)
    with pytest.raises(ValueError, match=r"train-00000.*expected row group 0 within"):
        open_set(dataset)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_damage_is_refused_or_changes_nothing(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    write_dataset(folder, people({1: 2, 5: 1}), "a set")
    path = folder / "data" / "train-00000-of-00001.parquet"
    before = contents(open_set(folder))
    path.write_bytes(damaged(path.read_bytes(), data, ends=1500))  # the footer
    same_people_or_refused(lambda: open_set(folder), before, folder)


def test_a_flipped_bit_in_a_picture_is_told_by_its_checksum(dataset, source):
    path = dataset / "data" / "train-00000-of-00003.parquet"
    raw = bytearray(path.read_bytes())
    raw[raw.index(list(source)[1].jpeg) + 500] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"train-00000-of-00003\.parquet: expected a whole Parquet file: .*CRC"):
        list(open_set(dataset))


def test_a_name_that_is_no_text_is_told_with_its_picture(tmp_path):
    nameless = LabelledSet.of([Sample("bea/\udcff.jpg", picture(), 1, {})])
    with pytest.raises(ValueError, match=r"pictures bea/.*surrogates not allowed"):
        write_dataset(tmp_path, nameless, "a set")
