"""The web is asked by a config's words but for the query, once a query, and its key is seen by nobody."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from metaagentx.tools import web as web_module
from metaagentx.tools.options import ToolOptions, WebOptions
from metaagentx.tools.search import make_web_search
from metaagentx.tools.toolbox import Toolbox
from metaagentx.tools.web import WebSearch
from metaagentx.workflow.protocol import ToolCall, ToolResult

KEY = "k3y-5ecret/+="
VARIABLE = "METAAGENTX_TEST_KEY"


class Api:
    """A search API on this machine: `answer(handler)` writes the answer to each request, which it keeps."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda handler: respond(handler, page())
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append((self.path, dict(self.headers)))
                api.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/find?count=3&q={{query}}"


def page(count: int = 2) -> bytes:
    results = [
        {"title": f"Page {n}", "url": f"https://example.org/{n}", "about": {"text": f"Some\n text {n}."}}
        for n in range(1, count + 1)
    ]
    return json.dumps({"web": {"results": results}}).encode()


def respond(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def api(monkeypatch) -> Iterator[Api]:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(web_module, "_PAUSE", 0.01)
    api = Api()
    yield api
    api.server.shutdown()


def options(api: Api, **changes: Any) -> WebOptions:
    given = {
        "url": api.url,
        "key_variable": VARIABLE,
        "header": "Authorization: Bearer {key}",
        "results": "web.results",
        "snippet": "about.text",
        "seconds": 2.0,
    }
    return WebOptions(**(given | changes))


def ask(api: Api, folder: Path, query: str = "who", **changes: Any) -> ToolResult:
    tool = make_web_search(WebSearch(options(api, **changes), folder), 2)
    result = Toolbox([tool]).run(ToolCall("google-search", {"query": query}, "A"))
    assert KEY not in result.text
    assert all(KEY not in path.read_text() for path in folder.glob("*"))
    return result


SHOWN = (
    "1. Page 1 (link: https://example.org/1)\n   Some text 1.\n2. Page 2 (link: https://example.org/2)\n   Some text 2."
)


def test_results_are_titles_links_and_snippets_up_to_a_number(api: Api, tmp_path: Path) -> None:
    api.answer = lambda handler: respond(handler, page(5))
    assert ask(api, tmp_path) == ToolResult(SHOWN)
    ((path, headers),) = api.requests
    assert path == "/find?count=3&q=who"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["User-Agent"] == "metaagentx"


@pytest.mark.parametrize(
    "query",
    ["a&b=c#d", "../../x?y", "x\r\nHost: evil", "{key} {query}", "ü \ud800 \x00", "http://10.0.0.1/", " a  b\n"],
)
def test_a_query_changes_nothing_but_its_own_value(api: Api, tmp_path: Path, query: str) -> None:
    assert ask(api, tmp_path, query).ok
    ((path, headers),) = api.requests
    parts = urlsplit(path)
    expected = " ".join(query.encode(errors="replace").decode().split())
    assert (parts.path, parse_qs(parts.query)) == ("/find", {"count": ["3"], "q": [expected]})
    assert headers["Host"] == urlsplit(api.url).netloc


def test_the_same_query_is_asked_once_and_a_record_is_enough(api: Api, tmp_path: Path) -> None:
    first = ask(api, tmp_path)
    api.answer = lambda handler: respond(handler, page(1))
    assert ask(api, tmp_path) == first, "another client, the same record"
    assert len(api.requests) == 1
    assert ask(api, tmp_path, "whom") != first
    assert ask(api, tmp_path / "other") != first


def test_of_two_who_ask_at_once_both_are_told_the_same(api: Api, tmp_path: Path) -> None:
    both, count = threading.Barrier(2), [0]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        count[0] += 1
        mine = page(count[0])
        both.wait(5)
        respond(handler, mine)

    api.answer = answer
    box = Toolbox([make_web_search(WebSearch(options(api), tmp_path), 2)])
    futures = [box.submit(ToolCall("google-search", {"query": "who"}, "A")) for _ in range(2)]
    first, second = (future.result(10) for future in futures)
    assert first == second
    assert first.ok
    assert len(api.requests) == 2


def test_an_answer_without_results_is_an_empty_list(api: Api, tmp_path: Path) -> None:
    api.answer = lambda handler: respond(handler, b'{"web": null}')
    assert ask(api, tmp_path) == ToolResult("Nothing was found for 'who'.")


def test_fields_that_are_missing_or_no_text_are_left_empty(api: Api, tmp_path: Path) -> None:
    api.answer = lambda handler: respond(handler, b'{"web": {"results": [{"title": 3, "url": null}, "x"]}}')
    assert ask(api, tmp_path).ok


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


FAILURES: dict[str, tuple[Callable[[http.server.BaseHTTPRequestHandler], None], str, int]] = {
    "status": (lambda h: respond(h, KEY.encode(), 403), "answered with status 403", 1),
    "limited": (lambda h: respond(h, b"", 429), "answered with status 429", 2),
    "broken": (lambda h: respond(h, b"", 503), "answered with status 503", 2),
    "elsewhere": (lambda h: respond(h, b"", 302, Location="http://localhost:1/"), "answered with status 302", 1),
    "page": (lambda h: respond(h, b"<html>"), "is not JSON", 1),
    "deep": (lambda h: respond(h, b"[" * 100_000), "is not JSON", 1),
    "shape": (lambda h: respond(h, b'{"web": {"results": {"a": 1}}}'), "holds no list of results", 1),
    "large": (lambda h: respond(h, b" " * 2**20), "sent more than 512 kB", 1),
    "silent": (lambda h: time.sleep(0.6), "took longer than 0.3 seconds", 2),
    "slow": (drip, "took longer than 0.3 seconds", 2),
    "hang up": (lambda h: h.connection.close(), "could not be reached", 2),
    "echo": (lambda h: h.wfile.write(f"HTTP/1.1 999 {KEY}\r\n\r\n".encode()), "answered with status 999", 2),
    "nonsense": (lambda h: h.wfile.write(f"{KEY}\r\n\r\n".encode()), "could not be reached", 2),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_goes_wrong_is_told_in_our_own_words_and_not_recorded(api: Api, tmp_path: Path, case: str) -> None:
    api.answer, words, attempts = FAILURES[case]
    result = ask(api, tmp_path, seconds=0.3)
    assert not result.ok
    assert result.text == f"the search API {words}; go on without it".replace("API is", "API's answer is").replace(
        "API holds", "API's answer holds"
    )
    assert len(api.requests) == attempts
    assert list(tmp_path.iterdir()) == []
    api.answer = lambda handler: respond(handler, page())
    assert ask(api, tmp_path).ok


def test_a_redirect_is_not_followed_and_the_key_stays(api: Api, tmp_path: Path) -> None:
    other = Api()
    api.answer = lambda handler: respond(handler, b"", 301, Location=other.url.replace("127.0.0.1", "localhost"))
    assert "status 301" in ask(api, tmp_path).text
    api.answer = lambda handler: respond(handler, b"", 301, Location="/find?again=1")
    assert "status 301" in ask(api, tmp_path).text
    assert other.requests == []
    other.server.shutdown()


def test_an_attempt_that_fails_is_made_again(api: Api, tmp_path: Path) -> None:
    api.answer = lambda handler: respond(handler, page(), 200 if len(api.requests) == 3 else 503)
    assert ask(api, tmp_path, retries=2) == ToolResult(SHOWN)


def test_a_key_that_is_sent_back_is_not_shown(api: Api, tmp_path: Path) -> None:
    body = json.dumps({"web": {"results": [{"title": f"<{KEY}>", "url": KEY, "about": {"text": KEY * 2}}]}}).encode()
    api.answer = lambda handler: respond(handler, body)
    assert ask(api, tmp_path).text == "1. <[key]> (link: [key])\n   [key][key]"


def test_a_key_is_in_no_text_of_the_client(api: Api, tmp_path: Path) -> None:
    search = WebSearch(options(api), tmp_path)
    assert KEY not in f"{search!r} {options(api)!r} {make_web_search(search, 2)!r} {make_web_search(search, 2).text()}"


@pytest.mark.parametrize("key", [None, "", " ", "a\nb", "a\r\nX: y", "schlüssel"])
def test_a_key_that_is_missing_or_cannot_be_sent_is_an_error_at_start(monkeypatch, tmp_path: Path, key) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setitem(os.environ, VARIABLE, key)
    with pytest.raises(ValueError, match=f"the environment variable {VARIABLE} .* must be set") as error:
        WebSearch(WebOptions("https://example.org/?q={query}", VARIABLE, "X-Key: {key}"), tmp_path)
    assert not key or not key.strip() or key not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://example.org/?q={query}"}, "must begin with https://"),
        ({"url": "http://localhost.example.org/?q={query}"}, "must begin with https://"),
        ({"url": "http://127.0.0.1@example.org/?q={query}"}, "must begin with https://"),
        ({"url": "file:///etc/passwd?{query}"}, "is not a URL"),
        ({"url": "ftp://localhost/?{query}"}, "must begin with https://"),
        ({"url": "https://user:pass@example.org/?q={query}"}, "no user, password or fragment"),
        ({"url": "https://example.org/#{query}"}, "no user, password or fragment"),
        ({"url": "https://{query}/?q=1"}, "must hold {query} once, behind the question mark"),
        ({"url": "https://example.org/{query}?q=1"}, "must hold {query} once, behind the question mark"),
        ({"url": "https://example.org/?q={query}&r={query}"}, "must hold {query} once"),
        ({"url": "https://example.org/?q={query}&key={key}"}, "must hold {query} once"),
        ({"url": "https://example.org/"}, "must hold {query} once"),
        ({"url": "https://example.org:99999/?q={query}"}, "is not a URL"),
        ({"url": "https://exa mple.org/?q={query}"}, "is not a URL"),
        ({"url": "https://[::1/?q={query}"}, "is not a URL"),
        ({"key_variable": "sk-aBcD1234", "header": "X-Key: {key}"}, "must be the NAME of a variable"),
        ({"key_variable": "KEY"}, "header must be like"),
        ({"header": "X-Key: {key}"}, "header must be like"),
        ({"key_variable": "KEY", "header": "X-Key: mine"}, "header must be like"),
        ({"key_variable": "KEY", "header": "X-Key\r\nX: {key}"}, "header must be like"),
        ({"seconds": 0.0}, "web.seconds must be"),
        ({"retries": -1}, "retries from 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        WebOptions(**changes)
    assert message in str(error.value)
    assert "aBcD1234" not in str(error.value), "a key where its name belongs is not repeated"


def test_https_and_this_machine_are_served() -> None:
    for url in ("https://example.org/find?q={query}&n=3", "http://localhost:80/?{query}", "http://[::1]/?q={query}"):
        assert WebOptions(url).url == url
    assert ToolOptions().web.url == ""
