"""pycosat's two functions in Python, for machines without a C compiler.

reasoning-gym asks for pycosat 0.6.6, which has no wheels, for one of its hundred tasks (zebra puzzles). The Makefile
installs this module under that name, so that an installation needs nothing but Python. It is a plain DPLL search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def itersolve(clauses: Iterable[Iterable[int]]) -> Iterator[list[int]]:
    """Every assignment that satisfies all clauses (lists of non-zero literals), each as one literal per variable."""
    sets = [frozenset(clause) for clause in clauses]
    variables = range(1, max((abs(literal) for clause in sets for literal in clause), default=0) + 1)
    stack: list[frozenset[int]] = [frozenset()]
    while stack:
        model = _propagate(sets, set(stack.pop()))
        if model is None:
            continue
        free = next((v for v in variables if v not in model and -v not in model), None)
        if free is None:
            yield [v if v in model else -v for v in variables]
        else:
            stack += [frozenset(model | {free}), frozenset(model | {-free})]


def solve(clauses: Iterable[Iterable[int]]) -> list[int] | str:
    """One satisfying assignment, or "UNSAT"."""
    return next(itersolve(clauses), "UNSAT")


def _propagate(clauses: list[frozenset[int]], model: set[int]) -> set[int] | None:
    """`model` with all that follows from clauses with one open literal; None if a clause cannot be satisfied."""
    changed = True
    while changed:
        changed = False
        for clause in clauses:
            if model.isdisjoint(clause):
                rest = [literal for literal in clause if -literal not in model]
                if not rest:
                    return None
                if len(rest) == 1:
                    model.add(rest[0])
                    changed = True
    return model
