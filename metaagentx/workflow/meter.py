"""How much of a script may be read: bounds that keep reading linear in its length, whatever it says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager

from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.methods import MAX_DEPTH
from metaagentx.workflow.refused import Refused

MAX_CHAIN = 64  # links of `a.b().c()`
MAX_WORK = 200_000  # expressions read, long texts counting more
MAX_UNROLLED = 256  # steps of all loops together


class Meter:
    """Counts what is being read, and refuses what exceeds a bound."""

    def __init__(self) -> None:
        self._depth = self._chain = self._work = self._steps = 0

    def work(self, amount: int, at: ast.AST) -> None:
        """Some work was done."""
        self._work += amount
        if self._work > MAX_WORK:
            raise Refused(Refusal.TOO_LARGE, "the script takes too much work to read; write it more simply", at)

    def step(self, at: ast.AST) -> None:
        """A loop takes one more step."""
        self._steps += 1
        if self._steps > MAX_UNROLLED:
            raise Refused(Refusal.TOO_LARGE, f"all loops together may take at most {MAX_UNROLLED} steps", at)

    @contextmanager
    def level(self, at: ast.AST) -> Iterator[None]:
        """An expression inside the one that is being read."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"expressions are nested more than {MAX_DEPTH} deep", at)
        yield
        self._depth -= 1

    @contextmanager
    def link(self, at: ast.AST) -> Iterator[None]:
        """What an attribute, subscript or call is taken from: one more link of a chain, not a nesting."""
        self._chain += 1
        if self._chain > MAX_CHAIN:
            raise Refused(Refusal.TOO_LARGE, f"a chain may have at most {MAX_CHAIN} links", at)
        self._depth -= 1
        yield
        self._depth += 1
        self._chain -= 1
