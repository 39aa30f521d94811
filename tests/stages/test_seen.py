"""People taken from pictures: of whom, in which order, and what happens where no face is seen."""

import numpy as np
import pytest

from generation.world import attribute_table, render, sample_people
from stages.embed.bundled import Bundled
from stages.generate.rendered import Rendered
from stages.plan import Planner, Uniform
from stages.records import Chunk, Identity, Images, Variation
from stages.sample.authentic import Authentic
from stages.sample.seen import first_seen
from stages.sample.sphere import Sphere
from stages.sample.two_stage import TwoStage
from stages.sample.world import WorldPeople
from tests.stages.conftest import SPACE
from tests.stages.strangers import Noise

PLANNER = Planner(2, {"yaw_deg": Uniform(-30, 30)})


@pytest.fixture
def embedder(weights):
    return Bundled(SPACE, weights=weights)


def rng(seed=3):
    return np.random.default_rng(seed)


def embedded(embedder, pixels):
    person = Identity(0, np.zeros(0, np.float32), np.zeros(0, np.float32))
    rows = tuple(Variation(f"000000_{k:03d}", 0, k, {}) for k in range(len(pixels)))
    return embedder(Images(Chunk(0, (person,), rows), pixels))


def test_people_of_two_stages_are_the_embeddings_of_the_strangers_who_are_seen_in_order(embedder):
    shown = []

    class Remembers(Noise):
        def strangers(self, seeds):
            shown.append(super().strangers(seeds))
            return shown[-1]

    sampler = TwoStage(Remembers(SPACE, dark=0.4), embedder, SPACE)
    people = sampler(6, rng())
    faces = [embedded(embedder, picture[None]) for block in shown for picture in block]  # one by one
    seen = [face.embeddings[0] for face in faces if face.found[0]]
    assert 6 == len(seen) < len(faces)  # some were too dark
    assert np.array_equal(people, np.stack(seen))
    assert np.linalg.norm(people, axis=1) == pytest.approx(1, abs=1e-5)
    assert sampler.source.endswith(f" pictures, {len(faces) - 6} without a face passed over")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_people_of_two_stages_are_the_same_in_batches_of_any_size_and_in_a_longer_draw(embedder, batch_size):
    def people(n, size):
        return TwoStage(Noise(SPACE, dark=0.4), embedder, SPACE, batch_size=size)(n, rng())

    assert np.array_equal(people(5, batch_size), people(9, 64)[:5])


def test_strangers_who_are_never_seen_stop_the_draw_and_are_counted(embedder):
    blind = TwoStage(Noise(SPACE, dark=1.0), embedder, SPACE, max_tries=3, batch_size=2)
    told = r"in at least 1 of max_tries=3 pictures in a row, got none in pictures 0 to 2, after 0 of 5 people"
    with pytest.raises(ValueError, match=told):
        blind(5, rng())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_the_bound_counts_misses_in_a_row_across_batches(embedder, batch_size):
    lit = np.array([1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1], bool)
    face = Noise(SPACE).strangers(np.array([5]))[0]

    def photograph(numbers):
        nobody = np.zeros(0, np.float32)
        rows = tuple(Variation(f"{i:06d}_000", i, i, {}) for i in numbers)
        chunk = Chunk(0, tuple(Identity(i, nobody, nobody) for i in numbers), rows)
        return Images(chunk, np.stack([face if lit[i] else face // 50 for i in numbers]))

    people, passed_over = first_seen(photograph, embedder, 4, max_tries=3, batch_size=batch_size)
    assert (len(people), passed_over) == (4, 4)
    with pytest.raises(ValueError, match="got none in pictures 8 to 10, after 4 of 5 people"):
        first_seen(photograph, embedder, 5, max_tries=3, batch_size=min(batch_size, 2))
    with pytest.raises(ValueError, match="got none in pictures 1 to 2, after 1 of 4 people"):
        first_seen(photograph, embedder, 4, max_tries=2, batch_size=batch_size)


def authentic(embedder, **other):
    return Authentic(WorldPeople("world-1"), Rendered("world-1"), PLANNER, embedder, SPACE, **other)


def test_authentic_people_are_the_embeddings_of_one_render_each_of_other_people(embedder):
    drawn = rng().integers(2**32, size=2)
    renders = render(
        sample_people(4, np.random.default_rng(drawn[0])),
        attribute_table([PLANNER(i, int(drawn[1]))[0].attributes for i in range(4)]),
        np.array([PLANNER(i, int(drawn[1]))[0].seed for i in range(4)]),
    ).pixels
    faces = embedded(embedder, renders)
    assert faces.found.all()
    assert np.array_equal(authentic(embedder)(4, rng()), faces.embeddings)


def test_authentic_people_are_the_same_in_batches_of_any_size_and_in_a_longer_draw(embedder):
    assert np.array_equal(authentic(embedder, batch_size=2)(5, rng()), authentic(embedder)(8, rng())[:5])


def test_only_authentic_people_are_called_authentic(embedder):
    assert authentic(embedder).source.startswith("authentic: ")
    assert "not sampled" in authentic(embedder).source
    assert TwoStage(Noise(SPACE), embedder, SPACE).source.startswith("two-stage: ")


def test_mistakes_name_value_and_expectation(embedder):
    for make, named in [
        (lambda: TwoStage(Noise(SPACE), embedder, "other"), f"{SPACE!r}, got 'other'"),
        (lambda: TwoStage(Noise("other"), embedder, SPACE), f"conditioned on {SPACE!r}, got 'other'"),
        (lambda: TwoStage(Noise(SPACE), embedder, SPACE, max_tries=0), "at least 1, got 0, 64"),
        (lambda: authentic(embedder, batch_size=0), "at least 1, got 20, 0"),
        (
            lambda: Authentic(Sphere(4, SPACE), Rendered("world-1"), PLANNER, embedder, SPACE),
            f"generator's space 'world-1', got {SPACE!r}",
        ),
        (lambda: authentic(embedder)(0, rng()), "got 0, 20, 64"),
    ]:
        with pytest.raises(ValueError) as error:
            make()
        assert named in str(error.value)
