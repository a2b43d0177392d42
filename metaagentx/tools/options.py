"""What agents may call, and how long and how much. Bad values are errors that name their key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from metaagentx.tools.exchange import check_url, check_variable

_HEADER = re.compile(r"[A-Za-z0-9-]+: ?[\x20-\x7e]*\{key\}[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class WebOptions:
    """A web search API that answers GET with JSON. All of it but the query is yours, and none of it a model's."""

    url: str = ""  # "https://api.search.brave.com/res/v1/web/search?q={query}"; "": no web
    key_variable: str = ""  # the environment variable that holds the key, never the key itself; "": none is needed
    header: str = ""  # in which the key goes out: "X-Subscription-Token: {key}", "Authorization: Bearer {key}"
    results: str = ""  # keys on the way to the list of results in an answer: "web.results"; "": the answer is the list
    title: str = "title"  # keys on the way to a result's title, and so on
    link: str = "url"
    snippet: str = "description"
    seconds: float = 5.0  # of one attempt
    retries: int = 1  # after no answer, or one of status 429 or 5xx
    most_kb: int = 512  # of an answer
    record: str = ""  # the folder of recorded results; "": under data.directory

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 600 or self.most_kb < 1 or not 0 <= self.retries <= 10:
            raise ValueError("tools.web.seconds must be in (0, 600], most_kb at least 1 and retries from 0 to 10")
        # The key may have been written where its name belongs: none of these messages repeats a value.
        check_variable(self.key_variable, "tools.web.key_variable")
        if bool(self.key_variable) != bool(self.header) or (self.header and not _HEADER.fullmatch(self.header)):
            raise ValueError(
                "tools.web.header must be like 'X-Subscription-Token: {key}' where key_variable is given, else ''"
            )
        if self.url:
            _check_url(self.url)


def _check_url(url: str) -> None:
    check_url(url, "tools.web.url", plain=False)
    if urlsplit(url).query.count("{query}") != 1 or re.search("[{}]", url.replace("{query}", "", 1)):
        raise ValueError("tools.web.url must hold {query} once, behind the question mark, and no other braces")


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """The tools of a run, and the limits of every call."""

    names: tuple[str, ...] = ("calculator",)  # built-in tools (docs/tools.md)
    files: tuple[str, ...] = ()  # your Python files, which are imported; all functions under @tool are tools
    corpus: str = ""  # JSONL of documents for search and fetch_data; "sample": a few dozen that come along
    web: WebOptions = WebOptions()  # what google-search asks instead of the corpus
    results: int = 5  # of a search
    seconds: float = 30.0  # of one call; tools with limits of their own (the sandbox's) keep to those
    longest: int = 4096  # characters of a result; the middle of a longer one is left out
    workers: int = 16  # calls that run at a time
    abandoned: int = 8  # calls of a tool that took too long and have not ended, before further ones are turned down

    def __post_init__(self) -> None:
        for name, least in (("results", 1), ("longest", 2), ("workers", 1), ("abandoned", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"tools.{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.seconds <= 86400:
            raise ValueError(f"tools.seconds must be above 0 and at most 86400, not {self.seconds}")
