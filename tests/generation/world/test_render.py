import numpy as np
import pytest
import torch

from generation.world import CONTROLS, IDENTITY_DIM, PARTS, TRAITS, attribute_table, render, sample_people
from generation.world.scenes import wild_attributes

EYES, NOSE, MOUTH = PARTS.index("eyes"), PARTS.index("nose"), PARTS.index("mouth")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    photographs = [
        p | {"glasses": float(i % 4), "hat": float(i // 3 % 4)} for i, p in enumerate(wild_attributes(11, rng))
    ]
    return sample_people(11, rng), attribute_table(photographs), rng.integers(0, 2**62, 11)


@pytest.fixture(scope="module")
def together(rows):
    return render(*rows, size_px=64, truth=True)


def equal(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("pixels", "landmarks", "visible"))


def test_a_row_gives_the_same_picture_alone_and_in_a_batch(rows, together):
    people, attributes, seeds = rows
    for i in range(len(people)):
        alone = render(people[i : i + 1], attributes[i : i + 1], seeds[i : i + 1], size_px=64, truth=True)
        assert np.array_equal(alone.pixels[0], together.pixels[i])
        assert np.array_equal(alone.landmarks[0], together.landmarks[i])
        assert np.array_equal(alone.masks[0], together.masks[i])
        assert np.array_equal(alone.normals[0], together.normals[i])


def test_the_order_of_rows_only_orders_the_pictures(rows, together):
    order = np.random.default_rng(0).permutation(11)
    assert np.array_equal(render(*(x[order] for x in rows), size_px=64).pixels, together.pixels[order])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(rows, together, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert equal(render(*rows, size_px=64), together)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_truth_does_not_change_the_picture(rows, together):
    plain = render(*rows, size_px=64)
    assert equal(plain, together)
    assert plain.masks is None
    assert plain.normals is None


def test_odd_sizes_are_the_same_at_any_batch_size(rows):
    people, attributes, seeds = rows
    both = render(people[:2], attributes[:2], seeds[:2], size_px=51)
    assert both.pixels.shape == (2, 51, 51, 3)
    assert np.array_equal(render(people[1:2], attributes[1:2], seeds[1:2], size_px=51).pixels[0], both.pixels[1])


def bare_rows(n, **attributes):
    """n people with little hair in the way, photographed alike."""
    people = sample_people(n, np.random.default_rng(8))
    for name in ("hair_fringe", "moustache", "beard"):
        people[:, list(TRAITS).index(name)] = -2
    return people, attribute_table([attributes] * n), np.arange(n)


@pytest.mark.parametrize("yaw", [0.0, -35.0, 35.0])
def test_landmarks_lie_on_the_parts_that_they_name_also_when_the_head_turns(yaw):
    r = render(*bare_rows(8, yaw_deg=yaw), truth=True)
    at = np.rint(r.landmarks).astype(int)
    for landmark, part in ((0, EYES), (1, EYES), (2, NOSE), (3, MOUTH), (4, MOUTH)):
        for i in np.flatnonzero(r.visible[:, landmark]):
            x, y = at[i, landmark]
            assert (r.masks[i, y - 2 : y + 3, x - 2 : x + 3] == part).any(), (i, landmark)


def test_eyes_are_26_to_32_pixels_apart_on_average_and_the_left_of_the_picture_comes_first():
    r = render(*bare_rows(16))
    apart = r.landmarks[:, 1, 0] - r.landmarks[:, 0, 0]
    assert 26 < apart.mean() < 32
    assert (r.landmarks[:, 4, 0] > r.landmarks[:, 3, 0]).all()


def test_a_roll_turns_the_line_between_the_eyes_by_exactly_that_angle():
    people, _, seeds = bare_rows(1)
    angles = []
    lengths = []
    for roll in (-15.0, 0.0, 10.0):
        left, right = render(people, attribute_table([{"roll_deg": roll}]), seeds).landmarks[0, :2]
        angles.append(np.degrees(np.arctan2(*(right - left)[::-1])))
        lengths.append(np.linalg.norm(right - left))
    assert np.allclose(np.diff(angles), [15.0, 10.0], atol=0.01)
    assert np.allclose(lengths, lengths[0], atol=1e-3)


def test_landmarks_scale_with_the_size_of_the_picture():
    people, attributes, seeds = bare_rows(2, yaw_deg=20.0)
    small, large = (render(people, attributes, seeds, size_px=s).landmarks for s in (112, 224))
    assert np.allclose((large + 0.5) / 2, small + 0.5, atol=1e-2)


def test_in_profile_the_far_eye_and_corner_are_hidden_and_the_near_ones_are_not():
    right = render(*bare_rows(6, yaw_deg=75.0)).visible
    assert right[:, [0, 2, 3]].all()
    assert not right[:, 4].any()
    assert right[:, 1].mean() < 0.5
    left = render(*bare_rows(6, yaw_deg=-75.0)).visible
    assert left[:, [1, 2, 4]].all()
    assert not left[:, 3].any()


def test_frontal_landmarks_are_all_visible():
    assert render(*bare_rows(6)).visible.all()


def test_normals_are_unit_upon_things_and_zero_upon_the_wall(together):
    length = np.linalg.norm(together.normals, axis=-1)
    assert np.allclose(length[together.masks > 0], 1, atol=1e-5)
    assert (length[together.masks == 0] == 0).all()


def test_every_part_is_named_in_some_mask(together):
    assert set(np.unique(together.masks)) == set(range(len(PARTS)))


def test_every_trait_shows():
    shows = np.zeros(IDENTITY_DIM, bool)
    for looks, age in (
        ({"dimorphism": 1.2, "beard": 1.2, "moustache": 1.2, "freckles": 1.2}, 45.0),
        ({"hair_darkness": -1.0}, 22.0),
    ):
        base = np.array([looks.get(name, 0.0) for name in TRAITS], np.float32)
        people = np.concatenate([base[None], base + 2 * np.eye(IDENTITY_DIM, dtype=np.float32)])
        table = attribute_table([{"age_years": age, "yaw_deg": 25.0}] * len(people))
        pixels = render(people, table, np.zeros(len(people), np.int64), size_px=80).pixels.astype(int)
        shows |= np.abs(pixels[1:] - pixels[0]).reshape(IDENTITY_DIM, -1).max(1) >= 5
    assert not [name for name, shown in zip(TRAITS, shows, strict=True) if not shown]


def test_every_attribute_shows():
    other = {
        "jpeg_quality": 20.0,
        "low_resolution_px": 24.0,
        "noise": 0.1,
        "hat": 1.0,
        "glasses": 1.0,
        "age_years": 70.0,
    }
    half = (
        dict.fromkeys(CONTROLS, 0.8) | {k: 20.0 for k in CONTROLS if k.endswith("_deg")} | {"background": 9.0} | other
    )
    base = {"light_azimuth_deg": -25.0}
    people = np.repeat(sample_people(1, np.random.default_rng(2)), len(CONTROLS) + 1, 0)
    rows = [base] + [base | {name: 15.0 if name == "roll_deg" else half[name]} for name in CONTROLS]
    pixels = render(people, attribute_table(rows), np.zeros(len(rows), np.int64), size_px=80).pixels.astype(int)
    change = np.abs(pixels[1:] - pixels[0]).reshape(len(CONTROLS), -1).max(1)
    assert not [name for name, c in zip(CONTROLS, change, strict=True) if c < 8]


def test_another_seed_is_another_photograph_of_the_same_scene():
    people, attributes, _ = bare_rows(2)
    r = render(np.repeat(people[:1], 2, 0), attributes, np.array([1, 2]))
    assert not np.array_equal(r.pixels[0], r.pixels[1])
    assert np.abs(r.landmarks[0] - r.landmarks[1]).max() < 8


def test_values_beyond_three_deviations_are_held():
    people, attributes, seeds = bare_rows(1)
    three, nine = (np.full_like(people, v) for v in (3, 9))
    assert np.array_equal(render(three, attributes, seeds).pixels, render(nine, attributes, seeds).pixels)


def test_the_largest_size_is_256():
    people, attributes, seeds = bare_rows(1)
    assert render(people, attributes, seeds, size_px=256).pixels.shape == (1, 256, 256, 3)
    for size in (257, 15):
        with pytest.raises(ValueError, match=f"16 <= size_px <= 256, got {size}"):
            render(people, attributes, seeds, size_px=size)


def test_bad_rows_are_refused_by_name():
    people, attributes, seeds = bare_rows(2)
    broken = people.copy()
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match="finite people, got nan"):
        render(broken, attributes, seeds)
    with pytest.raises(ValueError, match=f"\\(b, {IDENTITY_DIM}\\).*got \\(2, 5\\)"):
        render(people[:, :5], attributes, seeds)
    with pytest.raises(ValueError, match=f"\\(b, {len(CONTROLS)}\\), got \\(2, 4\\)"):
        render(people, attributes[:, :4].copy(), seeds)
    with pytest.raises(ValueError, match="seeds >= 0, got -1"):
        render(people, attributes, seeds - 1)
    table = attributes.copy()
    table[0, CONTROLS.index("smile")] = np.nan
    with pytest.raises(ValueError, match="-1 <= smile <= 1, got nan"):
        render(people, table, seeds)
