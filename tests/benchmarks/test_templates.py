"""IJB templates: the recorded figures of insightface, and meta files that are believed only when they agree."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import templates
from benchmarks.templates import (
    SETTINGS,
    embed_pictures,
    nearest_fpr_table,
    pair_scores,
    read_templates,
    score_templates,
    template_vectors,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "ijb_templates" / "ijb.npz"


@pytest.fixture(scope="module")
def recorded():
    return dict(np.load(GOLDEN))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_figure_is_the_recorded_one_under_all_eight_settings(recorded, setting):
    z = recorded
    names, vectors = template_vectors(
        z["image_features"], z["template_ids"], z["media_ids"], z["faceness"], SETTINGS[setting]
    )
    scores = pair_scores(names, vectors, z["p1"], z["p2"])
    table = nearest_fpr_table(scores, z["label"] == 1, z["fpr_targets"].tolist())
    np.testing.assert_array_equal(names, z["unique_templates"])
    np.testing.assert_allclose(vectors, z[f"{setting}.template_features"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores, z[f"{setting}.scores"], rtol=0, atol=1e-6)
    assert [f"{100 * tpr:.2f}" for _, tpr, _ in table] == z[f"{setting}.table_percent"].tolist()
    np.testing.assert_allclose([fpr for *_, fpr in table], z[f"{setting}.fpr_reached"], atol=1e-12)
    assert templates.auc(scores, z["label"] == 1) == pytest.approx(float(z[f"{setting}.auc"]), abs=1e-6)


def test_small_blocks_give_the_same_templates(recorded, monkeypatch):
    z = recorded
    arguments = z["image_features"], z["template_ids"], z["media_ids"], z["faceness"]
    whole = template_vectors(*arguments)[1]
    monkeypatch.setattr(templates, "_BLOCK", 7)
    names, vectors = template_vectors(*arguments)
    np.testing.assert_array_equal(vectors, whole)
    np.testing.assert_allclose(pair_scores(names, vectors, z["p1"], z["p2"]), z["N1D1F1.scores"], atol=1e-6)


def test_a_template_without_a_direction_is_named():
    features = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [1, 1, 0, 0]], np.float32)
    with pytest.raises(ValueError, match="template 4: expected a direction"):
        template_vectors(features, np.array([4, 4, 5]), np.array([1, 2, 1]), np.ones(3, np.float32))


PEOPLE = 8


def picture(seed, side=140):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A set in IJB's layout: 8 people, 3 templates each (gallery, probe, more), 2 pictures a template."""
    meta, crops = tmp_path / "ijb" / "meta", tmp_path / "ijb" / "loose_crop"
    meta.mkdir(parents=True)
    crops.mkdir()
    tid, points, count = [], [], 0
    landmarks = "46.0 62.0 88.5 62.0 67.0 86.0 50.0 110.0 85.0 110.0"
    for template in range(3 * PEOPLE):
        for medium in (0, 1):
            count += 1
            (crops / f"{count}.jpg").write_bytes(picture(template % PEOPLE if medium else 100 + count))
            tid.append(f"{count}.jpg {template} {10 * template + medium}")
            points.append(f"{count}.jpg {landmarks} 0.9{count % 10}")
    pairs = [
        f"{a} {b} {int(a % PEOPLE == b % PEOPLE)}" for a in range(2 * PEOPLE) for b in range(2 * PEOPLE, 3 * PEOPLE)
    ]
    (meta / "ijbc_face_tid_mid.txt").write_text("\n".join(tid) + "\n")
    (meta / "ijbc_name_5pts_score.txt").write_text("\n".join(points) + "\n")
    (meta / "ijbc_template_pair_label.txt").write_text("\n".join(pairs) + "\n")
    for name, listed in (("gallery_G1", range(4)), ("gallery_G2", range(4, 8)), ("probe_mixed", range(8, 16))):
        lines = [f"{t},{t % PEOPLE},img/{t}.jpg,1" for t in listed for _ in (0, 1)]
        (meta / f"ijbc_1N_{name}.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME,X\n" + "\n".join(lines) + "\n")
    return tmp_path / "ijb"


def toy(crops):
    means = crops.astype(np.float32).reshape(len(crops), 7, 16, 7, 16, 3).mean((2, 4)).reshape(len(crops), -1)
    return means[:, :40] - 127.5


def cut(image, landmarks):
    assert landmarks.shape == (5, 2)
    return np.ascontiguousarray(image[14:126, 14:126])


def test_a_set_goes_from_its_meta_files_to_scores(folder, tmp_path):
    data = read_templates(folder)
    assert (data.name, len(data.pictures), len(data.first), int(data.same.sum())) == ("ijbc", 48, 128, 16)
    seen = []
    features = embed_pictures(data, toy, cut, tmp_path, batch=20, watch=seen.append)
    assert isinstance(features, np.memmap)
    assert seen == [20, 20, 8]
    told = score_templates(data, features)
    assert told["protocol"] == "insightface-ijb-v1 N1D1F1"
    assert told["auc"] > 0.8
    assert [point["tar"] is None for point in told["tar_at_far"]] == [False] + [True] * 5  # 112 impostor pairs
    assert [point["far_target"] for point in told["table"]] == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    ranks = told["identification"]
    assert ranks["G1"]["probes"] == ranks["G2"]["probes"] == 4
    assert ranks["mean"]["rank_1"] == (ranks["G1"]["rank_1"] + ranks["G2"]["rank_1"]) / 2
    assert ranks["G1"]["tpir_at_fpir"][0]["reason"].startswith("insufficient data: 4 probes of others")


def test_a_set_without_galleries_has_no_identification(folder, tmp_path):
    for path in folder.glob("meta/*.csv"):
        path.unlink()
    data = read_templates(folder)
    assert score_templates(data, embed_pictures(data, toy, cut, tmp_path))["identification"] is None


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("face_tid_mid", lambda t: t.replace("3.jpg 1 10", "3.jpg one 10"), r"tid_mid\.txt: .*one"),
        ("face_tid_mid", lambda t: t.replace("3.jpg 1 10", "3.jpg 1"), r"tid_mid\.txt: "),
        ("face_tid_mid", lambda t: "", r"tid_mid\.txt: "),
        ("face_tid_mid", lambda t: t + "99.jpg 3 4\n", "expected as many pictures as .* has, 49, got 48"),
        (
            "name_5pts_score",
            lambda t: t.replace("5.jpg 4", "7.jpg 4", 1),
            "expected '5.jpg' in line 5, as in .*'7.jpg'",
        ),
        ("name_5pts_score", lambda t: t.replace("46.0", "1e39", 1), "expected finite numbers, got inf"),
        ("name_5pts_score", lambda t: t.replace(" 0.91\n", "\n", 1), r"5pts_score\.txt: "),
        ("template_pair_label", lambda t: t.replace("0 17 0", "0 17 2", 1), "0 or 1 as the label in line 2, got 2"),
        ("template_pair_label", lambda t: t.replace("0 17 0", "0 99 0", 1), "got 99 in line 2, which has none"),
        ("template_pair_label", lambda t: t.replace(" 1\n", " 0\n"), "genuine and impostor pairs, got one kind"),
        ("template_pair_label", lambda t: t.replace("0 17 0", "0 " + "9" * 30 + " 0", 1), r"pair_label\.txt: "),
        ("1N_gallery_G1", lambda t: t.replace("\n2,2,", "\n77,2,"), "got 77, which has none"),
    ],
)
def test_a_fault_in_a_meta_file_is_named_with_the_file(folder, file, change, fault):
    (path,) = folder.glob(f"meta/ijbc_{file}.*")
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=fault):
        read_templates(folder)


def test_missing_pictures_and_lists_are_counted_and_named(folder):
    (folder / "loose_crop" / "7.jpg").unlink()
    with pytest.raises(ValueError, match=r"loose_crop: expected 48 pictures, 1 are not there: 7\.jpg"):
        read_templates(folder)
    (folder / "meta" / "ijbc_template_pair_label.txt").unlink()
    with pytest.raises(ValueError, match=r"ijbc_template_pair_label\.txt: expected a meta file, found none"):
        read_templates(folder)


def test_half_of_the_1_to_n_lists_is_refused(folder):
    (folder / "meta" / "ijbc_1N_gallery_G2.csv").unlink()
    with pytest.raises(ValueError, match=r"expected two galleries and ijbc_1N_probe_mixed\.csv for 1:N"):
        read_templates(folder)


def test_a_broken_picture_is_named(folder, tmp_path):
    (folder / "loose_crop" / "9.jpg").write_bytes(picture(1)[:300])
    with pytest.raises(ValueError, match=r"9\.jpg: Truncated File Read"):
        embed_pictures(read_templates(folder), toy, cut, tmp_path)


def test_a_disk_without_room_is_said_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(templates.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(ValueError, match=r"expected 0\.0 GB free for the features, got 0\.0 GB"):
        embed_pictures(read_templates(folder), toy, cut, tmp_path)
    assert not (tmp_path / "features.npy").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_of_a_meta_file_raise_nothing_but_value_errors(folder, data):
    path = data.draw(st.sampled_from(sorted((folder / "meta").iterdir())))
    before = path.read_bytes()
    content = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from(b'\x00\xff 9-,\n".e'))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        read_templates(folder)
    except ValueError as fault:
        assert "ijb" in str(fault)  # noqa: PT017
    finally:
        path.write_bytes(before)
