"""The tools `search` and `fetch_data` over a corpus, and `google-search` over it or over the web."""

from __future__ import annotations

import dataclasses

from metaagentx.tools.corpus import Corpus, Document
from metaagentx.tools.tool import Tool, ToolError
from metaagentx.tools.web import WebSearch


def make_search(corpus: Corpus, count: int) -> Tool:
    """The tool `search(query)`: titles and snippets of the `count` best documents."""

    def search(query: str) -> str:
        """Finds documents: the best ones for the words of a query, with their ids, titles and a few lines of each.

        Args:
          query: words to look for
        """
        return listed(corpus.search(query, count), query)

    return Tool.of(search)


def make_fetch(corpus: Corpus) -> Tool:
    """The tool `fetch_data(query)`: one document's text."""

    def fetch_data(query: str) -> str:
        """Reads one document.

        Args:
          query: the id of a document that was found, or words to look for
        """
        document = corpus.document(query.strip()) or corpus.best(query)
        if document is None:
            raise ToolError(f"there is no document for {query!r:.80}; try other words")
        return f"{document.title} (id: {document.id})\n{document.text}"

    return Tool.of(fetch_data)


def make_web_search(web: WebSearch, count: int) -> Tool:
    """The tool `google-search(query)`, which asks the web API of the config."""

    def search(query: str) -> str:
        """Searches the web: titles, links and a few lines of the best pages.

        Args:
          query: words to look for
        """
        return listed(web.search(query)[:count], query, "link")

    return dataclasses.replace(Tool.of(search), name="google-search")


def listed(found: list[Document], query: str, place: str = "id") -> str:
    """Search results as a model is shown them."""
    if not found:
        return f"Nothing was found for {query!r:.80}."
    return "\n".join(
        f"{rank}. {one.title} ({place}: {one.id})\n   {' '.join(one.text.split())}" for rank, one in enumerate(found, 1)
    )
