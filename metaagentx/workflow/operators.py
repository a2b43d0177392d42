"""Arithmetic and comparisons of plain values, each bounded before it computes."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from metaagentx.workflow import methods
from metaagentx.workflow.drafts import Opaque
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.surface import asks

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def combine(op: ast.operator, left: Any, right: Any, at: ast.AST) -> Any:
    """`left op right` of numbers; `+` and `*` also of texts and lists."""
    compute = _ARITHMETIC.get(type(op))
    if isinstance(right, str | list | tuple) and isinstance(left, int) and isinstance(op, ast.Mult):
        left, right = right, left
    match left, right:
        case (Opaque() as opaque, _) | (_, Opaque() as opaque):
            return opaque
        case ((int() | float()), (int() | float())):
            if compute is None:
                raise Refused(Refusal.UNSUPPORTED, "only + - * / // % of numbers are read", at)
            if right == 0 and isinstance(op, ast.Div | ast.FloorDiv | ast.Mod):
                raise Refused(Refusal.BAD_VALUE, "this divides by zero; the divisor must be another number", at)
            return methods.bounded(compute(left, right), at)
        case (str(), str()) | (list(), list()) | (tuple(), tuple()) if isinstance(op, ast.Add):
            return methods.bounded(left + right, at)
        case ((str() | list() | tuple()), int()) if isinstance(op, ast.Mult):
            most = methods.MAX_TEXT if isinstance(left, str) else methods.MAX_ITEMS
            methods.fits(len(left) * max(right, 0), most, "characters or items", at)
            return left * right
    raise Refused(
        Refusal.UNSUPPORTED, "these two values cannot be combined; + joins texts or lists, numbers are added", at
    )


def compared(op: ast.cmpop, left: Any, right: Any, at: ast.AST) -> bool:
    scalar = str | int | float | None
    if asks(left) or asks(right):
        raise Refused(
            Refusal.UNSUPPORTED,
            "the question is not known when a design is read; choose by a router or a condition",
            at,
        )
    if isinstance(op, ast.In | ast.NotIn) and isinstance(left, scalar):
        found: bool | None = None
        if isinstance(left, str) and isinstance(right, str):
            found = left in right
        elif isinstance(right, list | tuple | dict):
            found = any(part == left for part in right if isinstance(part, scalar))
        if found is not None:
            return found == isinstance(op, ast.In)
    elif isinstance(left, scalar) and isinstance(right, scalar):
        ordered = isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        alike = isinstance(left, str) == isinstance(right, str) and None not in (left, right)
        if not ordered or alike:
            return _COMPARISONS[type(op)](left, right)
    raise Refused(Refusal.UNSUPPORTED, "this test is not a constant; choose by a router or a condition", at)
