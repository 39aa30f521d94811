"""Image folders: order, numbers, what is refused and what is told of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings

from recognition.formats import LabelledSet, Sample, decode_crop, open_set, write_folder
from recognition.formats import folder as module
from tests.recognition.formats.making import contents, people, picture, sets


@pytest.fixture
def faces(tmp_path) -> Path:
    """Two people of two pictures each, JPEG and PNG."""
    for name, files in {"bea": ("2.jpg", "10.PNG"), "Abe": ("b.jpeg", "a.png")}.items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        for file in files:
            kind = "PNG" if file.lower().endswith("png") else "JPEG"
            (tmp_path / "faces" / name / file).write_bytes(picture(len(file), kind=kind))
    return tmp_path / "faces"


def test_identities_and_pictures_come_in_the_order_of_their_names(faces):
    opened = open_set(faces)
    assert opened.keys == ("Abe/a.png", "Abe/b.jpeg", "bea/10.PNG", "bea/2.jpg")
    assert opened.identity_ids.tolist() == [0, 0, 1, 1]
    assert (opened.kind, opened.left_out) == ("folder", ())
    assert [sample.jpeg for sample in opened] == [(faces / key).read_bytes() for key in opened.keys]
    assert all(decode_crop(sample).shape == (112, 112, 3) for sample in opened)


def test_folders_named_by_numbers_are_those_identities(faces):
    (faces / "Abe").rename(faces / "000123")
    (faces / "bea").rename(faces / "7")
    assert open_set(faces).identity_ids.tolist() == [123, 123, 7, 7]
    (faces / "007").mkdir()
    (faces / "007" / "a.jpg").write_bytes(picture())
    with pytest.raises(ValueError, match="a number of its own for each subfolder, found two that mean 7"):
        open_set(faces)


@given(source=sets)
@settings(max_examples=30, deadline=None)
def test_a_set_comes_back_by_person_with_its_bytes(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_folder(folder, source)
    assert contents(open_set(folder)) == sorted(contents(source), key=lambda row: row[0])


def test_a_picture_has_the_name_of_its_key_and_the_ending_of_its_format(tmp_path):
    write_folder(tmp_path, LabelledSet.of([Sample("a", picture(), 7, {}), Sample("b", picture(kind="PNG"), 7, {})]))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == ["000007/a.jpg", "000007/b.png"]
    (tmp_path / "again").mkdir()
    write_folder(tmp_path / "again", LabelledSet.of([Sample("a/b.jpg", picture(), 7, {})]))  # no name for a file
    assert (tmp_path / "again" / "000007" / "00000000.jpg").is_file()


def test_what_is_neither_jpeg_nor_png_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"picture a: expected a JPEG or PNG, found one that begins b'GIF8"):
        write_folder(tmp_path, LabelledSet.of([Sample("a", b"GIF89a", 7, {})]))


def test_many_files_are_put_on_the_disk_while_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SYNC_EVERY", 2)
    synced = []
    monkeypatch.setattr(module, "sync", lambda path: synced.append(path))
    write_folder(tmp_path, people({1: 3, 2: 2}))
    assert {path for path in synced if path.is_file()} == set(tmp_path.rglob("*.jpg"))


def test_hidden_files_and_files_beside_the_folders_are_told_of(faces):
    for name in (".DS_Store", "labels.csv", "Abe/._a.png", "bea/.thumbs"):
        (faces / name).write_bytes(b"1")
    (faces / ".git").mkdir()
    opened = open_set(faces)
    assert opened.left_out == (".DS_Store", ".git", "labels.csv", "Abe/._a.png", "bea/.thumbs")
    assert len(opened) == 4


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: (f / "stray.jpg").write_bytes(b"1"), "expected subfolders of identities, found 'stray.jpg'"),
        (lambda f: (f / "bea" / "notes.txt").write_bytes(b"1"), r"bea: expected pictures .* found 'notes.txt'"),
        (lambda f: (f / "bea" / "more").mkdir(), r"bea: expected pictures .* found 'more'"),
        (lambda f: (f / "Cy").mkdir(), "Cy: expected at least 1 picture of this identity"),
        (lambda f: (f / "bea" / "x.jpg").symlink_to(f.parent / "outside.jpg"), "stay within .*outside.jpg"),
        (lambda f: (f / "bea" / "x.jpg").symlink_to("/etc/hostname"), "x.jpg: expected links that stay within"),
        (lambda f: (f / "Cy").symlink_to("/etc"), "Cy: expected links that stay within"),
        (lambda f: (f / "Cy").symlink_to("Cy"), "Cy: expected a link to something in"),
        (lambda f: (f / "bea" / "x.jpg").symlink_to("gone"), "x.jpg: expected a link to something in"),
        (lambda f: os.mkfifo(f / "bea" / "x.jpg"), r"bea: expected pictures .* found 'x.jpg'"),
    ],
)
def test_what_does_not_belong_is_refused(faces, change, fault):
    (faces.parent / "outside.jpg").write_bytes(picture())
    change(faces)
    with pytest.raises(ValueError, match=fault):
        open_set(faces)


def test_a_link_within_the_folder_is_followed(faces):
    (faces / "bea" / "3.jpg").symlink_to(faces / "Abe" / "a.png")
    assert open_set(faces).keys[-1] == "bea/3.jpg"


def test_empty_and_huge_files_are_refused_when_they_are_read(faces, monkeypatch):
    (faces / "bea" / "2.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2\.jpg: expected 1 to 16777216 bytes, found 0"):
        list(open_set(faces))
    os.truncate(faces / "bea" / "2.jpg", 1 << 40)
    with pytest.raises(ValueError, match=r"2\.jpg: expected 1 to 16777216 bytes, found 1099511627776"):
        list(open_set(faces))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (picture(side_px=250), "expected 112x112 pixels, got 250x250"),
        (picture()[:-300], "truncated"),
        (picture(kind="PNG")[:-60], "picture bea/2.jpg: "),
        (picture(kind="GIF", mode="P"), "cannot identify"),
        (picture(kind="PNG", mode="RGBA"), "expected grey or RGB pixels, got RGBA"),
        (picture(kind="JPEG", mode="CMYK"), "expected grey or RGB pixels, got CMYK"),
        (b"\x89PNG\r\n\x1a\n", "picture bea/2.jpg: "),
    ],
)
def test_a_broken_picture_names_its_key(faces, content, fault):
    (faces / "bea" / "2.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=f"picture bea/2.jpg: .*{fault}" if "bea" not in fault else fault):
        [decode_crop(sample) for sample in open_set(faces)]
