import pytest

from metaagentx.tasks.gym import GymOptions
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.teacher import TeacherOptions

SMALL = GymOptions(train=100, validation=10, test=10)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def task(data_dir):
    return tiny_task(SMALL, data_dir, TeacherOptions())
