import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recognition.neighbours import Neighbours, exact_cosine, select_unlike


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def double_loop(candidates, max_cosine, limit):
    kept = []
    for row in range(len(candidates)):
        if len(kept) < limit and all(exact_cosine(candidates[row], candidates[k]) <= max_cosine for k in kept):
            kept.append(row)
    return kept


@given(
    # Few dimensions and whole numbers: many pairs have exactly, or but for one rounding, the same cosine.
    rows=st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=1, max_size=24),
    max_cosine=st.sampled_from([-0.5, 0.0, 1 / 3, 0.5, 2 / 3, np.sqrt(0.5), np.sqrt(2 / 3), 0.999, 1.0]),
    limit=st.integers(0, 25),
)
@settings(max_examples=150, deadline=None)
def test_selection_is_the_double_loop_for_every_block_size(rows, max_cosine, limit):
    candidates = unit(rows)
    expected = double_loop(candidates, float(max_cosine), limit)
    for block_size in (1, 7, len(candidates)):
        assert select_unlike(candidates, float(max_cosine), limit, block_size).tolist() == expected


def test_a_threshold_equal_to_a_cosine_keeps_and_the_next_smaller_one_does_not():
    candidates = random_unit(40, 128)
    threshold = exact_cosine(candidates[0], candidates[1])
    for block_size in (1, 7, 40):
        assert 1 in select_unlike(candidates[:2], threshold, 2, block_size)
        assert 1 not in select_unlike(candidates[:2], np.nextafter(threshold, -1), 2, block_size)


def test_selection_of_many_is_the_double_loop():
    candidates = random_unit(400, 16, seed=3)
    expected = double_loop(candidates, 0.5, 400)
    assert 20 < len(expected) < 200
    for block_size in (1, 64, 400):
        assert select_unlike(candidates, 0.5, 400, block_size).tolist() == expected


def test_selection_stops_at_its_limit_with_the_first_ones():
    candidates = random_unit(100, 16)
    everyone = select_unlike(candidates, 0.5, 100)
    assert select_unlike(candidates, 0.5, 5, block_size=3).tolist() == everyone[:5].tolist()
    assert select_unlike(candidates, 0.5, 0).tolist() == []


def test_nearest_is_the_sorted_matrix_of_cosines():
    table, queries = random_unit(300, 32), random_unit(20, 32, seed=1)
    cosine, index = Neighbours(table).nearest(queries, 5)
    exact = (queries.astype(np.float64) @ table.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(cosine, np.take_along_axis(exact, order, 1))


def test_nearest_does_not_depend_on_how_queries_are_cut_into_batches():
    table, queries = random_unit(500, 128), random_unit(64, 128, seed=1)
    search = Neighbours(table)
    together = search.nearest(queries, 3)
    one_by_one = [search.nearest(queries[row : row + 1], 3) for row in range(64)]
    np.testing.assert_array_equal(together[0], np.concatenate([cosine for cosine, _ in one_by_one]))
    np.testing.assert_array_equal(together[1], np.concatenate([index for _, index in one_by_one]))


def test_equal_neighbours_come_in_the_order_of_the_table():
    twins = np.repeat(random_unit(3, 16), 20, axis=0)  # more twins than FAISS is asked to propose
    cosine, index = Neighbours(twins).nearest(twins[25:26], 4)
    assert index.tolist() == [[20, 21, 22, 23]]
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_the_nearest_other_is_not_oneself():
    table = unit([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1]])
    cosine, index = Neighbours(table).nearest_other(table, np.array([0, 1, 2]))
    assert index.tolist() == [1, 0, 0]
    assert cosine[0] == pytest.approx(0.9 / np.hypot(0.9, 0.1))


def test_a_twin_of_oneself_is_another():
    table = np.repeat(random_unit(1, 8), 3, axis=0)
    _, index = Neighbours(table).nearest_other(table, np.arange(3))
    assert index.tolist() == [1, 0, 0]


def test_a_face_far_from_its_own_row_still_has_another_as_its_nearest():
    table = unit([[1, 0], [0, 1]])
    cosine, index = Neighbours(table).nearest_other(unit([[0, 1]]), np.array([0]))
    assert (cosine[0], index[0]) == (1.0, 1)


@pytest.mark.parametrize("norm", [1.002, 0.9, 0.0, np.nan])
def test_a_row_whose_norm_is_not_one_is_named(norm):
    table = random_unit(5, 16)
    table[3] *= np.float32(norm)
    for use in (
        Neighbours,
        lambda rows: select_unlike(rows, 0.5, 5),
        lambda rows: Neighbours(table[:3]).nearest(rows, 1),
    ):
        with pytest.raises(ValueError, match="in row 3"):
            use(table)


def test_questions_that_make_no_sense_are_refused():
    search = Neighbours(random_unit(4, 8))
    with pytest.raises(ValueError, match=r"k: expected a value in \[1, 4\]"):
        search.nearest(random_unit(1, 8), 5)
    with pytest.raises(ValueError, match="expected 8 dimensions, got 16"):
        search.nearest(random_unit(1, 16), 1)
    with pytest.raises(ValueError, match=r"row numbers in \[0, 4\)"):
        search.nearest_other(random_unit(1, 8), np.array([4]))
    with pytest.raises(ValueError, match="at least 2 rows"):
        Neighbours(random_unit(1, 8)).nearest_other(random_unit(1, 8), np.array([0]))
    with pytest.raises(ValueError, match="at least 1 row"):
        Neighbours(np.zeros((0, 8), np.float32))
    with pytest.raises(ValueError, match="max_cosine"):
        select_unlike(random_unit(4, 8), 1.5, 4)
