import pytest

from generation.world import ATTRIBUTES, CONTROLS, attribute_table
from stages.generate.rendered import Rendered
from stages.plan import Fixed
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


def rows_of(name, tmp_path, people=3):
    planner = build("planner", name, tmp_path)
    return [row.attributes for person in range(people) for row in planner(person, 3)]


def test_the_wild_plan_asks_for_all_but_the_background_and_the_renderers_for_all(tmp_path):
    wild, rendered = rows_of("wild", tmp_path), rows_of("wild_rendered", tmp_path)
    assert set(wild[0]) == set(CONTROLS) - {"background"}
    assert set(rendered[0]) == set(CONTROLS)
    assert [{name: row[name] for name in wild[0]} for row in rendered] == wild


def test_a_portrait_says_all_that_a_generator_could_choose_and_to_the_renderer_nothing_new(tmp_path):
    planner = build("planner", "portrait", tmp_path)
    plain = {name: drawn.value for name, drawn in planner.attributes.items() if isinstance(drawn, Fixed)}
    free = ("yaw_deg", "pitch_deg", "light_azimuth_deg", "age_years")
    assert set(planner.names) == set(CONTROLS) - {"background"}
    assert {name: value for name, value in plain.items() if name not in free} == {
        name: ATTRIBUTES[name].neutral for name in planner.names if name not in free
    }
    rows = rows_of("portrait", tmp_path)
    unsaid = [{name: row[name] for name in free} for row in rows]
    assert (attribute_table(rows) == attribute_table(unsaid)).all()
