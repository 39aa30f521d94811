import numpy as np
import pytest

from stages.records import Chunk, Identity, Images, Variation
from tests.contracts.conftest import build, names

SAMPLER_OF = {"rendered": "world", "close_up": "world", "bundled": "sphere"}  # whose people a generator takes
PLANNER_OF = {"rendered": "wild", "close_up": "wild", "bundled": "portrait"}  # whose photographs
SMALLER = {"bundled": {"steps": 2, "batch_size": 4}}  # than in its file, for speed


@pytest.fixture(params=names("generator"))
def generator(request, tmp_path):
    return build("generator", request.param, tmp_path, **SMALLER.get(request.param, {}))


@pytest.fixture
def chunk(request, tmp_path):
    name = request.node.callspec.params["generator"]
    sampler = build("sampler", SAMPLER_OF[name], tmp_path)
    planner = build("planner", PLANNER_OF[name], tmp_path, images_per_identity=2)
    vectors = sampler(3, np.random.default_rng(1))
    people = tuple(Identity(i, vector, np.ones(1, np.float32)) for i, vector in enumerate(vectors))
    return Chunk(5, people, tuple(row for person in people for row in planner(person.id, 0)))


def part_of(chunk, rows):
    return Chunk(chunk.index, chunk.identities, chunk.variations[rows])


def test_it_declares_what_it_takes_and_whose_it_is(generator):
    assert generator.space
    assert generator.licence
    assert generator.controls
    assert generator.size_px > 0
    assert generator.unit_vectors in (True, False)


def test_rows_in_are_rows_out_as_rgb_bytes_of_its_size(generator, chunk):
    images = generator(chunk)
    assert images.chunk is chunk
    assert images.pixels.shape == (6, generator.size_px, generator.size_px, 3)
    assert images.pixels.dtype == np.uint8
    assert len({picture.tobytes() for picture in images.pixels}) == 6


def test_a_picture_is_the_same_in_any_chunk_and_at_any_place_in_it(generator, chunk):
    whole = generator(chunk).pixels
    assert np.array_equal(whole, generator(chunk).pixels)
    assert np.array_equal(whole[4:], generator(part_of(chunk, slice(4, 6))).pixels)
    assert np.array_equal(whole[::-1], generator(part_of(chunk, slice(None, None, -1))).pixels)


def test_strangers_are_as_many_people_as_seeds(tmp_path):
    generator, embedder = build("generator", "bundled", tmp_path), build("embedder", "bundled_a", tmp_path)
    pictures = generator.strangers(np.arange(12))
    nobody = tuple(Identity(i, np.zeros(0, np.float32), np.zeros(0, np.float32)) for i in range(12))
    rows = tuple(Variation(f"{i:06d}_000", i, i, {}) for i in range(12))
    faces = embedder(Images(Chunk(0, nobody, rows), pictures))
    cosines = (faces.embeddings @ faces.embeddings.T)[np.triu_indices(12, 1)]
    assert faces.found.all()
    assert cosines.mean() < 0.25  # in three steps it is 0.3, and 0.9 where they are told nothing
