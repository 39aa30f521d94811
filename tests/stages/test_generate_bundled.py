"""The bundled generator's station, on a small model that has learnt nothing: chaos, but always the same."""

import numpy as np
import pytest
import torch

from generation.close_up import close_up_circumstances
from generation.sampling import sample
from generation.world import ATTRIBUTES, CONTROLS, attribute_table, expose
from generation.world.circumstances import random_backgrounds
from generation.world.scenes import generator_attributes
from stages.generate.bundled import Bundled
from stages.plan import Planner, Uniform
from stages.records import Chunk, Identity, Variation
from tests.generation.small import TAUGHT, write_generator

SPACE = "bundled-a-2"
PLANNER = Planner(3, {"yaw_deg": Uniform(-60, 60), "age_years": Uniform(20, 60)})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_generator(folder)
    return folder


@pytest.fixture(scope="module")
def bundled(weights):
    return Bundled(SPACE, steps=2, batch_size=4, weights=weights)


def people(count=3):
    vectors = np.random.default_rng(0).standard_normal((count, 128)).astype(np.float32)
    return [Identity(i, v / np.linalg.norm(v), np.ones(1, np.float32)) for i, v in enumerate(vectors)]


def chunk_of(persons):
    return Chunk(0, tuple(persons), tuple(row for one in persons for row in PLANNER(one.id, run_seed=1)))


def one_row(attributes=None, vector=None, seed=7):
    person = people(1)[0]
    if vector is not None:
        person = Identity(0, vector, person.reference)
    return Chunk(0, (person,), (Variation("000000_000", 0, seed, attributes or {}),))


@pytest.fixture(scope="module")
def pictures(bundled):
    return bundled(chunk_of(people())).pixels


def test_rows_in_are_rows_out_as_rgb_bytes(bundled, pictures):
    assert pictures.shape == (9, 112, 112, 3)
    assert pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == 9


def test_a_picture_is_the_same_in_any_chunk_at_any_place_and_beside_any_others(bundled, pictures):
    alone = bundled(chunk_of(people()[1:2])).pixels  # three rows and one that fills the batch
    assert np.array_equal(pictures[3:6], alone)
    backwards = bundled(chunk_of(people()[::-1])).pixels
    assert np.array_equal(pictures[:3], backwards[6:])
    assert np.array_equal(pictures[3:6], backwards[3:6])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_threads_change_nothing_but_the_speed(weights, precision):
    chunk, before = chunk_of(people(2)[1:]), torch.get_num_threads()
    alone, *together = (
        Bundled(SPACE, 1, weights=weights, precision=precision, batch_size=4, threads=threads)(chunk).pixels
        for threads in (1, 2, 4)
    )
    assert np.array_equal(alone, together[0])
    assert np.array_equal(alone, together[1])
    assert torch.get_num_threads() == before


def test_a_seed_a_person_and_an_attribute_each_change_the_picture(bundled):
    plain = bundled(one_row({"yaw_deg": 20.0})).pixels
    for other in (
        one_row({"yaw_deg": 20.0}, seed=8),
        one_row({"yaw_deg": -50.0}),
        one_row({"yaw_deg": 20.0, "age_years": 70.0}),
        one_row({"yaw_deg": 20.0}, vector=people(2)[1].vector),
    ):
        assert not np.array_equal(plain, bundled(other).pixels)


def test_what_is_left_open_the_seed_draws_as_photographs_of_the_training_were_drawn(bundled):
    left_open = bundled(one_row()).pixels
    drawn = generator_attributes(1, np.random.default_rng([7, 79]))[0]
    drawn["background"] = float(random_backgrounds(np.array([7]))[0])
    assert drawn.keys() == set(CONTROLS)
    assert np.array_equal(bundled(one_row(drawn)).pixels, left_open)
    kept = {name: drawn[name] for name in ("yaw_deg", "blur_px")}
    assert np.array_equal(bundled(one_row(kept)).pixels, left_open)  # what is named moves nothing that is not
    for name in ("yaw_deg", "age_years", "blur_px"):
        assert not np.array_equal(bundled(one_row({name: ATTRIBUTES[name].neutral})).pixels, left_open)


def test_strangers_depend_on_their_seeds_alone(bundled, pictures):
    seeds = np.array([1, 2, 3, 4, 5])
    strangers = bundled.strangers(seeds)
    assert strangers.shape == (5, 112, 112, 3)
    assert len({picture.tobytes() for picture in strangers}) == 5
    assert np.array_equal(strangers[3:4], bundled.strangers(seeds[3:4]))


def test_strangers_are_told_no_identity_and_drawn_in_more_steps_than_somebody(weights, monkeypatch):
    told = []

    def kept(model, vectors, attributes, asked, someone, seeds, scheduler, steps, *args, **kwargs):
        told.append((someone.any().item(), steps))
        return sample(model, vectors, attributes, asked, someone, seeds, scheduler, steps, *args, **kwargs)

    monkeypatch.setattr("stages.generate.bundled.sample", kept)
    for steps in (1, 20):
        generator = Bundled(SPACE, steps, batch_size=1, weights=weights)
        generator.strangers(np.array([1]))
        generator(one_row())
    assert told == [(False, 16), (True, 1), (False, 20), (True, 20)]


def test_noise_and_jpeg_that_were_asked_for_are_seen_and_nothing_else_changes(bundled):
    plain = bundled(one_row()).pixels.astype(int)
    noisy = bundled(one_row({"noise": 0.05})).pixels.astype(int)
    # 0.05 of the range is 12.75; what is clipped at black and white falls short of it.
    assert 4 < np.abs(noisy - plain).mean() < 13
    assert abs((noisy - plain).mean()) < 3
    blocks = bundled(one_row({"jpeg_quality": 30.0})).pixels.astype(int)
    assert 0.5 < np.abs(blocks - plain).mean() < 40
    same = bundled(one_row({"jpeg_quality": 100.0, "noise": 0.0})).pixels
    assert np.array_equal(same, plain)


def test_blur_and_few_pixels_are_done_to_the_sharp_picture_as_the_world_does_to_its_own(bundled):
    sharp = bundled(one_row({"blur_px": 0.0, "low_resolution_px": 256.0})).pixels[0]
    asked = {"blur_px": 1.5, "low_resolution_px": 40.0, "noise": 0.03, "jpeg_quality": 60.0}
    # The plan counts pixels of the whole picture: 140 where the close-up, a part of it, has 112.
    exact, rng = sharp.astype(np.float32) / 255, np.random.default_rng(7)
    expected = expose(exact, 1.5 * 1.25, 0.03, 60.0, 40.0 / 1.25, rng)
    assert np.array_equal(bundled(one_row(asked)).pixels[0], expected)


def test_each_seed_has_a_wall_of_its_own_and_a_plan_may_choose_it(bundled, monkeypatch):
    told = []

    def kept(model, *args, circumstances, **kwargs):
        told.append(circumstances)
        return sample(model, *args, circumstances=circumstances, **kwargs)

    def told_of(attributes, seed=7):
        bundled(one_row(neutral | attributes, seed=seed))
        return told[-1][0]

    neutral = {name: attribute.neutral for name, attribute in ATTRIBUTES.items() if name != "background"}

    monkeypatch.setattr("stages.generate.bundled.sample", kept)
    seven, eight, walls = told_of({"yaw_deg": 5.0}), told_of({"yaw_deg": 5.0}, 8), slice(3 * 14**2)
    assert (seven - eight)[walls].abs().max() > 0.1
    chosen = [told_of({"background": 9.0}, seed) for seed in (7, 8)]
    assert torch.equal(chosen[0][walls], chosen[1][walls])
    assert not torch.equal(chosen[0], chosen[1])  # the days are two
    table, seeds = attribute_table([{"background": 9.0}]), np.array([7])
    np.testing.assert_array_equal(chosen[0], close_up_circumstances(table, seeds, 14)[0])
    darker = told_of({"background": 9.0, "exposure_ev": -1.0})
    assert darker[walls].mean() < chosen[0][walls].mean() - 0.05
    bundled.strangers(np.array([1]))
    assert torch.isfinite(told[-1]).all()


def test_it_declares_all_controls():
    assert Bundled.controls == CONTROLS == tuple(Bundled.ranges)
    assert Bundled.unit_vectors


def unit(length=128):
    return np.full(length, length**-0.5, np.float32)


@pytest.mark.parametrize(
    ("vector", "told"),
    [
        (unit(64), r"identity 0: expected a vector of 128 numbers, got shape \(64,\)"),
        (unit() * 2, "identity 0: expected a unit vector of bundled-a-2, got norm 2"),
        (np.where(np.arange(128) == 5, np.nan, unit()).astype(np.float32), "got norm nan"),
    ],
)
def test_a_vector_of_another_kind_is_refused(bundled, vector, told):
    with pytest.raises(ValueError, match=told):
        bundled(one_row(vector=vector))


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"beard": 1.0}, "000000_000: unknown attribute 'beard', expected one of yaw_deg"),
        ({"background": 65536.0}, "expected 0 <= background <= 65535, got 65536"),
        ({"yaw_deg": 90.0}, "expected -75 <= yaw_deg <= 75, got 90"),
        ({"yaw_deg": float("nan")}, "expected -75 <= yaw_deg <= 75, got nan"),
    ],
)
def test_an_attribute_unknown_or_out_of_range_is_refused(bundled, attributes, told):
    with pytest.raises(ValueError, match=told):
        bundled(one_row(attributes))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"space": "bundled-b-2"}, "space: expected 'bundled-a-2', .*, got 'bundled-b-2'"),
        ({"steps": 0}, "steps: expected 1 to 1000 with scheduler 'dpm', got 0"),
        ({"scheduler": "lcm", "steps": 51}, "steps: expected 1 to 50 with scheduler 'lcm', got 51"),
        ({"scheduler": "euler"}, "scheduler: expected one of ddim, dpm, lcm, ddpm, got 'euler'"),
        ({"guidance_identity": -1.0}, "guidance_identity: expected 0 to 20, got -1"),
        ({"guidance_attributes": float("nan")}, "guidance_attributes: expected 0 to 20, got nan"),
        ({"precision": "fp16"}, "precision: expected one of bf16, fp32, got 'fp16'"),
        ({"batch_size": 16, "threads": 3}, "batch_size: expected a multiple of 3 threads, got 16"),
        ({"batch_size": 0}, "threads, batch_size: expected at least 1, got 1, 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(weights, wrong, told):
    with pytest.raises(ValueError, match=told):
        Bundled(**{"space": SPACE, "weights": weights} | wrong)


def test_distilled_weights_refuse_a_guidance_that_they_were_not_taught(tmp_path):
    write_generator(tmp_path, taught=TAUGHT)
    made = Bundled(SPACE, 1, batch_size=4, guidance_identity=4.0, guidance_attributes=1.0, weights=tmp_path)
    assert made(chunk_of(people(1))).pixels.shape == (3, 112, 112, 3)
    for name, value, taught in (
        ("identity", 4.5, "1 to 4"),
        ("identity", 0.5, "1 to 4"),
        ("attributes", 3.5, "1 to 3"),
    ):
        told = f"guidance_{name}: expected {taught}, which the distilled weights were taught, got {value}"
        with pytest.raises(ValueError, match=told):
            Bundled(**{"space": SPACE, "weights": tmp_path, f"guidance_{name}": value})


def test_weights_of_another_hash_are_refused_before_a_model_is_loaded(weights, tmp_path):
    for path in weights.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((weights / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "generator.safetensors").write_bytes(content)
    for refused in (lambda: Bundled(SPACE, weights=tmp_path), lambda: Bundled.check_weights(tmp_path)):
        with pytest.raises(ValueError, match=r"expected generator\.safetensors with sha256"):
            refused()
