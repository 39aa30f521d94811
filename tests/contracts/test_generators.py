import numpy as np
import pytest

from stages.records import Chunk, Identity
from tests.contracts.conftest import build, names

SAMPLER_OF = {"rendered": "world", "close_up": "world"}  # whose people a generator takes


@pytest.fixture(params=names("generator"))
def generator(request, tmp_path):
    return build("generator", request.param, tmp_path)


@pytest.fixture
def chunk(request, tmp_path):
    sampler = build("sampler", SAMPLER_OF[request.node.callspec.params["generator"]], tmp_path)
    planner = build("planner", "wild", tmp_path, images_per_identity=2)
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
