"""A corpus is indexed once, found again by its content, and answers any text whatever."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.tools import corpus as corpus_module
from metaagentx.tools import corpus_index, search
from metaagentx.tools.corpus import Corpus, Document
from metaagentx.tools.corpus_index import LONGEST_LINE, BadCorpus, build, index_path
from metaagentx.tools.tool import ToolError

ROWS = [
    {"id": "a", "title": "Apples", "text": "Apples grow on trees. Trees need light."},
    {"id": "b", "title": "Bread", "text": "Bread is baked from flour; apples are not baked into it."},
    {"id": "c", "title": "Café", "text": "Coffee is served there, in Zürich AND elsewhere, NEAR the lake."},
    {"id": "twin-2", "title": "Twin", "text": "Equal words."},
    {"id": "twin-1", "title": "Twin", "text": "Equal words."},
]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def opened(folder: Path, rows: list[Any] = ROWS) -> Corpus:
    source = written(folder / "corpus.jsonl", rows)
    index = index_path(source, folder / "indices")
    build(source, index)
    return Corpus(index)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return opened(tmp_path_factory.mktemp("corpus"))


def found(corpus: Corpus, query: str, count: int = 9) -> list[str]:
    return [document.id for document in corpus.search(query, count)]


def test_the_best_documents_come_first(corpus: Corpus) -> None:
    assert found(corpus, "apples and trees") == ["a", "b"], "two words beat one; a title counts twice"
    assert found(corpus, "Apple tree") == ["a", "b"], "words are compared by their stems"
    assert found(corpus, "ZURICH cafe") == ["c"], "and without accents and case"
    assert found(corpus, "apples", 1) == ["a"]
    assert found(corpus, "nothing like it") == []


def test_equal_documents_come_in_the_order_of_the_source(corpus: Corpus) -> None:
    assert found(corpus, "equal twin") == ["twin-2", "twin-1"]


def test_a_document_is_read_by_its_id_or_its_words(corpus: Corpus) -> None:
    assert corpus.document("c") == Document(**ROWS[2])
    assert corpus.document("C") is corpus.document("") is None
    assert corpus.best("who bakes bread") == Document(**ROWS[1])
    assert corpus.best("...") is corpus.best("zebra") is None


def test_a_snippet_is_what_of_a_text_holds_the_words(tmp_path: Path) -> None:
    filler = "filler " * 500
    corpus = opened(tmp_path, [{"id": "x", "title": "t", "text": f"{filler} the needle is here {filler}"}])
    (one,) = corpus.search("needle", 1)
    assert "the needle is here" in one.text
    assert len(one.text.split()) < 40
    corpus = opened(tmp_path, [{"id": "x", "title": "t", "text": f"needle {filler} one needle, two needles {filler}"}])
    assert "one needle, two needles" in corpus.search("needle", 1)[0].text, "where most of them are"
    corpus = opened(tmp_path, [{"id": "x", "title": "needle", "text": filler}])
    assert corpus.search("needle", 1)[0].text == "filler " * 32 + "...", "or else where it begins"


def test_a_word_that_fills_a_document_holds_no_search_up(tmp_path: Path) -> None:
    corpus = opened(tmp_path, [{"id": "x", "title": "t", "text": "apple " * 40_000}])
    start = time.process_time()
    assert corpus.search("apple", 1)[0].text == "apple " * 32 + "..."
    assert time.process_time() - start < 10, "as a snippet that is found in quadratic time takes far longer"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"apples', ["a", "b"]),
        ("apples*", ["a", "b"]),
        ("app*", []),
        ("title:bread", ["b"]),
        ("-apples", ["a", "b"]),
        ("NOT apples", ["a", "b"]),
        ("apples AND bread", ["b", "a"]),
        ("NEAR(lake apples)", ["c", "a", "b"]),
        ("apples) OR (bread", ["b", "a"]),
        ("^bread", ["b"]),
        ("'; DROP TABLE documents; --", []),
        ("words MATCH 'x'", ["twin-2", "twin-1"]),
        ("{title text}: coffee", ["c"]),
        ("\x00apples\x00", ["a", "b"]),
        ("\ud800 bread", ["b"]),
        ("the", ["c"]),
        ("_ __ ___", []),
    ],
)
def test_no_syntax_of_the_index_leaks_through(corpus: Corpus, query: str, expected: list[str]) -> None:
    assert sorted(found(corpus, query)) == sorted(expected)


operators = st.sampled_from(
    [*'"*^:()-+{}\x00', " AND ", " OR ", " NOT ", "NEAR(", "title:", "apples", "é", "\ud800", "_"]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=50), st.lists(operators, max_size=30).map("".join)))
def test_nothing_that_is_asked_breaks_a_search(corpus: Corpus, query: str) -> None:
    first = corpus.search(query, 3)
    assert len(first) <= 3
    assert corpus.search(query, 3) == first
    assert (corpus.best(query) or Document("", "", "")).id == (first[0].id if first else "")
    read = corpus.document(query)
    assert read is None or read.id == query


def test_a_query_is_read_up_to_a_bound(corpus: Corpus) -> None:
    assert found(corpus, "zebra " * 200 + "bread") == [], "what lies beyond a thousand characters does not count"
    many = " ".join(f"word{number}" for number in range(40))
    assert found(corpus, f"{many} bread") == [], "nor what comes after 32 different words"
    assert found(corpus, "x" * 10**6) == []


def test_a_query_that_most_documents_match_is_told_to_be_rarer(tmp_path: Path, monkeypatch) -> None:
    rows = [{"id": str(number), "title": "t", "text": f"common word{number}"} for number in range(4000)]
    corpus = opened(tmp_path, rows)
    assert len(corpus.search("common", 5)) == 5
    monkeypatch.setattr(corpus_module, "MOST_MATCHES", 2000)
    with pytest.raises(ToolError, match="too many documents"):
        corpus.search("common", 5)
    assert found(corpus, "word77") == ["77"], "the connection goes on"
    monkeypatch.setattr(corpus_module, "MOST_MATCHES", 0)
    opened(tmp_path, [row | {"text": "a"} for row in rows])  # is no matter when it is opened


def test_many_threads_find_the_same(corpus: Corpus) -> None:
    queries = ["apples and trees", "bread", "twin", "zurich", "zebra"] * 40
    random.Random(0).shuffle(queries)
    alone = [corpus.search(query, 3) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: corpus.search(query, 3), queries)) == alone


def test_an_index_cannot_be_written(corpus: Corpus) -> None:
    with corpus._connection() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM documents")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "corpus.jsonl:2: not a line of JSON"),
        ("[" * 100_000, "corpus.jsonl:2: not a line of JSON"),
        (["a"], "corpus.jsonl:2: must be an object with the keys 'id', 'title', 'text', not list"),
        ({"id": "x", "text": "y"}, "corpus.jsonl:2: must be an object with the keys .* not 'id', 'text'"),
        ({"id": "x", "title": "t", "text": "y", "more": 1}, "corpus.jsonl:2: must be an object with the keys"),
        ({"id": 3, "title": "t", "text": "y"}, "corpus.jsonl:2: id must be a text that is not blank, not 3"),
        ({"id": "x", "title": " ", "text": "y"}, "corpus.jsonl:2: title must be a text"),
        ({"id": "x", "title": "t", "text": "a\0b"}, "corpus.jsonl:2: text must be a text"),
        ('{"id": "x", "title": "t", "text": "\\ud800"}', "corpus.jsonl:2: text must be a text"),
        ({"id": "a", "title": "t", "text": "y"}, "corpus.jsonl:2: the same id as line 1; keep one of the two"),
        ({"id": "x", "title": "t", "text": "y" * LONGEST_LINE}, "corpus.jsonl:2: longer than 1048576 bytes"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_leaves_no_index(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(BadCorpus, match=message):
        opened(tmp_path, [ROWS[0], row])
    assert os.listdir(tmp_path / "indices") == []


def test_a_corpus_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="holds no documents"):
        opened(tmp_path, ["", ""])
    with pytest.raises(BadCorpus, match="cannot be read"):
        index_path(tmp_path / "none.jsonl", tmp_path)


def test_an_sqlite_that_cannot_index_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(corpus_index, "_TABLES", corpus_index._TABLES.replace("fts5", "fts9"))
    with pytest.raises(BadCorpus, match=r"cannot be indexed \(no such module: fts9\); this takes SQLite with FTS5"):
        opened(tmp_path)
    assert os.listdir(tmp_path / "indices") == []


def test_an_index_belongs_to_a_content(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1.jsonl", ROWS), written(tmp_path / "2.jsonl", ROWS)
    assert index_path(first, tmp_path) == index_path(second, tmp_path)
    written(second, ROWS[:1])
    assert index_path(first, tmp_path) != index_path(second, tmp_path)


def test_a_damaged_index_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    opened(tmp_path)
    (index,) = (tmp_path / "indices").iterdir()
    index.write_bytes(b"no database " * 1000)
    with pytest.raises(BadCorpus, match=r"damaged .* remove it"):
        Corpus(index)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_index.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    assert os.listdir(tmp_path / "indices") == []


def test_what_a_model_is_shown(corpus: Corpus) -> None:
    find, read = search.make_search(corpus, 2), search.make_fetch(corpus)
    assert find(query="apples") == (
        "1. Apples (id: a)\n   Apples grow on trees. Trees need light.\n"
        "2. Bread (id: b)\n   Bread is baked from flour; apples are not baked into it."
    )
    assert find(query="zebra") == "Nothing was found for 'zebra'."
    assert read(query=" c ") == f"Café (id: c)\n{ROWS[2]['text']}"
    assert read(query="baked").startswith("Bread (id: b)\n")
    with pytest.raises(ToolError, match="no document for 'zebra'; try other words"):
        read(query="zebra")
