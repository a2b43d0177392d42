from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL server of our own, on loopback."""
    pytest.importorskip("psycopg")
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    # Not below pytest's own folder, which every pytest of this user shuts to other users again.
    home = Path(tempfile.mkdtemp(prefix="metaagentx-postgres-"))
    account = []  # it refuses to run as root
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")
        account = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    run = {"check": True, "cwd": "/", "stdout": subprocess.DEVNULL, "timeout": 60}
    port, data = free_port(), home / "data"
    subprocess.run([*account, BINARIES[-1] / "initdb", "-A", "trust", "-U", "team", "-N", "-D", data], **run)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
    control = [*account, BINARIES[-1] / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", home / "log", "-o", options, "start"], **run)
    yield f"postgresql://team@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(home)


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
