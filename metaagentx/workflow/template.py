"""Templates of tasks and prompts: `{name}` stands for a text by name; every other brace is itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

QUESTION = "question"
REPEATED = 65536  # characters that repetitions of places may put in: a template of 20,000 places multiplies a reply

_PLACE = re.compile(r"\{([^{}\n]{1,200})\}")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w#-]*\Z")


def references(template: str) -> Iterator[tuple[str, int]]:
    """The names that a template refers to, and where their braces open (from 0).

    Braces around anything that is no identifier (`\\frac{1}{2}`) are not counted, though `fill` still honours them
    where a step has that very name.
    """
    for match in _PLACE.finditer(template):
        if _IDENTIFIER.match(match[1]):
            yield match[1], match.start()


def fill(template: str, values: Mapping[str, str], *, missing: str | None = None) -> str:
    """Put `values` in their places. What is put in is not read again.

    A place whose name has no value stays as it is, or gets `missing` where that is given and the name an identifier.
    The first place of a name gets all of its value; further ones share `REPEATED` characters.
    """
    filled: set[str] = set()
    left = REPEATED

    def value(match: re.Match[str]) -> str:
        nonlocal left
        name = match[1]
        if name in values:
            text = values[name] if name not in filled else values[name][:left]
            left -= len(text) if name in filled else 0
            filled.add(name)
            return text
        return match[0] if missing is None or not _IDENTIFIER.match(name) else missing

    return _PLACE.sub(value, template)
