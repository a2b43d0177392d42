"""A total evaluator over construction expressions: literals, text, names bound before, and calls of the table."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from metaagentx.workflow import methods, operators
from metaagentx.workflow.drafts import Function, Opaque
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.lookup import attribute, unbound
from metaagentx.workflow.meter import CALL, EXPRESSION, Meter, going_through
from metaagentx.workflow.methods import MAX_DEPTH
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.surface import asks

MAX_LOOP = 64  # steps of one loop


class Values:
    """The names of a script and the values of its expressions. `call` and `construct` are the script's."""

    def __init__(self, known: Mapping[str, Any], call: Callable[[Any, ast.Call], Any], meter: Meter) -> None:
        self.names: dict[str, Any] = dict(known)
        self._call = call
        self.meter = meter

    def read(self, node: ast.expr, wants_node: bool = False) -> Any:
        """The value of `node`. `wants_node`: an unbound name is an unbound agent."""
        meter = self.meter
        meter.work(EXPRESSION, node)
        meter.enter(node)
        value = self._read(node, wants_node)
        meter.leave()
        return value

    def bind(self, target: ast.expr, value: Any) -> None:
        """Assigns `value` to `target`; the question stays the question."""
        match target:
            case ast.Name(id=name):
                if name != "question":
                    self.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                if any(isinstance(part, ast.Starred) for part in targets):
                    raise Refused(Refusal.UNSUPPORTED, "* in an assignment is not read; name every value", target)
                if not isinstance(value, list | tuple) or len(value) != len(targets):
                    raise Refused(Refusal.BAD_VALUE, f"a list of {len(targets)} values must stand here", target)
                for part, one in zip(targets, value, strict=True):
                    self.bind(part, one)
            case ast.Subscript():
                owner, key = self.read(target.value), self.read(target.slice)
                if isinstance(owner, dict) and methods.hashable(key):
                    owner[key] = value
                    methods.bounded(owner, target)
                elif isinstance(owner, list) and isinstance(key, int) and -len(owner) <= key < len(owner):
                    owner[key] = value
                elif not isinstance(owner, Opaque):
                    raise Refused(
                        Refusal.BAD_VALUE, "only keys of dictionaries and items of lists can be assigned to", target
                    )
            case ast.Attribute():
                raise Refused(
                    Refusal.FORBIDDEN, "attributes cannot be assigned; pass keywords to the constructor", target
                )
            case _:
                raise Refused(Refusal.UNSUPPORTED, "this assignment is not read; assign to a name", target)

    def unroll(self, iterable: ast.expr) -> Iterator[Any]:
        """The values that a `for` goes through, counted."""
        values = self.read(iterable)
        if isinstance(values, range | list | tuple | dict | str) and len(values) > MAX_LOOP:
            raise Refused(Refusal.TOO_LARGE, f"a loop may take at most {MAX_LOOP} steps", iterable)
        for value in methods.items(values, iterable):
            self.meter.step(iterable)
            yield value

    def holds(self, test: ast.expr) -> bool:
        """The truth of a constant test."""
        value = self.read(test)
        if isinstance(value, str | int | float | list | tuple | dict | None):
            return bool(value)
        raise Refused(Refusal.UNSUPPORTED, "this test is not a constant; use ConditionalWorkflow or RouterNode", test)

    def _read(self, node: ast.expr, wants_node: bool) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return methods.bounded(value, node)
            case ast.Name():
                return self.names[node.id] if node.id in self.names else unbound(node, wants_node)
            case ast.JoinedStr():
                return self._joined(node)
            case ast.List() | ast.Tuple():
                return self._sequence(node, wants_node)
            case ast.Dict():
                return self._dictionary(node, wants_node)
            case ast.BinOp():
                return self._binary(node, wants_node)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.holds(operand)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                value = self.read(operand)
                if not isinstance(value, int | float):
                    raise Refused(Refusal.BAD_VALUE, "only numbers have a sign", node)
                return -value if isinstance(sign, ast.USub) else value
            case ast.IfExp():
                return self.read(node.body if self.holds(node.test) else node.orelse, wants_node)
            case ast.BoolOp(op=joint, values=parts):
                return self._either(isinstance(joint, ast.Or), parts)
            case ast.Compare():
                return self._compare(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Attribute():
                return attribute(self._owner(node.value, node), node)
            case ast.Call():
                self.meter.work(CALL, node)
                return self._call(self._owner(node.func, node), node)
            case ast.Lambda():
                return Function(node)
            case (
                ast.ListComp(elt=element, generators=generators) | ast.GeneratorExp(elt=element, generators=generators)
            ):
                found: list[Any] = []
                self.comprehend(generators, lambda: found.append(self.read(element, wants_node)), node)
                return methods.bounded(found, node)
            case ast.DictComp(key=key, value=item, generators=generators):
                table: dict[Any, Any] = {}
                self.comprehend(generators, lambda: self._enter(table, key, item, wants_node), node)
                return table
            case ast.Await() | ast.Yield() | ast.YieldFrom():
                raise Refused(
                    Refusal.FORBIDDEN, "await and yield would need execution; write workflow.run(question)", node
                )
        raise Refused(
            Refusal.UNSUPPORTED,
            f"{_expression(node)} is not part of the language; write out strings, numbers, lists and dictionaries",
            node,
        )

    def _joined(self, node: ast.JoinedStr) -> str | Opaque:
        """An f-string; refusals inside it stand at its beginning, where every Python version agrees."""
        pieces: list[str] = []
        length, opaque = 0, None
        for part in node.values:
            try:
                if isinstance(part, ast.FormattedValue):
                    if part.conversion not in (-1, ord("s")):
                        raise Refused(
                            Refusal.UNSUPPORTED, "conversions in f-strings are not read; leave !r or !a out", node
                        )
                    spec = self.read(part.format_spec) if part.format_spec is not None else ""
                    value = self.read(part.value)
                    opaque = value if isinstance(value, Opaque) else opaque
                    pieces.append("" if isinstance(value, Opaque) else methods.formatted(value, spec, node))
                else:
                    pieces.append(self.read(part))
            except Refused as refused:
                raise Refused(refused.refusal, refused.message, node) from None
            length += len(pieces[-1])
            methods.fits(length, methods.MAX_TEXT, "characters", node)
        self.meter.work(length // 128, node)
        return "".join(pieces) if opaque is None else opaque

    def _sequence(self, node: ast.List | ast.Tuple, wants_node: bool) -> list[Any] | tuple[Any, ...]:
        found: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                found.extend(methods.items(self.read(element.value), element))
            else:
                found.append(self.read(element, wants_node))
            methods.bounded(found, node)
        return found if isinstance(node, ast.List) else tuple(found)

    def _dictionary(self, node: ast.Dict, wants_node: bool) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                merged = self.read(value)
                if not isinstance(merged, dict):
                    raise Refused(Refusal.BAD_VALUE, "** takes a dictionary", value)
                found.update(merged)
            else:
                self._enter(found, key, value, wants_node)
        return methods.bounded(found, node)  # type: ignore[no-any-return]

    def _enter(self, table: dict[Any, Any], key: ast.expr, value: ast.expr, wants_node: bool) -> None:
        entry = self.read(key)
        if not methods.hashable(entry):
            raise Refused(Refusal.BAD_VALUE, "keys must be strings or numbers", key)
        table[entry] = self.read(value, wants_node)

    def _binary(self, node: ast.BinOp, wants_node: bool) -> Any:
        """A chain of operators, from the left, however long."""
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            chain.append(first)
            first = first.left
        value = self.read(first, wants_node)
        for link in reversed(chain):
            value = self.combine(link.op, value, self.read(link.right, wants_node), link)
        return value

    def combine(self, op: ast.operator, left: Any, right: Any, at: ast.AST) -> Any:
        """`left op right`, long texts and lists counting as more work."""
        value = operators.combine(op, left, right, at)
        self.meter.work(going_through(value), at)
        return value

    def _either(self, any_of: bool, parts: list[ast.expr]) -> Any:
        """`or` / `and`; nodes are true, and what is opaque is passed over (`os.getenv(...) or "x"`)."""
        value: Any = None
        for part in parts:
            value = self.read(part)
            if isinstance(value, Opaque):
                continue
            holds = bool(value) if isinstance(value, str | int | float | list | tuple | dict | None) else True
            if holds == any_of:
                return value
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.read(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.read(comparator)
            self.meter.work(going_through(left) + going_through(right), node)
            if not operators.compared(op, left, right, node):
                return False
            left = right
        return True

    def _owner(self, node: ast.expr, of: ast.expr) -> Any:
        """What the call, attribute or subscript `of` is taken from."""
        self.meter.link(of)
        value = self.read(node)
        self.meter.unlink()
        return value

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self._owner(node.value, node)
        if isinstance(owner, Opaque):
            return owner
        if isinstance(node.slice, ast.Slice):
            ends = [None if end is None else self.read(end) for end in (node.slice.lower, node.slice.upper)]
            plain = node.slice.step is None and all(isinstance(end, int | None) for end in ends)
            if plain and not asks(owner) and isinstance(owner, str | list | tuple):
                self.meter.work(going_through(owner), node)
                return owner[slice(*ends)]
            raise Refused(
                Refusal.UNSUPPORTED, "only known text and lists can be cut, at whole numbers, without a step", node
            )
        key = self.read(node.slice)
        if asks(owner):
            raise Refused(Refusal.UNSUPPORTED, "only known text can be cut; the question is not known yet", node)
        if isinstance(owner, str | list | tuple) and isinstance(key, int) and -len(owner) <= key < len(owner):
            return owner[key]
        if isinstance(owner, dict) and methods.hashable(key) and key in owner:
            return owner[key]
        raise Refused(
            Refusal.BAD_VALUE, "there is nothing under this subscript; it must be a key or position that there is", node
        )

    def comprehend(self, generators: list[ast.comprehension], enter: Callable[[], None], at: ast.AST) -> None:
        """Runs `enter` for every combination that the comprehension's `for`s and constant `if`s leave."""
        self.meter.work(going_through(self.names), at)
        before = dict(self.names)

        def go(rest: list[ast.comprehension]) -> None:
            if not rest:
                enter()
                return
            if rest[0].is_async:
                raise Refused(Refusal.FORBIDDEN, "async would need execution; leave it out", at)
            for value in self.unroll(rest[0].iter):
                self.bind(rest[0].target, value)
                if all(self.holds(test) for test in rest[0].ifs):
                    go(rest[1:])

        if len(generators) > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"loops may be nested at most {MAX_DEPTH} deep", at)
        go(generators)
        self.names = before


def _expression(node: ast.expr) -> str:
    """What an expression outside the language is called."""
    known = {"NamedExpr": "':='", "Set": "a set", "SetComp": "a set", "Starred": "'*'", "UnaryOp": "'~'"}
    return known.get(type(node).__name__, "this expression")
