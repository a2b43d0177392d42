"""The toolbox that a config names. What it names and cannot have is an error, before long work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from metaagentx.tools import search
from metaagentx.tools.calculator import OPERATIONS, make_calculator
from metaagentx.tools.corpus import Corpus
from metaagentx.tools.corpus_index import build, index_path
from metaagentx.tools.options import ToolOptions
from metaagentx.tools.python_tool import make_python
from metaagentx.tools.sandbox import Sandbox
from metaagentx.tools.tool import Tool
from metaagentx.tools.toolbox import Toolbox
from metaagentx.tools.user_file import read_tools
from metaagentx.tools.web import WebSearch

BUILT_IN = ("calculator", "python_execute", "execute_code", "search", "fetch_data", "google-search")
SAMPLE = Path(search.__file__).with_name("sample_corpus.jsonl")
_SHOWN = 20_000_000  # bytes of a corpus from which on its indexing shows how far it is


def open_toolbox(
    options: ToolOptions,
    data_dir: Path,
    sandbox: Callable[[], Sandbox],
    operations: frozenset[str] = OPERATIONS,
) -> Toolbox:
    """The tools of `options`: the built-in ones that it names, then those of the user's files.

    data_dir: where indices and recorded results are kept; sandbox: called if a tool needs it; operations: of the
    calculator.

    Raises:
      ValueError: a name, a file, the corpus or the web's options cannot be used; the message says which and why.
      SandboxUnavailable: a tool needs a sandbox, and this machine cannot isolate programs.
    """
    return Toolbox(_tools(options, data_dir, sandbox, operations), options)


def _tools(
    options: ToolOptions, data_dir: Path, sandbox: Callable[[], Sandbox], operations: frozenset[str]
) -> Iterator[Tool]:
    _check_names(options)
    corpus = _open_corpus(options.corpus, data_dir) if options.corpus else None
    for name in options.names:
        if name == "calculator":
            yield make_calculator(operations)
        elif name in ("python_execute", "execute_code"):
            yield dataclasses.replace(make_python(sandbox()), name=name)
        elif name == "google-search" and options.web.url:
            record = Path(options.web.record).expanduser() if options.web.record else data_dir / "web"
            yield search.make_web_search(WebSearch(options.web, record), options.results)
        elif corpus is None:
            also = ", or task.tools.web.url a search API" if name == "google-search" else ""
            raise ValueError(
                f"task.tools.corpus must name a JSONL file of documents, or 'sample'{also}: "
                f"task.tools.names has {name!r}"
            )
        elif name == "fetch_data":
            yield search.make_fetch(corpus)
        else:
            yield dataclasses.replace(search.make_search(corpus, options.results), name=name)
    for file in options.files:
        try:
            yield from read_tools(Path(file).expanduser())
        except ValueError as error:
            raise ValueError(f"task.tools.files: {error}") from error


def _check_names(options: ToolOptions) -> None:
    for name in options.names:
        if name not in BUILT_IN:
            hint = "" if "," not in name else ", and several are written \"('calculator','search')\""
            raise ValueError(
                f"task.tools.names: there is no built-in tool {name!r}; there is {', '.join(BUILT_IN)}{hint} (tools of "
                "your own are named by their file, in task.tools.files)"
            )


def _open_corpus(source: str, data_dir: Path) -> Corpus:
    """The corpus, indexed if it is not yet."""
    path = SAMPLE if source == "sample" else Path(source).expanduser()
    try:
        index = index_path(path, data_dir)
        if not index.exists():
            _build(path, index)
        return Corpus(index)
    except ValueError as error:
        raise ValueError(f"task.tools.corpus: {error}") from error


def _build(source: Path, index: Path) -> None:
    size = source.stat().st_size
    columns = (TextColumn("indexing {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=size < _SHOWN) as progress:
        task = progress.add_task(source.name, total=size)
        build(source, index, lambda read: progress.update(task, completed=read))
