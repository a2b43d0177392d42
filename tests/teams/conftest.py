from __future__ import annotations

import uuid

import pytest

from tests.teams.postgres import BINARIES, running


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL server of our own."""
    pytest.importorskip("psycopg")
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with running(fsync=False) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """A store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/team.db"
    return request.getfixturevalue("postgres")


@pytest.fixture
def name():
    """A run that no other test has."""
    return uuid.uuid4().hex
