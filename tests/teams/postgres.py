"""A PostgreSQL server of our own, on loopback, for as long as it is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian and Ubuntu install it


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(*, fsync: bool, password: str = "") -> Iterator[str]:
    """Its URL, in which no password is. `fsync`: whether what it acknowledges would survive a power cut.

    `password`: what it asks for (SCRAM-SHA-256); "": it trusts everybody.
    """
    # Not below pytest's own folder, which every pytest of this user shuts to other users again.
    home = Path(tempfile.mkdtemp(prefix="metaagentx-postgres-"))
    account = []  # it refuses to run as root
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")
        account = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    run = {"check": True, "cwd": "/", "stdout": subprocess.DEVNULL, "timeout": 60}
    port, data = free_port(), home / "data"
    (home / "password").write_text(password)
    access = ["-A", "scram-sha-256", "--pwfile", home / "password"] if password else ["-A", "trust"]
    subprocess.run([*account, BINARIES[-1] / "initdb", *access, "-U", "team", "-N", "-D", data], **run)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    options += "" if fsync else " -c fsync=off"
    control = [*account, BINARIES[-1] / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", home / "log", "-o", options, "start"], **run)
    try:
        yield f"postgresql://team@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
        shutil.rmtree(home)
