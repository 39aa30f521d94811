import hashlib
import io
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recognition.formats.shards import Sample, decode_crop, load_training_set, read_shards, write_shard


def jpeg(seed: int = 0, size=(112, 112), grey: bool = False) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    (image.convert("L") if grey else image).save(file, "JPEG", quality=95)
    return file.getvalue()


def photo(identity: int, number: int, **about) -> Sample:
    return Sample(f"{identity:06d}_{number:03d}", jpeg(10 * identity + number), identity, {"seed": number, **about})


@pytest.fixture
def samples():
    return [photo(identity, number, attributes={"yaw_deg": 30.5}) for identity in (7, 12) for number in range(3)]


@pytest.fixture
def shard(tmp_path, samples):
    write_shard(tmp_path / "000000.tar", samples)
    return tmp_path / "000000.tar"


def write_tar(path, members: list[tuple[str, bytes]], **header) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in header.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))


def members_of(sample: Sample) -> list[tuple[str, bytes]]:
    return [(f"{sample.key}.jpg", sample.jpeg), (f"{sample.key}.cls", b"7"), (f"{sample.key}.json", b"{}")]


keys = st.text("abcXYZ019_-", min_size=1, max_size=80)
about = st.dictionaries(
    st.text(max_size=8), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8))
)


@given(
    contents=st.lists(
        st.tuples(keys, st.binary(max_size=2000), st.integers(0, 10**12), about),
        max_size=6,
        unique_by=lambda row: row[0],
    )
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_and_its_hash_is_the_file_s(contents, tmp_path_factory):
    samples = [Sample(*row) for row in contents]
    path = tmp_path_factory.mktemp("shard") / "000000.tar"
    sha256 = write_shard(path, samples)
    assert list(read_shards([path])) == samples
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_samples_give_the_same_bytes(tmp_path, samples):
    first = write_shard(tmp_path / "a.tar", samples)
    assert write_shard(tmp_path / "b.tar", iter(samples)) == first


def test_a_member_tells_nothing_of_the_machine_that_wrote_it(shard):
    with tarfile.open(shard) as tar:
        for member in tar:
            facts = (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode)
            assert facts == (0, 0, 0, "", "", 0o444)
            assert not member.pax_headers


def test_the_members_of_a_sample_are_neighbours_in_a_fixed_order(shard):
    with tarfile.open(shard) as tar:
        names = tar.getnames()
    assert names[:3] == ["000007_000.jpg", "000007_000.cls", "000007_000.json"]


@pytest.mark.parametrize("key", ["a.b", "", "../a", "a/b", "ä", "a" * 81, "a\n"])
def test_a_key_that_readers_would_take_apart_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="key: expected 1 to 80 letters"):
        write_shard(tmp_path / "a.tar", [Sample(key, b"", 0, {})])


def test_a_key_is_written_once(tmp_path):
    with pytest.raises(ValueError, match="'000001_000' twice"):
        write_shard(tmp_path / "a.tar", [photo(1, 0), photo(2, 0), photo(1, 0)])


def test_values_that_json_or_the_label_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"about [0-9_]+: expected what survives JSON: .*JSON compliant"):
        write_shard(tmp_path / "a.tar", [photo(1, 0, yaw_deg=float("nan"))])
    with pytest.raises(ValueError, match="identity_id of k: expected at least 0, got -1"):
        write_shard(tmp_path / "a.tar", [Sample("k", b"", -1, {})])


def test_webdataset_reads_a_shard(shard, samples):
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil").to_tuple("jpg", "cls", "json"))
    assert [(label, about) for _, label, about in read] == [(s.identity_id, s.about) for s in samples]
    np.testing.assert_array_equal(np.asarray(read[4][0]), decode_crop(samples[4]))


def test_datasets_reads_a_shard(shard, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets  # after the environment, which it reads then

    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": [str(shard)]}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["__key__"][:] == [sample.key for sample in samples]
    assert loaded["cls"][:] == [sample.identity_id for sample in samples]
    assert loaded[2]["json"] == samples[2].about
    np.testing.assert_array_equal(np.asarray(loaded[2]["jpg"]), decode_crop(samples[2]))


def test_labels_are_the_places_of_the_identities_in_ascending_order(tmp_path):
    write_shard(tmp_path / "0.tar", [photo(12, 0), photo(7, 0)])
    write_shard(tmp_path / "1.tar", [photo(900, 0), photo(7, 1)])
    loaded = load_training_set([tmp_path / "0.tar", tmp_path / "1.tar"])
    assert loaded.identity_ids.tolist() == [7, 12, 900]
    assert loaded.labels.tolist() == [1, 0, 2, 0]
    assert loaded.keys == ("000012_000", "000007_000", "000900_000", "000007_001")
    assert (loaded.images.dtype, loaded.labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(loaded.images[2], decode_crop(photo(900, 0)))


def test_a_crop_is_decoded_as_rgb():
    file = io.BytesIO()
    Image.new("RGB", (112, 112), (250, 10, 20)).save(file, "JPEG", quality=95)
    red = decode_crop(Sample("red", file.getvalue(), 0, {}))
    assert np.abs(red.astype(int) - (250, 10, 20)).max() <= 3
    assert decode_crop(Sample("grey", jpeg(grey=True), 0, {})).shape == (112, 112, 3)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "cannot identify"),
        (b"not a picture", "cannot identify"),
        (jpeg()[:-900], "truncated"),
        (jpeg(size=(128, 112)), "expected 112x112 pixels, got 128x112"),
    ],
)
def test_a_broken_picture_names_its_key(tmp_path, content, fault):
    write_shard(tmp_path / "a.tar", [photo(1, 0), Sample("broken_one", content, 3, {})])
    with pytest.raises(ValueError, match=f"picture broken_one: .*{fault}"):
        load_training_set([tmp_path / "a.tar"])


def test_a_picture_in_another_format_is_not_even_tried(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (112, 112)).save(file, "BMP")
    with pytest.raises(ValueError, match="picture a: cannot identify JPEG or PNG: it begins"):
        decode_crop(Sample("a", file.getvalue(), 0, {}))


def test_no_samples_and_repeated_shards_are_refused(shard, tmp_path):
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        load_training_set([])
    with pytest.raises(ValueError, match="'000007_000' twice"):
        load_training_set([shard, shard])


def test_an_empty_shard_is_a_shard_without_samples(tmp_path):
    write_shard(tmp_path / "empty.tar", [])
    assert list(read_shards([tmp_path / "empty.tar"])) == []


def test_a_tar_cut_off_anywhere_is_refused(tmp_path, samples):
    write_shard(tmp_path / "whole.tar", samples[:2])
    whole = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        last = tar.getmembers()[-1]
    needed = last.offset_data + 512 + 1024  # the last member and two zero blocks; the rest is padding
    path = tmp_path / "cut.tar"
    for length in [*range(0, needed, 512), *range(100, needed, 1700), needed - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.tar"):
            list(read_shards([path]))


def test_a_damaged_header_is_not_taken_for_the_end(shard):
    with tarfile.open(shard) as tar:
        place = tar.getmembers()[6].offset
    content = bytearray(shard.read_bytes())
    content[place + 150] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="cut off or damaged there"):
        list(read_shards([shard]))


def test_what_is_not_a_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match=r"a\.tar: expected a whole tar"):
        list(read_shards([tmp_path / "a.tar"]))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd.jpg", "../a.jpg", "a/b.jpg", "a.png", "a.b.jpg", "a", ".jpg", "a.jpg.exe", "a.JPG"],
)
def test_a_hostile_or_foreign_name_is_refused(tmp_path, name):
    write_tar(tmp_path / "a.tar", [*members_of(photo(7, 0)), (name, b"1")])
    with pytest.raises(ValueError, match=r"a\.tar: expected names <key>\.jpg"):
        list(read_shards([tmp_path / "a.tar"]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(tmp_path, kind):
    write_tar(tmp_path / "a.tar", [("a.jpg", b"")], type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match=r"a\.tar: expected plain files only"):
        list(read_shards([tmp_path / "a.tar"]))


def test_a_member_beyond_its_size_is_refused_before_it_is_read(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.cls", b"1" * 21)])
    with pytest.raises(ValueError, match=r"expected a\.cls within 20 bytes, found 21"):
        list(read_shards([tmp_path / "a.tar"]))


def test_members_twice_apart_or_missing_are_refused(tmp_path):
    one, two = members_of(photo(1, 0)), members_of(photo(2, 0))
    cases = {
        "once, next to": [one[0], one[0], *one[1:]],
        "once, next to the": [*one, *two, one[0]],
        "found only jpg, cls": [*one[:2], *two],
        "found only jpg": [*one, two[0]],
    }
    for fault, members in cases.items():
        write_tar(tmp_path / "a.tar", members)
        with pytest.raises(ValueError, match=fault):
            list(read_shards([tmp_path / "a.tar"]))


@pytest.mark.parametrize(
    ("extension", "content", "fault"),
    [
        ("cls", b"-3", "whole number in a.cls"),
        ("cls", b"seven", "whole number in a.cls"),
        ("cls", b"7\n", "whole number in a.cls"),
        ("json", b"{", "JSON in a.json"),
        ("json", b"\xff", "JSON in a.json"),
        ("json", b'{"a": NaN}', "JSON in a.json"),
        ("json", b"[" * 100_000, "JSON in a.json"),
        ("json", b"[]", "an object in a.json, found list"),
    ],
)
def test_a_malformed_label_or_description_is_refused(tmp_path, extension, content, fault):
    members = {"jpg": jpeg(), "cls": b"1", "json": b"{}", extension: content}
    write_tar(tmp_path / "a.tar", [(f"a.{name}", value) for name, value in members.items()])
    with pytest.raises(ValueError, match=fault):
        list(read_shards([tmp_path / "a.tar"]))
