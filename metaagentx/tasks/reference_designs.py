"""Hand-written designs for every kind of question, in the short form: what a designer may learn to choose between.

They are read off the question's text alone. The best of them per kind, run by a frozen executor, is the measured
ceiling of designing; the best single one of them is what a designer has to beat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

FIXED_DESIGN = "a=solve()x5"  # runs on any question
APPROPRIATE: Mapping[str, str] = MappingProxyType(  # reasoning-gym's data set -> the design that suits it
    {"chain_sum": "chain", "gcd": "tool", "products": "tool", "spell_backward": "vote"}
)

_SUM = re.compile(r"problem: (\d+(?: [+-] \d+)+) =$")


def terms_of(question: str) -> tuple[int, tuple[tuple[str, int], ...]] | None:
    """A sum's first term and its (operator, term) pairs, or None if the question is no sum."""
    found = _SUM.search(question)
    if found is None:
        return None
    first, *rest = found.group(1).split(" ")
    return int(first), tuple((rest[i], int(rest[i + 1])) for i in range(0, len(rest), 2))


def chain(first: int, steps: tuple[tuple[str, int], ...], votes: int = 1) -> str:
    """One agent (or a vote of several) per operation: "a=solve(4 - 1);b=solve({a} - 7)"."""
    suffix = f"x{votes}" if votes > 1 else ""
    lines, before = [], str(first)
    for name, (operator, term) in zip("abcdefghijklmnopqrstuvwxyz", steps, strict=False):
        lines.append(f"{name}=solve({before} {operator} {term}){suffix}")
        before = f"{{{name}}}"
    return ";".join(lines)


def reference_designs(question: str) -> dict[str, str]:
    """Name -> design, for every hand-written design that this question allows."""
    designs = {
        "single": "a=solve()",
        "vote3": "a=solve()x3",
        "vote": FIXED_DESIGN,
        "tool": "a=tool()",
        "tool_vote": "a=tool()x3",
    }
    terms = terms_of(question)
    if terms is not None:
        designs["chain"] = chain(*terms)
        designs["chain_vote"] = chain(*terms, votes=3)
    return designs
