"""SQLite and PostgreSQL as one: statements with `:name` parameters, run in transactions."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

T = TypeVar("T")
PATIENCE = 600.0  # seconds in which a database that is locked or away may come back
TOLD = 60.0  # seconds between two words about it
# Of a PostgreSQL connection: seconds, but for the last, in milliseconds. Together less than TOLD.
ALIVE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# Buckets write a file anew as a whole, some only when it is closed: no transaction is safe there.
BUCKET = re.compile(r"fuse(\.(gcsfuse|s3fs|rclone))?")
NETWORKED = re.compile(rf"nfs\d?|cifs|smb3?|9p|ceph|lustre|glusterfs|fuse\.sshfs|{BUCKET.pattern}")


class StoreError(RuntimeError):
    """A database that cannot be used, or did not come back; the message says which, who wants it, and what to do."""


@dataclass(slots=True)
class Patience:
    """How long a database has been of no use. Threads that share it lose patience together."""

    database: str  # its name, without passwords
    who: str  # waits for it
    advice: str  # what a person can do
    since: float | None = None  # by the process's clock
    told: float = 0.0

    def wait(self, error: Exception) -> None:
        """It was of no use just now. Says so from time to time; raises StoreError in the end."""
        now = time.monotonic()
        if self.since is None:
            self.since = self.told = now
        reason = str(error).strip().partition("\n")[0]
        said = f"{self.who} waits for {self.database}, since {now - self.since:.0f} s: {reason}; {self.advice}"
        if now - self.since > PATIENCE:
            raise StoreError(f"{said}, then run the same command again") from error
        if now - self.told > TOLD:
            logging.warning("%s: it goes on by itself then", said)
            self.told = now

    def end(self) -> None:
        """It was of use."""
        self.since = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a statement gave back."""

    found: list[tuple[Any, ...]]
    changed: int  # rows that it inserted, updated or deleted


Execute = Callable[[str, Mapping[str, Any]], Rows]


class Database(Protocol):
    """One connection. Statements may use {now} (seconds, float), {serial}, {skip_locked},
    {keys} (those of the JSON list `:keys`) and {alone}."""

    def run(self, work: Callable[[Execute], T]) -> T:
        """`work` in one transaction, all or nothing. It may be run again after a lost connection: write it so."""
        ...

    def look(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What one statement finds that changes nothing, and waits for no lock."""
        ...

    def close(self) -> None: ...


def open_database(url: str, who: str) -> Database:
    """`sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/database`, for `who` to use.

    Raises:
      ValueError: neither, or an SQLite file on a network file system, where its locks do not hold; or nobody is let in.
        No message repeats the URL, in which a password may stand.
    """
    kind = url.partition("://")[0]
    if kind == "sqlite":
        path = url.removeprefix("sqlite:///")
        if path == url or not path:
            raise ValueError("a store in SQLite is sqlite:///relative.db or sqlite:////absolute.db")
        return Sqlite(Path(path), who)
    if kind in ("postgresql", "postgres"):
        return Postgres(url, who)
    raise ValueError("a store's URL must begin with sqlite:/// or postgresql://")


class Sqlite:
    """A file in WAL mode, for processes of one machine. One of them writes at a time; the others wait.

    A file on a network file system is for one process alone, which somebody else has seen to (`alone`). It is locked
    once, for as long as it is open, and has a rollback journal: WAL mode needs memory that processes share.
    """

    _words: ClassVar = {
        "now": "((julianday('now') - 2440587.5) * 86400.0)",
        "serial": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "skip_locked": "",
        "keys": "SELECT value FROM json_each(:keys)",
        "alone": "SELECT 1",  # whoever writes is alone already
    }

    def __init__(self, path: Path, who: str, *, alone: bool = False) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise ValueError(f"the store {path} cannot be written: {error}") from error
        networked = NETWORKED.fullmatch(kind := file_system(path))
        if networked and not alone:
            raise ValueError(f"store {path}: SQLite's locks do not hold on {kind}; use a local disk or postgresql://")
        if BUCKET.fullmatch(kind):
            raise ValueError(f"{path} is on {kind}, a mounted bucket, in which no database is safe")
        self._lock = threading.Lock()
        advice = f"another program holds it: see which (fuser {path}), and end its transaction or it"
        self._patience = Patience(f"the database {path}", who, advice)
        self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            if networked:
                self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._journaled("TRUNCATE" if networked else "WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
        except sqlite3.DatabaseError as error:
            raise ValueError(f"the store {path} cannot be used: {error}") from error

    def _journaled(self, mode: str) -> None:
        """Whoever makes a file's first change of mode shuts out others, who are told so without waiting."""
        begun = time.monotonic()
        while True:
            try:
                self._connection.execute(f"PRAGMA journal_mode = {mode}")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() - begun > TOLD:
                    raise
            time.sleep(0.02)

    def run(self, work: Callable[[Execute], T]) -> T:
        with self._lock, self._in_words():
            self._unlocked(lambda: self._connection.execute("BEGIN EXCLUSIVE"))  # in WAL mode readers go on
            try:
                result = work(self._execute)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it by itself where a disk is full or fails
                    self._connection.execute("ROLLBACK")
                raise
            return result

    def look(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with self._lock, self._in_words():
            return self._unlocked(lambda: self._execute(statement, values)).found

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What is wrong with the file or its disk is a StoreError; what is wrong with a statement stays as it is."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise
        except sqlite3.DatabaseError as error:
            who, name = self._patience.who, self._patience.database
            raise StoreError(f"{who} cannot use {name}: {error}; mend that, then run the same command again") from error

    def _unlocked(self, act: Callable[[], T]) -> T:
        """`act`, which changes nothing, as soon as nobody else holds the database."""
        while True:
            try:
                result = act()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                self._patience.wait(error)
            else:
                self._patience.end()
                return result

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: str, values: Mapping[str, Any]) -> Rows:
        cursor = self._connection.execute(statement.format(**self._words), values)
        found = cursor.fetchall()
        return Rows(found, max(cursor.rowcount, 0))


class Postgres:
    """A server, for machines that share no disk. A lost connection is made again, and the transaction run again."""

    _words: ClassVar = {
        "now": "extract(epoch FROM clock_timestamp())::double precision",
        "serial": "BIGSERIAL PRIMARY KEY",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        "keys": "SELECT json_array_elements_text(:keys::json)",
        "alone": "SELECT pg_advisory_xact_lock(251113288)",
    }

    def __init__(self, url: str, who: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise ValueError("a postgresql:// store needs psycopg: pip install 'metaagentx[postgres]'") from error
        self._psycopg, self._url, self._lock = psycopg, url, threading.Lock()
        host, name = self._whereabouts()
        self._patience = Patience(f"the database {name!r} at {host}", who, "see that it runs and lets us in")
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            raise ValueError(f"the store does not let us in: {str(error).strip()}") from error

    def run(self, work: Callable[[Execute], T]) -> T:
        with self._lock:
            while True:
                try:
                    with self._connection.transaction():
                        result = work(self._execute)
                except self._psycopg.OperationalError as error:
                    self._patience.wait(error)
                    self._connect_again()
                else:
                    self._patience.end()
                    return result

    def look(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self.run(lambda execute: execute(statement, values).found)

    def close(self) -> None:
        self._connection.close()

    def _whereabouts(self) -> tuple[str, str]:
        """The server and the database that the URL names."""
        with suppress(self._psycopg.Error):  # it quotes what it cannot read, perhaps a password
            about = self._psycopg.conninfo.conninfo_to_dict(self._url)
            host, name = str(about.get("host", "this machine")), str(about.get("dbname", ""))
            if "@" not in host + name:  # or the end of a password would stand there
                return host, name
        raise ValueError(
            "the store's URL cannot be read: see that its parameters exist, and that in names and passwords all but "
            "letters and digits is written like %40 (for @)"
        )

    def _connect_again(self) -> None:
        self._connection.close()
        time.sleep(0.2)
        with suppress(self._psycopg.OperationalError):  # the next transaction fails at once, and patience wears out
            self._connection = self._connect()

    def _connect(self) -> Any:
        """A connection that notices a server that is gone without a word; what the URL says about it counts."""
        return self._psycopg.connect(**ALIVE | self._psycopg.conninfo.conninfo_to_dict(self._url))

    def _execute(self, statement: str, values: Mapping[str, Any]) -> Rows:
        worded = re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement.format(**self._words))
        cursor = self._connection.execute(worded, values)
        found = cursor.fetchall() if cursor.description is not None else []
        return Rows(found, max(cursor.rowcount, 0) if not worded.lstrip().startswith("SELECT") else 0)


def file_system(path: Path) -> str:
    """The kind of file system that a file is or would be on; "" where the system does not say."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    where, best, kind = str(path.absolute().parent.resolve()), -1, ""
    for _, point, name, *_ in map(str.split, mounts):
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), name
    return kind
