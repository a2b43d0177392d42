from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

FILE = Path(__file__).parents[2] / "third_party" / "pycosat" / "pycosat.py"
SPEC = importlib.util.spec_from_file_location("pycosat_in_python", FILE)
assert SPEC is not None
assert SPEC.loader is not None
pycosat = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pycosat)

literals = st.integers(1, 5).flatmap(lambda variable: st.sampled_from([variable, -variable]))


@given(st.lists(st.lists(literals, max_size=4), max_size=10))
@settings(max_examples=60, deadline=None)
def test_finds_each_satisfying_assignment_once(clauses: list[list[int]]) -> None:
    n = max((abs(literal) for clause in clauses for literal in clause), default=0)
    expected = {
        signs
        for signs in itertools.product(*((v, -v) for v in range(1, n + 1)))
        if all(set(clause) & set(signs) for clause in clauses)
    }
    found = [tuple(model) for model in pycosat.itersolve(clauses)]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert (pycosat.solve(clauses) == "UNSAT") == (not expected)
