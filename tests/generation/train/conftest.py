"""What trainings in two processes came to."""

import pytest

from tests.generation.train.two_processes import in_two_processes


@pytest.fixture(scope="session")
def by_two_processes(tmp_path_factory):
    """A folder for each module that trains in two processes. Not to be written to."""
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(folder)
    return folder
