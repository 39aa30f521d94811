import numpy as np
import pytest

from generation.world import attribute_table, render, sample_people
from stages.records import Chunk, Identity, Images, Variation
from tests.contracts.conftest import build, names


@pytest.fixture(params=names("embedder"))
def embedder(request, tmp_path):
    return build("embedder", request.param, tmp_path)


@pytest.fixture(scope="module")
def pixels():
    people = np.repeat(sample_people(4, np.random.default_rng(2)), 2, axis=0)
    turned = attribute_table([{"yaw_deg": yaw} for yaw in (-15.0, 15.0)] * 4)
    return render(people, turned, np.arange(8)).pixels


def images_of(pixels):
    person = Identity(0, np.ones(1, np.float32), np.ones(1, np.float32))
    rows = tuple(Variation(f"000000_{k:03d}", 0, k, {}) for k in range(len(pixels)))
    return Images(Chunk(0, (person,), rows), pixels)


def test_rows_in_are_rows_out_of_unit_norm_in_a_space_with_a_name(embedder, pixels):
    faces = embedder(images_of(pixels))
    assert embedder.space
    assert faces.embeddings.shape == (8, embedder.dimensions)
    assert faces.crops.shape == (8, 112, 112, 3)
    assert np.linalg.norm(faces.embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert (faces.norms > 0).all()
    assert faces.found.all()


def test_a_face_has_the_same_bits_in_any_chunk(embedder, pixels):
    whole, part = embedder(images_of(pixels)), embedder(images_of(pixels[3:6]))
    for name in ("crops", "landmarks", "embeddings", "norms", "found"):
        assert np.array_equal(getattr(whole, name)[3:6], getattr(part, name)), name


def test_two_photographs_of_a_person_are_more_alike_than_two_people(embedder, pixels):
    embeddings = embedder(images_of(pixels)).embeddings
    cosine = embeddings @ embeddings.T
    person = np.arange(8) // 2
    genuine = (person[:, None] == person) & ~np.eye(8, dtype=bool)
    assert cosine[genuine].mean() > cosine[person[:, None] != person].mean() + 0.2


def test_a_picture_of_nothing_is_not_a_face_and_still_has_a_row(embedder):
    faces = embedder(images_of(np.full((1, 112, 112, 3), 90, np.uint8)))
    assert not faces.found[0]
    assert np.linalg.norm(faces.embeddings[0]) == pytest.approx(1, abs=1e-5)


def test_crops_that_are_aligned_already_embed_as_they_do_on_the_belt(embedder, pixels):
    faces = embedder(images_of(pixels))
    embeddings, norms = embedder.embed_crops(faces.crops)
    assert np.array_equal(embeddings, faces.embeddings)
    assert np.array_equal(norms, faces.norms)
