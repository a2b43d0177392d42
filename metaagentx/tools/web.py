"""A web search API of the config's choosing, asked over HTTPS; what it answered once, it answers again.

A model chooses the words of a query and nothing else: neither host nor path nor header. Reading pages at addresses that
a model wrote is not offered, as these may lie within the network that the run is in. The key comes from the
environment; it is in no message, result or record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import types
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metaagentx.tools.corpus import LONGEST, Document
from metaagentx.tools.exchange import Unanswered, exchange, secret
from metaagentx.tools.options import WebOptions
from metaagentx.tools.tool import ToolError

_PAUSE = 0.5  # seconds before the first new attempt, twice as long before each further one


class WebSearch:
    """A client of one API. Its results are recorded in files, one a query, and a recorded query is not asked again."""

    def __init__(self, options: WebOptions, record: Path) -> None:
        """record: the folder of the recorded results. Raises ValueError where the variable of the key is not set."""
        self._options, self._record = options, record
        self._key = secret(options.key_variable, "task.tools.web.key_variable") if options.key_variable else ""

    def search(self, query: str) -> list[Document]:
        """The results for the words of `query`, in the API's order: links for ids, and snippets for texts.

        Raises:
          ToolError: there was no answer, or none that could be read. This is not recorded.
        """
        query = " ".join(query[:LONGEST].split())
        about = [getattr(self._options, name) for name in ("url", "results", "title", "link", "snippet")]
        path = self._record / f"{hashlib.sha256(json.dumps([*about, query]).encode()).hexdigest()[:32]}.json"
        if not path.exists():
            _write_first(path, json.dumps({"query": query, "results": self._results(self._answer(query))}))
        return [Document(*row) for row in json.loads(path.read_bytes())["results"]]

    def _answer(self, query: str) -> Any:
        """The API's answer, decoded."""
        options = self._options
        url = options.url.replace("{query}", quote(query, safe="", errors="replace"))
        headers = {"User-Agent": "metaagentx", "Accept": "application/json"}
        if options.header:
            name, _, value = options.header.partition(":")
            headers[name] = value.strip().replace("{key}", self._key)
        for attempt in range(options.retries + 1):
            try:
                return json.loads(exchange("GET", url, headers, None, seconds=options.seconds, most_kb=options.most_kb))
            except (ValueError, RecursionError):
                raise ToolError("the search API's answer is not JSON; go on without it") from None
            except Unanswered as trouble:
                if attempt == options.retries or not trouble.again:
                    raise ToolError(f"the search API {trouble}; go on without it") from None
            time.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _results(self, answer: Any) -> list[list[str]]:
        """[link, title, snippet] of every result."""
        options = self._options
        results = _at(answer, options.results)
        if not isinstance(results, list | types.NoneType):
            raise ToolError("the search API's answer holds no list of results; go on without it")
        rows = [
            [_at(result, keys) for keys in (options.link, options.title, options.snippet)] for result in results or ()
        ]
        return [[self._plain(field) for field in row] for row in rows]

    def _plain(self, field: Any) -> str:
        """A field as one line of text, without the key, should the API repeat it."""
        text = " ".join(field.split()) if isinstance(field, str) else ""
        return text.replace(self._key, "[key]") if self._key else text


def _at(value: Any, keys: str) -> Any:
    """What lies at the end of a way of keys with dots between; None where it leads nowhere."""
    for key in keys.split(".") if keys else ():
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _write_first(path: Path, text: str) -> None:
    """Make the file, complete, unless there is one: of two that write at once, the first is read by both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
