import numpy as np
import pytest
import torch

from generation.world import CONTROLS, SPACE, sample_people
from stages.generate.rendered import Rendered
from stages.plan import Planner, Uniform
from stages.records import Chunk, Identity
from stages.sample.world import WorldPeople

PLANNER = Planner(3, {"yaw_deg": Uniform(-60, 60), "background": Uniform(0, 65535), "noise": Uniform(0, 0.02)})
PEOPLE = [Identity(i, v, np.ones(1, np.float32)) for i, v in enumerate(sample_people(3, np.random.default_rng(0)))]


def chunk_of(people):
    return Chunk(0, tuple(people), tuple(row for one in people for row in PLANNER(one.id, run_seed=1)))


def test_a_picture_depends_only_on_its_row():
    generator = Rendered(SPACE, size_px=48)
    together = generator(chunk_of(PEOPLE)).pixels
    backwards = generator(chunk_of(PEOPLE[::-1])).pixels
    alone = generator(chunk_of(PEOPLE[1:2])).pixels
    assert np.array_equal(together[3:6], alone)
    assert np.array_equal(together[:3], backwards[6:])
    assert len({picture.tobytes() for picture in together}) == 9


def test_threads_change_nothing_but_the_speed():
    chunk = chunk_of(PEOPLE)
    before = torch.get_num_threads()
    assert np.array_equal(Rendered(SPACE, 48, threads=1)(chunk).pixels, Rendered(SPACE, 48, threads=2)(chunk).pixels)
    assert torch.get_num_threads() == before


def test_rows_in_are_rows_out_as_rgb_of_the_size_asked_for():
    images = Rendered(SPACE, size_px=64)(chunk_of(PEOPLE))
    assert images.pixels.shape == (9, 64, 64, 3)
    assert images.pixels.dtype == np.uint8
    assert [row.key for row in images.chunk.variations][:4] == ["000000_000", "000000_001", "000000_002", "000001_000"]


def test_the_generator_declares_what_it_takes():
    generator = Rendered(SPACE)
    assert generator.controls == CONTROLS == tuple(generator.ranges)
    assert (generator.space, generator.size_px, generator.unit_vectors) == (SPACE, 112, False)
    assert generator.licence


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Rendered("world-0"), f"space: expected {SPACE!r}, the world at hand, got 'world-0'"),
        (lambda: Rendered(SPACE, size_px=512), "size_px: expected 16 to 256, got 512"),
        (lambda: Rendered(SPACE, threads=0), "threads: expected at least 1, got 0"),
        (lambda: WorldPeople("world-0"), f"space: expected {SPACE!r}, the world at hand, got 'world-0'"),
    ],
)
def test_mistakes_name_value_and_expectation(make, named):
    with pytest.raises(ValueError) as error:
        make()
    assert named in str(error.value)
