"""What a critique decides: the word after `VERDICT:`, else a word of its last line."""

from __future__ import annotations

import re

_ACCEPT = r"(?:correct|accept(?:ed|s)?|approved?|pass(?:ed|es)?)"
_REJECT = r"(?:incorrect|reject(?:ed|s)?|revise|fail(?:ed|s)?)"
_NEGATION = r"(?:not|never|cannot|\w{1,12}n['’]t)"
_WORD = re.compile(
    rf"\b(?:(?P<negated>{_NEGATION}\s{{1,4}}(?:\w{{1,20}}\s{{1,4}}){{0,2}}{_ACCEPT})|(?P<reject>{_REJECT})|(?P<accept>{_ACCEPT}))\b",
    re.IGNORECASE,
)
_MARK = re.compile(r"\bverdict\b[\s*_]{0,4}:", re.IGNORECASE)
_LONGEST = 2000  # characters of a verdict's line that are read


def accepts(text: str) -> bool | None:
    """True: accepted. False: to be revised. None: the text holds no verdict.

    After the last `VERDICT:` the first word of either list decides. Without the mark, the last line decides, where one
    word against outweighs any word in favour: a critique that ends in INCORRECT is no approval.
    """
    marks = list(_MARK.finditer(text))
    if marks:
        match = _WORD.search(text[marks[-1].end() :][:_LONGEST])
        return None if match is None else match.lastgroup == "accept"
    lines = text.rstrip().splitlines()
    found = [match.lastgroup for match in _WORD.finditer(lines[-1][-_LONGEST:])] if lines else []
    return None if not found else all(group == "accept" for group in found)
