import numpy as np
import pytest

from stages.records import Chunk, Identity
from tests.contracts.conftest import build, names
from tests.generation.small import write_generator

SAMPLER_OF = {"rendered": "world", "close_up": "world", "bundled": "sphere"}  # whose people a generator takes
PLANNER_OF = {"rendered": "wild", "close_up": "wild", "bundled": "portrait"}  # whose photographs
SMALLER = {"bundled": {"steps": 2, "batch_size": 4}}  # than in its file, for speed


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a small generator that has learnt nothing: what it draws is chaos, but a generator's contract holds."""
    folder = tmp_path_factory.mktemp("weights")
    write_generator(folder)
    return folder


@pytest.fixture(params=names("generator"))
def generator(request, tmp_path, weights):
    own = {"weights": str(weights)} if request.param == "bundled" else {}
    return build("generator", request.param, tmp_path, **SMALLER.get(request.param, {}), **own)


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
