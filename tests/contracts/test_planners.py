import pytest

from generation.world import ATTRIBUTES, attribute_table
from stages.generate.rendered import Rendered
from tests.contracts.conftest import build, names


@pytest.fixture(params=names("planner"))
def planner(request, tmp_path):
    return build("planner", request.param, tmp_path)


def test_it_asks_only_for_what_the_rendered_generator_honours_and_in_its_range(planner):
    assert set(planner.names) <= set(Rendered.controls)
    for name, (low, high) in planner.ranges.items():
        assert ATTRIBUTES[name].low <= low <= high <= ATTRIBUTES[name].high, name


def test_every_row_is_a_row_of_the_worlds_table(planner):
    rows = [row for person in range(60) for row in planner(person, 3)]
    assert attribute_table([row.attributes for row in rows]).shape == (len(rows), len(ATTRIBUTES))
    assert all(tuple(row.attributes) == planner.names for row in rows)


def test_a_row_depends_on_the_seed_the_person_and_its_number_alone(planner, request, tmp_path):
    again = build("planner", request.node.callspec.params["planner"], tmp_path)
    again(1, 3)
    for row, same in zip(planner(9, 3), again(9, 3), strict=True):
        assert (row.key, row.seed, row.attributes) == (same.key, same.seed, same.attributes)
    assert planner(9, 3)[0].seed not in {planner(9, 4)[0].seed, planner(8, 3)[0].seed, planner(9, 3)[1].seed}
