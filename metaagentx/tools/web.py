"""A web search API of the config's choosing, asked over HTTPS; what it answered once, it answers again.

A model chooses the words of a query and nothing else: neither host nor path nor header. Reading pages at addresses that
a model wrote is not offered, as these may lie within the network that the run is in. The key comes from the
environment; it is in no message, result or record.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import tempfile
import time
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from metaagentx.tools.corpus import LONGEST, Document
from metaagentx.tools.options import WebOptions
from metaagentx.tools.tool import ToolError

_PAUSE = 0.5  # seconds before the first new attempt, twice as long before each further one


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to the host of the config and to no other; a redirect is an answer that is of no use."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _Unanswered(Exception):
    """An attempt that brought nothing; `again`: whether the next one may."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class WebSearch:
    """A client of one API. Its results are recorded in files, one a query, and a recorded query is not asked again."""

    def __init__(self, options: WebOptions, record: Path) -> None:
        """record: the folder of the recorded results. Raises ValueError where the variable of the key is not set."""
        self._options, self._record = options, record
        self._key = os.environ.get(options.key_variable, "") if options.key_variable else ""
        if options.key_variable and not (self._key.isascii() and self._key.isprintable() and self._key.strip()):
            raise ValueError(
                f"the environment variable {options.key_variable} (task.tools.web.key_variable) must be set to the "
                "key of the search API: it is not set, or not to printable characters"
            )
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if urlsplit(options.url).scheme == "http":  # this machine's own
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

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
        request = urllib.request.Request(options.url.replace("{query}", quote(query, safe="", errors="replace")))
        request.add_header("User-Agent", "metaagentx")
        request.add_header("Accept", "application/json")
        if options.header:
            name, _, value = options.header.partition(":")
            request.add_unredirected_header(name, value.strip().replace("{key}", self._key))
        for attempt in range(options.retries + 1):
            try:
                return json.loads(self._body(request))
            except (ValueError, RecursionError):
                raise ToolError("the search API's answer is not JSON; go on without it") from None
            except _Unanswered as trouble:
                if attempt == options.retries or not trouble.again:
                    raise ToolError(f"the search API {trouble}; go on without it") from None
            time.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _body(self, request: urllib.request.Request) -> bytes:
        """One attempt. What goes wrong is said in our own words: the library's may repeat what was sent."""
        options = self._options
        deadline = time.monotonic() + options.seconds
        body = b""
        try:
            with self._opener.open(request, timeout=options.seconds) as response:
                while piece := response.read1(65536):
                    body += piece
                    if len(body) > 1024 * options.most_kb:
                        raise _Unanswered(f"sent more than {options.most_kb} kB", again=False)
                    if time.monotonic() > deadline:
                        raise _Unanswered(f"took longer than {options.seconds:g} seconds", again=True)
        except urllib.error.HTTPError as error:
            error.close()
            raise _Unanswered(f"answered with status {error.code}", error.code == 429 or error.code >= 500) from None
        except TimeoutError:
            raise _Unanswered(f"took longer than {options.seconds:g} seconds", again=True) from None
        except (OSError, http.client.HTTPException):
            raise _Unanswered("could not be reached", again=True) from None
        return body

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
