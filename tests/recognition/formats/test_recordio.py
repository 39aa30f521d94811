"""RecordIO: MXNet's bytes, insightface's layouts, and files of strangers."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.formats import LabelledSet, Sample, decode_crop, open_set
from recognition.formats import recordio as module
from recognition.formats.recordio import MAGIC, open_records, pack, read_record, unpack, write_record, write_records
from tests.recognition.formats.making import contents, damaged, jpeg_like, people, same_people_or_refused, sets

GOLDEN = Path(__file__).parents[2] / "golden" / "recordio"
LAYOUTS = ("insightface", "headerless")


@pytest.fixture
def two_people() -> LabelledSet:
    return people({3: 3, 20: 2})


@pytest.fixture(params=LAYOUTS)
def written(request, tmp_path, two_people):
    write_records(tmp_path, two_people, request.param)
    return tmp_path


def recorded(folder: Path) -> list[bytes]:
    """The payloads of a golden file, in its order."""
    with (folder / "train.rec").open("rb") as file:
        return [read_record(file) for _ in (folder / "train.idx").read_text().splitlines()]


@pytest.mark.parametrize("layout", ["", "headerless"])
def test_what_mxnet_wrote_is_read_exactly(layout):
    known = np.load(GOLDEN / layout / "decoded.npz")
    opened = open_records(GOLDEN / layout / "train.rec")
    starts, raw = known["jpeg_offsets"], known["jpeg_bytes"].tobytes()
    assert opened.keys == tuple(map(str, known["keys"]))
    np.testing.assert_array_equal(opened.identity_ids, known["labels"])
    samples = list(opened)
    assert [s.jpeg for s in samples] == [raw[a:b] for a, b in itertools.pairwise(starts)]
    assert [len(s.about.get("label_vector", ())) for s in samples] == known["flags"].tolist()
    for sample, image in zip(samples, known["images"], strict=False):
        assert np.abs(decode_crop(sample).astype(int) - image).max() <= 1


def test_headers_of_mxnet_are_taken_apart_exactly():
    known, payloads = np.load(GOLDEN / "decoded.npz"), recorded(GOLDEN)
    assert unpack(payloads[0]).labels.tolist() == known["header0"].tolist()
    assert [unpack(p).labels.tolist() for p in payloads[16:]] == known["identity_ranges"].tolist()
    assert [unpack(p).id for p in payloads[1:16]] == list(range(1, 16))


@pytest.mark.parametrize("layout", ["", "headerless"])
def test_payloads_of_mxnet_are_written_as_its_own_bytes(layout):
    file = io.BytesIO()
    for payload in recorded(GOLDEN / layout):
        write_record(file, payload)
    assert file.getvalue() == (GOLDEN / layout / "train.rec").read_bytes()


def test_what_recbuilder_wrote_is_written_as_its_own_bytes(tmp_path):
    write_records(tmp_path, open_records(GOLDEN / "headerless" / "train.rec"), "headerless")
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / name).read_bytes() == (GOLDEN / "headerless" / name).read_bytes()


@given(payload=jpeg_like)
@settings(max_examples=200, deadline=None)
def test_any_payload_comes_back_and_no_part_holds_a_magic_at_a_multiple_of_4(payload):
    file = io.BytesIO()
    write_record(file, payload)
    raw = file.getvalue()
    places = [place for place in range(0, len(raw), 4) if raw[place : place + 4] == MAGIC]
    lengths = [struct.unpack_from("<I", raw, place + 4)[0] & (1 << 29) - 1 for place in places]
    assert len(raw) == sum(8 + length + -length % 4 for length in lengths)  # every magic in sight is a head
    file.seek(0)
    assert read_record(file) == payload
    assert file.read() == b""


@given(source=sets, layout=st.sampled_from(LAYOUTS))
@settings(max_examples=60, deadline=None)
def test_a_set_comes_back_by_person_with_its_bytes(source, layout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rec")
    write_records(folder, source, layout)
    opened = open_set(folder)
    expected = sorted(zip(source.labels.tolist(), range(len(source)), strict=True))
    assert contents(opened) == [(label, list(source)[row].jpeg) for label, row in expected]


def test_the_same_set_gives_the_same_bytes_and_nothing_else_is_there(tmp_path, two_people):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name, two_people)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert sorted(files) == ["property", "train.idx", "train.lst", "train.rec"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert files["property"] == b"2,112,112\n"
    assert files["train.lst"].splitlines()[3] == b"4\t1\t000020/000020_000.jpg"


def test_rows_may_be_read_in_any_order_and_a_set_again_and_again(written):
    opened = open_set(written)
    whole = list(opened)
    assert list(opened.read([4, 0, 4])) == [whole[4], whole[0], whole[4]]
    assert list(opened) == whole


def test_a_payload_whose_header_holds_the_magic_is_read(tmp_path):
    (number,) = struct.unpack("<Q", MAGIC + b"\0\0\0\0")
    with (tmp_path / "a.rec").open("wb") as file:
        write_record(file, pack(7, number, b"picture"))
    (tmp_path / "a.idx").write_text("5\t0\n")
    assert list(open_set(tmp_path / "a.rec")) == [Sample("5", b"picture", 7, {})]


def test_labels_beyond_float32_are_refused_when_written_and_when_read(tmp_path):
    assert unpack(pack(2**24, 1, b"x")).labels == [2**24]
    for label in (2**24 + 1, -1, 0.5):
        with pytest.raises(ValueError, match=r"label of record 1: expected whole numbers from 0 to 2\*\*24"):
            pack(label, 1, b"x")
    for label in (2.0**24, 0.5, -1.0, float("nan"), float("inf")):
        with (tmp_path / "a.rec").open("wb") as file:
            write_record(file, struct.pack("<IfQQ", 0, label, 1, 0) + b"x")
        (tmp_path / "a.idx").write_text("1\t0\n")
        with pytest.raises(ValueError, match=r"a\.rec: expected whole labels .* at key 1"):
            open_records(tmp_path / "a.rec")


def test_more_records_than_float32_can_number_are_refused_before_anything_is_written(tmp_path, two_people, monkeypatch):
    monkeypatch.setattr(module, "EXACT", 7)
    with pytest.raises(ValueError, match="headerless layout has no such limit"):
        write_records(tmp_path, two_people)
    assert not list(tmp_path.iterdir())
    write_records(tmp_path, two_people, "headerless")


# --- files of strangers ----------------------------------------------------------------------------------------------


def rewrite(folder: Path, change) -> None:
    """Changes the payloads, by key, and writes index and records anew."""
    lines = (folder / "train.idx").read_text().splitlines()
    with (folder / "train.rec").open("rb") as file:
        payloads = {int(line.split("\t")[0]): read_record(file) for line in lines}
    change(payloads)
    index = []
    with (folder / "train.rec").open("wb") as file:
        for key, payload in payloads.items():
            index.append(f"{key}\t{file.tell()}\n")
            write_record(file, payload)
    (folder / "train.idx").write_text("".join(index))


def set_labels(key: int, *labels: float):
    return lambda payloads: payloads.update(
        {key: pack(labels if len(labels) > 1 else labels[0], key, payloads[key][32:])}
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (set_labels(0, 6, 99), "expected the keys 0 to 98 that its header record speaks of, found 8 up to 7"),
        (set_labels(0, 9, 8), r"expected labels \[first identity key, end\) in the header record, found \[9.0, 8.0\)"),
        (set_labels(0, 5, 8), "expected an identity record, two whole labels and no picture, at key 5"),
        (set_labels(6, 1, 5), "identity records that share the keys 1 to 5 out"),
        (set_labels(6, 2, 4), "identity records that share the keys 1 to 5 out"),
        (set_labels(7, 4, 9), "identity records that share the keys 1 to 5 out"),
        (
            lambda p: p.update({2: pack(1, 2, b"x")}),
            "one label in an identity record's range, found 1.0 and 0.0 at key 2",
        ),
        (
            lambda p: [p.update({k: pack(0, k, b"x")}) for k in (4, 5)],
            "a label of its own for each of 2 identity records",
        ),
        (lambda p: p.update({3: pack(0, 3, b"")}), "expected a picture at key 3, found a record without one"),
        (lambda p: p.update({3: b"short"}), "expected a header of 24 bytes, found 5"),
        (lambda p: p.update({3: struct.pack("<IfQQ", 2**31, 0, 3, 0)}), "found a claim of 2147483648"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(tmp_path, two_people, change, fault):
    write_records(tmp_path, two_people)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=rf"train\.rec: .*{fault}"):
        open_set(tmp_path)


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ("", "expected a line for each"),
        ("0\t0\n" * 4000, "expected a line for each"),
        ("0 0\n", "expected 'key<TAB>offset' in line 1"),
        ("0\t0", "expected 'key<TAB>offset' in line 1"),
        ("0\t-4\n", "expected 'key<TAB>offset' in line 1"),
        ("0\t" + "9" * 19 + "\n", "expected 'key<TAB>offset' in line 1"),
        ("0\t0\n0\t4\n", "expected each key once, found 0 2 times"),
        ("0\t4\n", "expected the offset of a record at key 0, found 4, where none begins"),
        ("0\t99999999\n", "expected the offset of a record at key 0, found 99999999, where none begins"),
        ("0\t0\n", "expected each record once, found that at byte [0-9]+ 0 times"),
        ("0\t0\n1\t0\n", "expected each record once, found that at byte 0 2 times"),
    ],
)
def test_an_index_that_lies_is_refused(written, index, fault):
    (written / "train.idx").write_text(index)
    with pytest.raises(ValueError, match=rf"train\.idx: {fault}"):
        open_set(written)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("2,128,128\n", "expected 'classes,112,112'"),
        ("two,112,112\n", "expected 'classes,112,112'"),
        ("1,112,112\n", "more classes than the largest label 1, found 1"),
        ("2,112,112\n6\n", "5 pictures in its second line, found 6"),
    ],
)
def test_a_property_file_that_lies_is_refused(written, text, fault):
    (written / "property").write_text(text)
    with pytest.raises(ValueError, match=rf"property: .*{fault}"):
        open_set(written)


def test_without_an_index_nothing_is_guessed(written):
    (written / "train.idx").unlink()
    with pytest.raises(ValueError, match=r"train\.rec: expected its index train\.idx beside it"):
        open_set(written)


def test_a_length_that_lies_takes_no_memory(written, monkeypatch):
    raw = bytearray((written / "train.rec").read_bytes())
    raw[4:8] = struct.pack("<I", (1 << 29) - 1)
    (written / "train.rec").write_bytes(raw)
    with pytest.raises(ValueError, match=r"train\.rec: record at byte 0: expected 536870911 bytes .* the file's end"):
        open_set(written)
    with (written / "train.rec").open("r+b") as file:
        file.truncate(1 << 30)  # sparse: the claim fits the file now
    with pytest.raises(ValueError, match="expected at most 1678"):
        open_set(written)


def test_a_length_that_swallows_the_next_record_is_noticed(tmp_path):
    file = io.BytesIO()
    for number in (0, 1):
        write_record(file, pack(number, number, b"a picture, 4"))
    raw = bytearray(file.getvalue())
    raw[4:8] = struct.pack("<I", len(raw) - 8)
    (tmp_path / "a.rec").write_bytes(raw)
    (tmp_path / "a.idx").write_text("0\t0\n")  # an index that goes along with it
    with pytest.raises(ValueError, match=r"a\.rec: key 0: .* expected no magic inside a part"):
        list(open_set(tmp_path / "a.rec"))


def test_a_file_cut_off_anywhere_is_refused(written):
    whole = (written / "train.rec").read_bytes()
    for length in [*range(0, len(whole), 301), len(whole) - 1]:
        (written / "train.rec").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="train"):
            open_set(written)


@given(layout=st.sampled_from(LAYOUTS), name=st.sampled_from(["train.rec", "train.idx", "property"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_refused_or_leaves_people_and_their_number_as_they_are(layout, name, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    source = LabelledSet.of([Sample(f"k{k}", b"\xff\xd8\xff" + bytes([k]) * 9, k // 2, {}) for k in range(4)])
    write_records(folder, source, layout)
    before = contents(open_set(folder))
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), data))
    # without identity records, a label is one float32 and nothing stands against it
    guarded = not (layout == "headerless" and name == "train.rec")
    same_people_or_refused(lambda: open_set(folder), before, folder, guarded)
