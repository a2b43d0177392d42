"""A full-text index of documents, built once from JSONL into an SQLite file (FTS5).

A row: {"id": text, "title": text, "text": text}. An index is complete or absent: it is built beside its place and moved
there in one rename, under a name that holds the hash of its source.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

VERSION = 1  # of the tables below
LONGEST_LINE = 2**20  # bytes
_KEYS = ("id", "title", "text")
_TABLES = """
CREATE TABLE documents (line INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
  title, text, content = 'documents', content_rowid = 'line', tokenize = 'porter unicode61 remove_diacritics 2'
);
"""


class BadCorpus(ValueError):
    """A corpus that cannot be used: the message begins with its file, and with the line where there is one."""


def index_path(source: Path, folder: Path) -> Path:
    """Where the index of `source` lies in `folder`: equal content, equal name. Raises BadCorpus."""
    return folder / f"corpus-{_digest(source)[:16]}-{VERSION}.sqlite"


def build(source: Path, target: Path, progress: Callable[[int], None] = lambda read: None) -> None:
    """Index the documents of `source`. progress: told of the bytes that were read, every few thousand lines.

    Raises:
      BadCorpus: a row is malformed or its id was seen before; there is none; or SQLite cannot write the index.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        path = Path(scratch, target.name)
        try:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                _fill(connection, source, progress)
        except sqlite3.Error as error:
            needs = f"SQLite with FTS5, and room in {target.parent}"
            raise BadCorpus(f"{source}: cannot be indexed ({error}); this takes {needs}") from error
        with path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(path, target)


def _fill(connection: sqlite3.Connection, source: Path, progress: Callable[[int], None]) -> None:
    connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
    connection.execute("BEGIN")
    read = 0
    for line, size, row in _rows(source):
        try:
            connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", (line, *row))
        except sqlite3.IntegrityError:
            ((first,),) = connection.execute("SELECT line FROM documents WHERE id = ?", row[:1])
            raise BadCorpus(f"{source}:{line}: the same id as line {first}; keep one of the two") from None
        connection.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (line, *row[1:]))
        read += size
        if line % 5000 == 0:
            progress(read)
    if not read:
        raise BadCorpus(f"{source}: holds no documents; a line is {{'id': ..., 'title': ..., 'text': ...}}, in JSON")
    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
    connection.execute("COMMIT")


def _rows(source: Path) -> Iterator[tuple[int, int, tuple[str, str, str]]]:
    """(line, bytes, (id, title, text)) of every line that is not blank."""
    with source.open("rb") as file:
        line = 0
        while text := file.readline(LONGEST_LINE + 1):
            line += 1
            if len(text) > LONGEST_LINE:
                raise BadCorpus(f"{source}:{line}: longer than {LONGEST_LINE} bytes; cut the document into several")
            if text.strip():
                yield line, len(text), _row(text, f"{source}:{line}")


def _row(text: bytes, place: str) -> tuple[str, str, str]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCorpus(f"{place}: not a line of JSON: {error}") from error
    if not isinstance(row, dict) or row.keys() != set(_KEYS):
        found = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
        raise BadCorpus(f"{place}: must be an object with the keys {', '.join(map(repr, _KEYS))}, not {found:.80}")
    for key in _KEYS:
        value = row[key]
        if not isinstance(value, str) or not value.strip() or "\0" in value or not _encodes(value):
            raise BadCorpus(f"{place}: {key} must be a text that is not blank, not {value!r:.80}")
    return row["id"], row["title"], row["text"]


def _encodes(text: str) -> bool:
    """Whether it is without half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(source: Path) -> str:
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCorpus(f"{source}: cannot be read: {error.strerror}") from error
