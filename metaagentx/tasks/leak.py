"""Whether a text gives a question's answer away: it holds the answer, and the question does not."""

from __future__ import annotations

import re
from collections.abc import Set

from metaagentx.tasks.answers import normalise

LONGEST = 200  # characters of an answer that is looked for
_COMMON = frozenset({"yes", "no", "true", "false", "none", "unknown"})  # any text may hold them, whatever is asked
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.,#])[-+])?(?<![\w.,#])[0-9]{1,64}(?:,[0-9]{3}){0,20}"
    r"(?:\.[0-9]{1,64}|/[0-9]{1,64})?(?![\w/])(?!\.[0-9])"
    r"|[-+]?\\[dt]?frac\{[0-9]{1,64}\}\{[0-9]{1,64}\}"
)
_MARKER = re.compile(r"^[ \t#*-]*(?:step[ \t]*)?[0-9]{1,3}[.):]", re.IGNORECASE | re.MULTILINE)


def gives_away(answer: str, question: str, text: str) -> bool:
    """Whether `text` holds `answer` on its own, in any of its spellings, where `question` does not. Linear time.

    Never true of an answer of one character or a common word ("7", "B", "yes"), which stand in texts for other
    reasons, nor of the numbers of steps and list items.
    """
    wanted = normalise(answer)
    if len(wanted) < 2 or len(wanted) > LONGEST or wanted in _COMMON:
        return False
    unmarked = _MARKER.sub("", text)
    if _NUMBER.fullmatch(wanted):
        return wanted in _numbers(unmarked) and wanted not in _numbers(question)
    phrase = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    return bool(phrase.search(_words(unmarked))) and not phrase.search(_words(question))


def _numbers(text: str) -> Set[str]:
    """The normal forms of all numbers in `text`."""
    return {normalise(number) for number in set(_NUMBER.findall(text))}


def _words(text: str) -> str:
    return " ".join(text.casefold().split())
