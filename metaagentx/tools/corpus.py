"""Documents that can be searched and read. What is asked is hostile text and never a query language's."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaagentx.tools.corpus_index import BadCorpus
from metaagentx.tools.tool import ToolError

LONGEST = 1000  # characters of a query that are read
MOST_WORDS = 32  # different words of a query that count
MOST_MATCHES = 500_000  # documents with a word of a query that are ranked, a few microseconds each
SNIPPET = 32  # words of a document that are shown with its title
_WORD = re.compile(r"\w{1,64}")
# Words that most documents have: they cost time, and tell documents apart by nothing.
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can could did do does for from had has have how i if in into is it its of "
        "on or s t that the their them then there these they this to was we were what when where which who whom whose "
        "why will with would you",
    )
)
_ANY = "SELECT id FROM words JOIN documents ON line = words.rowid WHERE words MATCH ?"
_BEST = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0), rowid LIMIT ?"
_MARKED = (  # FTS5's own snippet() takes time quadratic in the places that match
    "SELECT id, documents.title, highlight(words, 1, char(2), '') "
    "FROM words JOIN documents ON line = words.rowid WHERE words MATCH ? AND words.rowid = ?"
)
_BY_LINE = "SELECT id, title, text FROM documents WHERE line = ?"
_BY_ID = "SELECT id, title, text FROM documents WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or what a search shows of it."""

    id: str
    title: str
    text: str


class Corpus:
    """The documents of an index (`corpus_index.build`), opened read only. Safe to use from several threads."""

    def __init__(self, index: Path) -> None:
        """Raises BadCorpus where `index` is not one that can be read."""
        self._uri = f"{index.resolve().as_uri()}?mode=ro"
        self._idle: deque[sqlite3.Connection] = deque()  # connections, each used by one thread at a time
        try:
            with self._connection() as connection:
                connection.execute(_ANY, ('"a"',)).fetchone()
        except sqlite3.Error as error:
            raise BadCorpus(f"{index}: damaged ({error}); remove it to have it built again") from error

    def search(self, query: str, count: int) -> list[Document]:
        """The `count` best documents for the words of `query`, snippets for their texts.

        Ranked by BM25, a word in a title counting twice; equal ones in the order of the source.

        Raises:
          ToolError: more than MOST_MATCHES documents hold a word of it.
        """
        match = _match(query)
        with self._connection() as connection:
            rows = [_row(connection, _MARKED, match, line) for line in _lines(connection, match, count)]
        return [Document(name, title, _snippet(marked)) for name, title, marked in rows]

    def best(self, query: str) -> Document | None:
        """The first document that `search` finds, with its whole text."""
        with self._connection() as connection:
            lines = _lines(connection, _match(query), 1)
            return Document(*_row(connection, _BY_LINE, lines[0])) if lines else None

    def document(self, name: str) -> Document | None:
        """The document of this id."""
        with self._connection() as connection:
            row = _row(connection, _BY_ID, name.encode(errors="replace").decode())
            return Document(*row) if row else None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
        try:
            yield connection
        finally:
            self._idle.append(connection)


def _lines(connection: sqlite3.Connection, match: str, count: int) -> list[int]:
    """Where the best documents are. The work is bounded by steps and not by time, so the same query ends the same."""
    if not match:
        return []
    thousands = MOST_MATCHES // 1000

    def stop() -> bool:
        nonlocal thousands
        thousands -= 1
        return thousands < 0

    connection.set_progress_handler(stop, 16_000)  # a match takes SQLite's machine sixteen steps
    try:
        return [line for (line,) in connection.execute(_BEST, (match, count))]
    except sqlite3.OperationalError:
        if thousands >= 0:
            raise
        raise ToolError("too many documents hold words of this query; look for rarer words") from None
    finally:
        connection.set_progress_handler(None, 0)


def _row(connection: sqlite3.Connection, statement: str, *values: str | int) -> Any:
    return connection.execute(statement, values).fetchone()


def _snippet(marked: str) -> str:
    """Of a text the SNIPPET words in a row with most of those that are marked, from shortly before one. Linear time."""
    words = marked.split()
    hits = list(itertools.accumulate(("\2" in word for word in words), initial=0))
    end = max(len(words) - SNIPPET, 0)
    starts = [min(max(at - SNIPPET // 4, 0), end) for at, word in enumerate(words) if "\2" in word] or [0]
    start = max(starts, key=lambda at: hits[min(at + SNIPPET, len(words))] - hits[at])
    shown = " ".join(words[start : start + SNIPPET]).replace("\2", "")
    return "... " * (start > 0) + shown + " ..." * (start < end)


def _match(query: str) -> str:
    """Any of the words of a query in the syntax of FTS5, each in quotes, so that none is an operator; "" for none."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query[:LONGEST]))
    telling = [word for word in words if word not in _STOP] or list(words)
    return " OR ".join(f'"{word}"' for word in telling[:MOST_WORDS])
