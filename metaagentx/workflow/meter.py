"""How much of a script may be read: bounds that keep reading linear in its length, whatever it says.

Everything is counted in units that take about a microsecond: the signs that Python parses, the expressions that are
read, and the texts and lists that they handle.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.methods import MAX_DEPTH
from metaagentx.workflow.refused import Refused

UNITS_PER_10_KB = 3000  # 64 agents with tools and prompts of a line each take as many
MAX_CHAIN = 64  # links of `a.b().c()`
MAX_UNROLLED = 256  # steps of all loops together
EXPRESSION = 2  # units of reading one expression, beside what it computes
CALL = 2  # units of a call beside those of its parts
NODE = 6  # units of building a node beside those

# What Python parses as one sign: a text up to its closing quotes or, where they are missing, as far as Python looks for
# them; a comment; a name or number; any other character. A line that ends inside brackets costs nothing. Caught are the
# signs that cost more.
_TEXT = (
    r'(?:"""[^"\\]*+(?:(?:\\.?|"(?!""))[^"\\]*+)*+(?:"""|\Z)'
    r"|'''[^'\\]*+(?:(?:\\.?|'(?!''))[^'\\]*+)*+(?:'''|\Z)"
    r'|"(?:[^"\\\n]++|\\.?)*+"?'
    r"|'(?:[^'\\\n]++|\\.?)*+'?)"
)
_SIGN = re.compile(
    rf" *+(?:[)=.]|[(,](?: *+\n)?+|([\n;]|for\b|lambda\b|(?:[fF][rR]?|[rR][fF]){_TEXT})"
    rf"|[bB]?[rRuU]?[bB]?{_TEXT}|#[^\n]*+|[0-9]++|\w++|[^\w ]|\Z)",
    re.DOTALL,
)
_PIECE = re.compile(r"\w++|[^\w ]")
_CHAIN = re.compile(r"\.(?:[\s\\]*+\w++[\s\\]*+\.){24,}+")  # joining such a name takes quadratic time
_EXTRA = {"\n": 1, ";": 1, "for": 4, "lambda": 3}  # units beside the one of every sign
_PLACE = 7  # units beside that one of every place of an f-string, which is parsed on its own


def allowed(size: int) -> int:
    """The units that a script of `size` bytes may take."""
    return UNITS_PER_10_KB * max(size, 10_000) // 10_000


def parsing(script: str) -> int:
    """The units that Python's parser takes for `script`."""
    chains = sum(chain.count(".") ** 2 // 100 for chain in _CHAIN.findall(script))
    caught = _SIGN.findall(script)
    units = len(caught) + chains
    for sign in filter(None, caught):
        extra = _EXTRA.get(sign)
        units += len(_PIECE.findall(sign)) + _PLACE * sign.count("{") if extra is None else extra
    return units


def going_through(value: Any) -> int:
    """The units that it takes to go through `value` once."""
    if isinstance(value, str):
        return len(value) // 128
    return len(value) // 16 if isinstance(value, list | tuple | dict) else 0


class Meter:
    """Counts what is being read, and refuses what exceeds a bound."""

    def __init__(self, units: int) -> None:
        """`units`: what is left of those allowed."""
        self._units = units
        self._depth = self._chain = self._steps = 0

    def work(self, units: int, at: ast.AST) -> None:
        """Some work is done."""
        self._units -= units
        if self._units < 0:
            message = (
                "the script takes too much work to read; write it more simply, many nodes as one list for add_nodes"
            )
            raise Refused(Refusal.TOO_LARGE, message, at)

    def step(self, at: ast.AST) -> None:
        """A loop takes one more step."""
        self._steps += 1
        if self._steps > MAX_UNROLLED:
            raise Refused(Refusal.TOO_LARGE, f"all loops together may take at most {MAX_UNROLLED} steps", at)

    def enter(self, at: ast.AST) -> None:
        """An expression inside the one that is being read; `leave` ends it. A refusal ends all of them."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"expressions may be nested at most {MAX_DEPTH} deep", at)

    def leave(self) -> None:
        self._depth -= 1

    def link(self, at: ast.AST) -> None:
        """What an attribute, subscript or call is taken from: one more link of a chain, not a nesting."""
        self._chain += 1
        if self._chain > MAX_CHAIN:
            raise Refused(Refusal.TOO_LARGE, f"a chain may have at most {MAX_CHAIN} links", at)
        self._depth -= 1

    def unlink(self) -> None:
        self._depth += 1
        self._chain -= 1
