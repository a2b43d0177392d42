"""Lambdas and small functions that reduce to conditions and routes: read as data, never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from metaagentx.workflow.conditions import ALWAYS, NEVER, all_of, any_of, negate
from metaagentx.workflow.drafts import Function
from metaagentx.workflow.ir import AnswerAgrees, Condition, Contains, Not, Refusal, VerdictAccepts
from metaagentx.workflow.meter import EXPRESSION
from metaagentx.workflow.methods import MAX_DEPTH
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.values import Values

MAX_PARTS = 1000  # of the conditions of one function
_LATEST = {"get_latest_message", "latest_message", "last_message", "latest", "content", "text"}
_RIGHT = 'write a lambda like `ctx: "text" in ctx.get_latest_message().content`, answer_agrees or verdict_accepts'


@dataclass(frozen=True, slots=True)
class Case:
    """One way through a function: what it returns, and when (None: otherwise)."""

    condition: Condition | None
    returns: ast.expr


def read_condition(value: Any, at: ast.AST, values: Values, depth: int = 0) -> Condition:
    """The condition that `value` (a function, `answer_agrees`, `verdict_accepts` or a constant) stands for."""
    match value:
        case AnswerAgrees() | VerdictAccepts():
            return value
        case bool():
            return ALWAYS if value else NEVER
        case Function(node):
            reading = _Reading(_parameter(node), values, depth)
            result: Condition = NEVER
            for case in reversed(reading.cases(node)):
                holds = reading.condition(case.returns)
                if case.condition is None:
                    result = holds
                elif holds == ALWAYS:
                    result = case.condition if result == NEVER else any_of(case.condition, result)
                elif holds == NEVER:
                    otherwise = negate(case.condition)
                    result = otherwise if result == ALWAYS else all_of(otherwise, result)
                else:
                    result = any_of(all_of(case.condition, holds), all_of(negate(case.condition), result))
            return result
    raise Refused(Refusal.BAD_VALUE, f"a condition is wanted here; {_RIGHT}", at)


def read_cases(value: Any, at: ast.AST, values: Values) -> list[Case]:
    """The cases of a function that names a route: `... if condition else ...` or `if condition: return "name"`."""
    if not isinstance(value, Function):
        raise Refused(Refusal.BAD_VALUE, "a lambda or def that returns the name of a route is wanted here", at)
    reading = _Reading(_parameter(value.node), values)
    cases = reading.cases(value.node)
    for case in cases:
        reading.known(case.returns, "the name that is returned must be known; to ask a model, write routing_agent=...")
    return cases


def _parameter(node: ast.FunctionDef | ast.Lambda) -> str:
    arguments = node.args
    if len(arguments.args) + len(arguments.posonlyargs) != 1 or arguments.vararg or arguments.kwonlyargs:
        raise Refused(Refusal.UNSUPPORTED, "a condition or route takes exactly one parameter, the context", node)
    return (arguments.posonlyargs + arguments.args)[0].arg


@dataclass(slots=True)
class _Reading:
    """One function being read. `contents` maps its locals that hold the latest message to "case is ignored"."""

    parameter: str
    values: Values
    depth: int = 0  # how many conditions this one lies within
    contents: dict[str, bool] = field(default_factory=dict)
    size: int = 0  # conditions read so far

    def cases(self, node: ast.FunctionDef | ast.Lambda) -> list[Case]:
        if isinstance(node, ast.Lambda):
            return list(self._chosen(node.body, None, 1))
        return list(self._returned(node.body, None, 1))

    def _chosen(self, node: ast.expr, given: Condition | None, depth: int) -> Iterator[Case]:
        self._bound(depth, node)
        while isinstance(node, ast.IfExp):
            test = self.condition(node.test)
            yield from self._chosen(node.body, test if given is None else all_of(given, test), depth + 1)
            node = node.orelse
        yield Case(given, node)

    def _returned(self, body: list[ast.stmt], given: Condition | None, depth: int) -> Iterator[Case]:
        if body:
            self._bound(depth, body[0])
        remaining = list(reversed(body))
        while remaining:
            statement = remaining.pop()
            match statement:
                case ast.Return(value=ast.expr() as value):
                    yield from self._chosen(value, given, depth)
                    return
                case ast.If():
                    test = self.condition(statement.test)
                    if not _returns(statement.body):
                        raise Refused(
                            Refusal.UNSUPPORTED, "every branch of a condition or route must return", statement
                        )
                    yield from self._returned(statement.body, test if given is None else all_of(given, test), depth + 1)
                    remaining.extend(reversed(statement.orelse))
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    ignore_case = self._content(value)
                    if ignore_case is None:
                        raise Refused(Refusal.UNSUPPORTED, "only the latest message's content can be named here", value)
                    self.contents[name] = ignore_case
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case _:
                    raise Refused(Refusal.UNSUPPORTED, f"this cannot be read as a condition; {_RIGHT}", statement)

    def condition(self, node: ast.expr, depth: int = 1) -> Condition:
        self._bound(depth, node)
        self.values.meter.work(EXPRESSION, node)
        self.size += 1
        if self.size > MAX_PARTS:
            raise Refused(Refusal.TOO_LARGE, f"a condition may have at most {MAX_PARTS} parts", node)
        match node:
            case ast.Constant(value=bool() as value):
                return ALWAYS if value else NEVER
            case ast.BoolOp(op=operator, values=values):
                inner = [self.condition(value, depth + 1) for value in values]
                return all_of(*inner) if isinstance(operator, ast.And) else any_of(*inner)
            case ast.Call(func=ast.Name(id="any" | "all" as joint), args=[several], keywords=[]):
                inner = self._several(several, depth + 1)
                return all_of(*inner) if joint == "all" else any_of(*inner)
            case ast.Compare(
                left=left, ops=[ast.Is() | ast.IsNot() as operator], comparators=[ast.Constant(value=None)]
            ):
                if self._content(left) is not None:  # there is always a latest message: at first the question
                    return NEVER if isinstance(operator, ast.Is) else ALWAYS
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return negate(self.condition(operand, depth + 1))
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as operator], comparators=[where]):
                ignore_case = self._content(where)
                if ignore_case is None:
                    raise Refused(
                        Refusal.UNSUPPORTED, f"only the latest message's content can be searched; {_RIGHT}", where
                    )
                found = Contains(self._text(left), ignore_case)
                return found if isinstance(operator, ast.In) else Not(found)
            case ast.Name() | ast.Call(func=ast.Name()):
                named = self._named(node, depth)
                if named is not None:
                    return named
        raise Refused(Refusal.UNSUPPORTED, f"this cannot be read as a condition; {_RIGHT}", node)

    def _named(self, node: ast.Name | ast.Call, depth: int) -> Condition | None:
        """`answer_agrees`, `verdict_accepts`, called with the context or not; an own function called with it."""
        name = node.func if isinstance(node, ast.Call) else node
        if not isinstance(name, ast.Name) or name.id == self.parameter or name.id in self.contents:
            return None
        value = self.values.read(name)
        match node, value:
            case _, AnswerAgrees() | VerdictAccepts():
                return value  # type: ignore[no-any-return]
            case ast.Call(args=[ast.Name(id=given)], keywords=[]), Function() if given == self.parameter:
                return read_condition(value, node, self.values, self.depth + depth)
        return None

    def _several(self, node: ast.expr, depth: int) -> list[Condition]:
        """The conditions of `any(...)` or `all(...)`: a list, or a comprehension over known values."""
        found: list[Condition] = []
        match node:
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                found.extend(self.condition(element, depth) for element in elements)
            case (
                ast.GeneratorExp(elt=element, generators=generators) | ast.ListComp(elt=element, generators=generators)
            ):
                for generator in generators:
                    self.known(generator.iter, "only known values can be gone through; name the texts to look for")
                self.values.comprehend(generators, lambda: found.append(self.condition(element, depth)), node)
            case _:
                raise Refused(Refusal.UNSUPPORTED, f"this cannot be read as conditions; {_RIGHT}", node)
        return found

    def known(self, node: ast.expr, right: str) -> None:
        """Refuses what depends on the context."""
        for inner in (node,) if isinstance(node, ast.Constant | ast.Name) else ast.walk(node):
            self.values.meter.work(EXPRESSION, node)
            if isinstance(inner, ast.Name) and (inner.id == self.parameter or inner.id in self.contents):
                raise Refused(Refusal.UNSUPPORTED, right, node)

    def _text(self, node: ast.expr) -> str:
        self.known(node, f"the text to look for must be known; {_RIGHT}")
        value = self.values.read(node)
        if not isinstance(value, str):
            raise Refused(Refusal.BAD_VALUE, "the text to look for must be a string", node)
        return value

    def _content(self, node: ast.expr) -> bool | None:
        """Whether case is ignored if `node` is the latest message's content; None if it is something else."""
        ignore_case = False
        while True:
            match node:
                case ast.Call(func=ast.Name(id="str"), args=[inner], keywords=[]):
                    node = inner
                case ast.Call(func=ast.Attribute(value=inner, attr="lower" | "upper" | "casefold"), args=[]):
                    node, ignore_case = inner, True
                case ast.Call(func=ast.Attribute(value=inner, attr="strip"), args=[]):
                    node = inner
                case ast.Call(func=ast.Attribute(attr="get_latest_message") as inner, args=[], keywords=[]):
                    node = inner
                case ast.Subscript(value=ast.Attribute(value=inner, attr="messages"), slice=last) if _is_last(last):
                    node = inner
                case ast.BoolOp(op=ast.Or(), values=[inner, ast.Constant(value="")]):
                    node = inner
                case ast.Attribute(value=inner, attr=name) if name in _LATEST:
                    node = inner
                case ast.Name(id=name) if name in self.contents:
                    return ignore_case or self.contents[name]
                case ast.Name(id=name) if name == self.parameter:
                    return ignore_case
                case _:
                    return None

    def _bound(self, depth: int, node: ast.AST) -> None:
        if self.depth + depth > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"conditions may be nested at most {MAX_DEPTH} deep", node)


def _is_last(index: ast.expr) -> bool:
    return (
        isinstance(index, ast.UnaryOp)
        and isinstance(index.op, ast.USub)
        and isinstance(index.operand, ast.Constant)
        and index.operand.value == 1
    )


def _returns(body: list[ast.stmt]) -> bool:
    """Whether `body` cannot fall through."""
    last = body[-1]
    while isinstance(last, ast.If) and last.orelse:
        if not isinstance(last.body[-1], ast.Return):
            return False
        last = last.orelse[-1]
    return isinstance(last, ast.Return)
