"""Verification sets on disk: read as insightface reads them, and safely."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import bins
from benchmarks.bins import read_bin, write_bin

GOLDEN = Path(__file__).parents[1] / "golden" / "lfw_bin"


def picture(seed: int, side_px: int = 112, kind: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (7, 7, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side_px, side_px)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [picture(seed) for seed in range(4)]


@pytest.mark.parametrize(
    ("file", "prefix"), [("lfw_py3", ""), ("lfw_py2", ""), ("lfw_ndarray", ""), ("lfw_larger", "larger_")]
)
def test_pictures_and_labels_are_those_of_insightface(file, prefix):
    recorded = np.load(GOLDEN / "decoded.npz")
    images, same = read_bin(GOLDEN / f"{file}.bin")
    expected = recorded["larger_images" if prefix else "images"]
    assert np.abs(images.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(same, recorded[f"{prefix}issame"])


def test_what_is_written_is_what_insightface_loads(tmp_path, jpegs):
    write_bin(tmp_path / "world.bin", jpegs, np.array([True, False]))
    loaded = pickle.loads((tmp_path / "world.bin").read_bytes())  # noqa: S301  as load_bin does, on our own file
    assert loaded == (jpegs, [True, False])
    assert type(loaded[1][0]) is bool
    images, same = read_bin(tmp_path / "world.bin")
    np.testing.assert_array_equal(images[3], np.asarray(Image.open(io.BytesIO(jpegs[3]))))
    assert same.tolist() == [True, False]


def test_writing_twice_gives_the_same_bytes_and_leaves_no_part(tmp_path, jpegs):
    for name in ("a.bin", "b.bin"):
        write_bin(tmp_path / name, jpegs, np.array([True, False]))
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_a_writer_refuses_three_pictures_for_two_pairs(tmp_path, jpegs):
    with pytest.raises(ValueError, match=r"two pictures for each .* got 3 for 2 pairs"):
        write_bin(tmp_path / "odd.bin", jpegs[:3], np.array([True, False]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("labels", [[True, False], [1, 0], [np.True_, np.False_], np.array([True, False])], ids=str)
@pytest.mark.parametrize("store", [bytes, lambda jpeg: np.frombuffer(jpeg, np.uint8)], ids=["bytes", "array"])
def test_the_ways_in_which_such_files_are_pickled_are_all_read(tmp_path, jpegs, protocol, labels, store):
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(([store(jpeg) for jpeg in jpegs], labels), protocol=protocol))
    images, same = read_bin(path)
    assert same.tolist() == [True, False]
    assert images.shape == (4, 112, 112, 3)


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(jpegs: list[bytes], proof: str) -> dict[str, bytes]:
    touch = f"touch {proof}"
    text = struct.pack("<I", len(touch)) + touch.encode()
    return {
        "os.system among the pictures": pickle.dumps(([Calls(os.system, touch), *jpegs[1:]], [True, False])),
        "eval as the labels": pickle.dumps((jpegs, Calls(eval, f"open({proof!r}, 'w')"))),
        "an old-style global": b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR.",
        "an instance": b"(X" + text + b"ios\nsystem\n.",
        "an object": b"(cos\nsystem\nX" + text + b"o.",
        "a new object": b"\x80\x02cos\nsystem\nX" + text + b"\x85\x81.",
        "a name inside a name that is allowed": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__reduce__\x93.",
        "a module as a tuple": b"\x80\x04\x85\x8c\x07ndarray\x93.",
        "a call of an array class": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        "a state set on a function": b"\x80\x02c_codecs\nencode\nN}\x86b.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "a dictionary": pickle.dumps({"pictures": jpegs}),
        "gigabytes of memo": b"\x80\x04]r\xff\xff\xff\xff.",
        "gigabytes of one picture": b"\x80\x04]\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "an array larger than its content": pickle.dumps(np.zeros(9, np.uint8)).replace(
            b"K\x09\x85", b"J\xff\xff\xff\x7f\x85"
        ),
        "a list within itself": b"\x80\x04]\x94h\x00a.",
        "tuples within tuples": b"\x80\x04)" + b"\x85" * 100_000 + b".",
        "tuples within tuples as a name": b"\x80\x04)" + b"\x85" * 100_000 + b"\x94h\x00\x93.",
        "nothing": b"",
    }


@pytest.mark.parametrize("attack", hostile([b""] * 4, ""))
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path, jpegs, attack):
    proof = tmp_path / "it-ran"
    path = tmp_path / "evil.bin"
    path.write_bytes(hostile(jpegs, str(proof))[attack])
    with pytest.raises(ValueError, match=r"evil\.bin: "):
        read_bin(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (lambda j: (j[:3], [True, False]), "got 3 pictures and 2 labels"),
        (lambda j: ([], []), "got 0 pictures and 0 labels"),
        (lambda j: (j, [True, 2]), "True or False as label 1"),
        (lambda j: ([*j[:3], "text"], [True, False]), "bytes as picture 3, got str"),
        (lambda j: ([*j[:3], b"not a picture"], [True, False]), "picture 3: cannot identify JPEG or PNG"),
        (lambda j: ([*j[:3], j[3][:-40]], [True, False]), "picture 3: image file is truncated"),
        (lambda j: ([*j[:3], np.arange(9.0)], [True, False]), "one byte per element"),
        (
            lambda j: ([*j[:3], picture(9, 2000)], [True, False]),
            "picture 3: expected sides of at most 1024 pixels, got 2000x2000",
        ),
        (lambda j: (j, [True, False], 3), r"a pair \(pictures, labels\)"),
    ],
)
def test_a_fault_is_named_with_its_file(tmp_path, jpegs, content, fault):
    path = tmp_path / "broken.bin"
    path.write_bytes(pickle.dumps(content(jpegs), protocol=4))
    with pytest.raises(ValueError, match=rf"broken\.bin: .*{fault}"):
        read_bin(path)


def test_a_file_beyond_the_limits_is_refused_before_it_is_read(tmp_path, jpegs, monkeypatch):
    write_bin(tmp_path / "big.bin", jpegs, np.array([True, False]))
    monkeypatch.setattr(bins, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        read_bin(tmp_path / "big.bin")
    monkeypatch.setattr(bins, "MAX_FILE_BYTES", 2**31)
    monkeypatch.setattr(bins, "MAX_PAIRS", 1)
    with pytest.raises(ValueError, match="1 to 1 pairs"):
        read_bin(tmp_path / "big.bin")


def test_a_file_cut_at_any_byte_is_refused(tmp_path, jpegs):
    write_bin(tmp_path / "whole.bin", [picture(0, 16), picture(1, 16)], np.array([True]))
    whole, path = (tmp_path / "whole.bin").read_bytes(), tmp_path / "cut.bin"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.bin: "):
            read_bin(path)
    path.write_bytes(whole + b"\n")
    with pytest.raises(ValueError, match="expected the end of the file"):
        read_bin(path)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_never_change_the_count_nor_raise_anything_but_value_error(tmp_path, data):
    name = data.draw(st.sampled_from(["lfw_larger.bin", "lfw_ndarray.bin", "lfw_py2.bin"]))
    content = bytearray((GOLDEN / name).read_bytes())
    head = st.integers(0, 400)  # the program stands between the pictures, mostly at both ends
    anywhere = st.integers(0, len(content) - 1)
    for position in data.draw(
        st.lists(head | head.map(lambda p: len(content) - 1 - p) | anywhere, min_size=1, max_size=6)
    ):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.bin"
    path.write_bytes(content)
    try:
        images, same = read_bin(path)
    except ValueError as fault:
        assert "flipped.bin: " in str(fault)  # noqa: PT017
    else:
        assert len(images) == 2 * len(same) == (6 if name == "lfw_larger.bin" else 24)
