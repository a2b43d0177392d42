"""A PostgreSQL server that asks for a password (SCRAM-SHA-256): who has it is let in, and nothing ever repeats it."""

from __future__ import annotations

import threading

import pytest

from metaagentx.sections import SettingsError
from metaagentx.teams import database
from metaagentx.teams.records import SubTask
from metaagentx.teams.server import run_server
from metaagentx.teams.store import Store
from tests.teams.postgres import BINARIES, running
from tests.test_team_train import small

PASSWORD = "k/9@ %Zq:7#"
WRITTEN = "k%2F9%40%20%25Zq%3A7%23"
WRONG = "gUeSsEd"


@pytest.fixture(scope="module")
def guarded():
    """The URL of a server of our own that asks for a password."""
    pytest.importorskip("psycopg")
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with running(fsync=False, password=PASSWORD) as url:
        yield url


def test_who_has_the_password_is_let_in(guarded, name, tmp_path, monkeypatch):
    task = SubTask("a", "sub", 0, "rollout", "what?")
    store = Store(guarded.replace("team@", f"team:{WRITTEN}@"), name)
    assert store.put([task], depth=1) == 1
    store.close()
    kept = tmp_path / "passwords"
    escaped = PASSWORD.replace(":", "\\:")
    kept.write_text(f"127.0.0.1:*:postgres:team:{escaped}\n")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    store = Store(guarded, name)
    assert [lease.task for lease in store.lease("sub", 1, 60.0, "server", 0)] == [task]
    store.close()


@pytest.mark.parametrize(
    ("before", "said"), [(f"team:{WRONG}@", 'password authentication failed for user "team"'), ("team@", "no password")]
)
def test_who_has_not_is_told_so_at_start_without_what_was_tried(guarded, before, said, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    url = guarded.replace("team@", before)
    with pytest.raises(SettingsError, match=f"--store: the store does not let us in: .*{said}") as error:
        run_server(small(), tmp_path / "main", "main", url, "team", threading.Event())
    assert WRONG not in str(error.value)


def test_a_password_that_was_changed_meanwhile_is_told_without_it(guarded, name, monkeypatch, caplog):
    for key, value in (("PATIENCE", 0.5), ("TOLD", 0.1)):
        monkeypatch.setattr(database, key, value)
    store = Store(guarded.replace("team@", f"team:{WRITTEN}@"), name, who="policy 'sub'")
    store._database._url = guarded.replace("team@", f"team:{WRONG}@")
    store._database._connection.close()
    with pytest.raises(database.StoreError, match="lets us in") as error:
        store.steps()
    for said in (str(error.value), caplog.text):
        assert "policy 'sub' waits for the database 'postgres' at 127.0.0.1" in said
        assert WRONG not in said
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://team:gUeS%sEd@127.0.0.1:1/db",
        "postgresql://team:gUeS sEd@127.0.0.1:1/db",
        "postgresql://team:gUeS@sEd@127.0.0.1:1/db",
        "postgresql://team:gUeS/sEd@127.0.0.1:1/db",
        "postgresql://team:[gUeSsEd@127.0.0.1:1/db",
        "postgresql://team@127.0.0.1:1/db?password=gUeS%sEd",
        "postgresq://team:gUeSsEd@127.0.0.1:1/db",
        "team:gUeSsEd@127.0.0.1:1/db",
        "sqlite://team:gUeSsEd@127.0.0.1:1/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url):
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match="store") as error:
        Store(url, "run")
    assert "gUeS" not in str(error.value)
    assert "sEd" not in str(error.value)
