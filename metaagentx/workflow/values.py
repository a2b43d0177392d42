"""A total evaluator over construction expressions: literals, text, names bound before, and calls of the table."""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from metaagentx.workflow import methods
from metaagentx.workflow.drafts import Draft, Function, Method, Module, Named, Opaque, Registry
from metaagentx.workflow.ir import AnswerAgrees, Condition, Refusal, VerdictAccepts
from metaagentx.workflow.refused import Refused, refuse

MAX_DEPTH = 16  # of expressions, and of blocks
MAX_CHAIN = 64  # links of `a.b().c()`
MAX_WORK = 200_000  # expressions read, long texts counting more
MAX_LOOP, MAX_UNROLLED = 64, 256

QUESTION = "{question}"  # stands for the real question wherever a script uses it
ENVIRONMENTS = {"MathEnvironment", "SearchEnvironment", "CodeEnvironment"}
CONDITIONS: Mapping[str, Condition] = {"answer_agrees": AnswerAgrees(), "verdict_accepts": VerdictAccepts()}
MODULES: Mapping[str, frozenset[str]] = {
    "os": frozenset({"getenv", "environ", "path"}),
    "sys": frozenset({"exit", "path", "argv", "stdout", "stderr"}),
    "logging": frozenset({"getLogger", "basicConfig", "info", "debug", "warning", "error", "INFO", "DEBUG", "WARNING"}),
    "textwrap": frozenset({"dedent"}),
    **dict.fromkeys(("re", "json", "typing", "math", "time", "traceback", "collections", "asyncio"), frozenset[str]()),
}
_IGNORED = {"print", "exit", "quit"}
_FORBIDDEN = {
    *("exec", "eval", "compile", "open", "input", "breakpoint", "__import__", "getattr", "setattr", "delattr"),
    *("globals", "locals", "vars", "dir", "type", "object", "super", "memoryview", "classmethod", "staticmethod"),
}
_REGISTRY_METHODS = {"register"}
_NODE_METHODS: Mapping[str, set[str]] = {
    "Workflow": {"add_node", "add_nodes", "run"},
    "ConditionalWorkflow": {"add_node", "add_nodes", "run"},
    "LoopWorkflow": {"add_node", "add_nodes", "run", "set_loop_condition"},
    "AgentGraph": {
        *("add_node", "add_nodes", "run", "add_edge", "add_conditional_edges"),
        *("set_entry_point", "set_finish_point"),
    },
}
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


class Values:
    """The names of a script and the values of its expressions. `call` and `construct` are the script's."""

    def __init__(self, known: Mapping[str, Any], call: Callable[[Any, ast.Call], Any]) -> None:
        self.names: dict[str, Any] = dict(known)
        self._call = call
        self._depth = self._chain = self._work = self._unrolled = 0

    def read(self, node: ast.expr, wants_node: bool = False) -> Any:
        """The value of `node`. `wants_node`: an unbound name is an unbound agent."""
        self.work(1, node)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            refuse(Refusal.TOO_LARGE, f"expressions are nested more than {MAX_DEPTH} deep", node)
        try:
            return self._read(node, wants_node)
        finally:
            self._depth -= 1

    def work(self, amount: int, at: ast.AST) -> None:
        """Counts work towards the bound that keeps reading linear in the script's length."""
        self._work += amount
        if self._work > MAX_WORK:
            refuse(Refusal.TOO_LARGE, "the script takes too much work to read; write it more simply", at)

    def bind(self, target: ast.expr, value: Any) -> None:
        """Assigns `value` to `target`; the question stays the question."""
        match target:
            case ast.Name(id=name):
                if name != "question":
                    self.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                if not isinstance(value, list | tuple) or len(value) != len(targets):
                    refuse(Refusal.BAD_VALUE, f"{len(targets)} values are wanted here", target)
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
                    refuse(Refusal.BAD_VALUE, "this place cannot be assigned to", target)
            case ast.Attribute():
                refuse(Refusal.FORBIDDEN, "attributes cannot be assigned; pass keywords to the constructor", target)
            case _:
                refuse(Refusal.UNSUPPORTED, "this assignment is not read", target)

    def unroll(self, iterable: ast.expr) -> Iterator[Any]:
        """The values that a `for` goes through, counted."""
        values = self.read(iterable)
        if isinstance(values, range | list | tuple | dict | str) and len(values) > MAX_LOOP:
            refuse(Refusal.TOO_LARGE, f"a loop may take at most {MAX_LOOP} steps", iterable)
        for value in methods.items(values, iterable):
            self._unrolled += 1
            if self._unrolled > MAX_UNROLLED:
                refuse(Refusal.TOO_LARGE, f"all loops together may take at most {MAX_UNROLLED} steps", iterable)
            yield value

    def holds(self, test: ast.expr) -> bool:
        """The truth of a constant test."""
        value = self.read(test)
        if isinstance(value, str | int | float | list | tuple | dict | None):
            return bool(value)
        refuse(Refusal.UNSUPPORTED, "this test is not a constant; use ConditionalWorkflow or RouterNode", test)

    def _read(self, node: ast.expr, wants_node: bool) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return methods.bounded(value, node)
            case ast.Name():
                return self._name(node, wants_node)
            case ast.JoinedStr():
                return self._joined(node)
            case ast.List() | ast.Tuple():
                return self._sequence(node, wants_node)
            case ast.Dict():
                return self._dictionary(node, wants_node)
            case ast.BinOp():
                return self._binary(node)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.holds(operand)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                value = self.read(operand)
                if not isinstance(value, int | float):
                    refuse(Refusal.BAD_VALUE, "only numbers have a sign", node)
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
                return self._attribute(node)
            case ast.Call():
                with self._link(node):
                    function = self._link_value(node.func)
                return self._call(function, node)
            case ast.Lambda():
                return Function(node)
            case ast.ListComp(elt=element, generators=generators) | ast.GeneratorExp(
                elt=element, generators=generators
            ):
                found: list[Any] = []
                self._comprehend(generators, lambda: found.append(self.read(element, wants_node)), node)
                return methods.bounded(found, node)
            case ast.DictComp(key=key, value=item, generators=generators):
                table: dict[Any, Any] = {}
                self._comprehend(generators, lambda: self._enter(table, key, self.read(item, wants_node)), node)
                return table
            case ast.Await() | ast.Yield() | ast.YieldFrom():
                refuse(Refusal.FORBIDDEN, "this would need execution", node)
        refuse(Refusal.UNSUPPORTED, f"this expression ({type(node).__name__}) is not part of the language", node)

    def _name(self, node: ast.Name, wants_node: bool) -> Any:
        name = node.id
        if name in self.names:
            return self.names[name]
        if name in _IGNORED:
            return Opaque(name, ignored=True)
        if name in methods.FUNCTIONS - {"dedent"}:
            return Named(name)
        if name in _FORBIDDEN:
            refuse(Refusal.FORBIDDEN, f"{name} would need execution; a design only builds and runs a workflow", node)
        if hasattr(builtins, name):
            refuse(Refusal.UNSUPPORTED, f"the builtin {name} is not part of the language", node)
        if wants_node:
            refuse(Refusal.UNBOUND_AGENT, f"{name!r} is not bound to a node", node)
        refuse(Refusal.UNKNOWN_NAME, f"{name!r} is not bound", node)

    def _joined(self, node: ast.JoinedStr) -> str:
        """An f-string; refusals inside it stand at its beginning, where every Python version agrees."""
        pieces: list[str] = []
        length = 0
        for part in node.values:
            try:
                if isinstance(part, ast.FormattedValue):
                    if part.conversion not in (-1, ord("s")):
                        refuse(Refusal.UNSUPPORTED, "conversions in f-strings are not read", node)
                    spec = self.read(part.format_spec) if part.format_spec is not None else ""
                    pieces.append(methods.formatted(self.read(part.value), spec, node))
                else:
                    pieces.append(self.read(part))
            except Refused as refused:
                raise Refused(refused.refusal, refused.message, node) from None
            length += len(pieces[-1])
            methods.fits(length, methods.MAX_TEXT, "characters", node)
        return "".join(pieces)

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
                    refuse(Refusal.BAD_VALUE, "** takes a dictionary", value)
                found.update(merged)
            else:
                self._enter(found, key, self.read(value, wants_node))
        return methods.bounded(found, node)  # type: ignore[no-any-return]

    def _enter(self, table: dict[Any, Any], key: ast.expr, value: Any) -> None:
        entry = self.read(key)
        if not methods.hashable(entry):
            refuse(Refusal.BAD_VALUE, "keys must be strings or numbers", key)
        table[entry] = value

    def _binary(self, node: ast.BinOp) -> Any:
        """A chain of operators, from the left, however long."""
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            chain.append(first)
            first = first.left
        value = self.read(first)
        for link in reversed(chain):
            value = self.combine(link.op, value, self.read(link.right), link)
        return value

    def combine(self, op: ast.operator, left: Any, right: Any, at: ast.AST) -> Any:
        """`left op right` of numbers; `+` and `*` also of texts and lists."""
        compute = _ARITHMETIC.get(type(op))
        if isinstance(right, str | list | tuple) and isinstance(left, int) and isinstance(op, ast.Mult):
            left, right = right, left
        match left, right:
            case (int() | float()), (int() | float()):
                if compute is None:
                    refuse(Refusal.UNSUPPORTED, "only + - * / // % are read", at)
                if right == 0 and isinstance(op, ast.Div | ast.FloorDiv | ast.Mod):
                    refuse(Refusal.BAD_VALUE, "this divides by zero", at)
                return methods.bounded(compute(left, right), at)
            case (str(), str()) | (list(), list()) | (tuple(), tuple()) if isinstance(op, ast.Add):
                return methods.bounded(left + right, self._weighed(left, at))
            case (str() | list() | tuple()), int() if isinstance(op, ast.Mult):
                most = methods.MAX_TEXT if isinstance(left, str) else methods.MAX_ITEMS
                methods.fits(len(left) * max(right, 0), most, "characters or items", at)
                return left * right
        refuse(Refusal.UNSUPPORTED, "these two values cannot be combined here", at)

    def _weighed(self, value: Any, at: ast.AST) -> ast.AST:
        self.work(len(value) // 256, at)
        return at

    def _either(self, any_of: bool, parts: list[ast.expr]) -> Any:
        """`or` / `and` of constants; something opaque may be followed by anything (`os.getenv(...) or "x"`)."""
        value: Any = None
        for part in parts:
            value = self.read(part)
            if not isinstance(value, Opaque | str | int | float | list | tuple | dict | None):
                return value
            if not isinstance(value, Opaque) and bool(value) == any_of:
                return value
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.read(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.read(comparator)
            if not self._compared(op, left, right, node):
                return False
            left = right
        return True

    def _compared(self, op: ast.cmpop, left: Any, right: Any, at: ast.AST) -> bool:
        scalar = str | int | float | None
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
        refuse(Refusal.UNSUPPORTED, "this test is not a constant", at)

    def _subscript(self, node: ast.Subscript) -> Any:
        with self._link(node):
            owner = self._link_value(node.value)
        if isinstance(owner, Opaque):
            return owner
        if isinstance(node.slice, ast.Slice):
            ends = [None if end is None else self.read(end) for end in (node.slice.lower, node.slice.upper)]
            if isinstance(owner, str | list | tuple) and node.slice.step is None:
                if all(isinstance(end, int | None) for end in ends):
                    return owner[slice(*ends)]
            refuse(Refusal.UNSUPPORTED, "this slice is not read", node)
        key = self.read(node.slice)
        if isinstance(owner, str | list | tuple) and isinstance(key, int) and -len(owner) <= key < len(owner):
            return owner[key]
        if isinstance(owner, dict) and methods.hashable(key) and key in owner:
            return owner[key]
        refuse(Refusal.BAD_VALUE, "there is nothing under this subscript", node)

    def _attribute(self, node: ast.Attribute) -> Any:
        with self._link(node):
            owner = self._link_value(node.value)
        name = node.attr
        match owner:
            case Opaque():
                if not name.startswith("_"):
                    return owner
            case Module("textwrap") if name == "dedent":
                return Named("dedent")
            case Module(module) if name in MODULES[module]:
                return Opaque(f"{module}.{name}", ignored=module == "logging" or name == "exit")
            case Draft(kind=kind):
                if name in _NODE_METHODS.get(kind, ()):
                    return Method(owner, name)
                if name == "name":
                    return owner.name
            case Registry() if name in _REGISTRY_METHODS:
                return Method(owner, name)
            case str() if name in methods.TEXT:
                return Method(owner, name)
            case list() if name in methods.LIST:
                return Method(owner, name)
            case dict() if name in methods.DICT:
                return Method(owner, name)
        refuse(Refusal.FORBIDDEN, f"the attribute {name[:40]!r} is not part of the language", node)

    def _link_value(self, node: ast.expr) -> Any:
        """The value of what an attribute, subscript or call is taken from: a chain, not a nesting."""
        self._depth -= 1
        try:
            return self.read(node)
        finally:
            self._depth += 1

    @contextmanager
    def _link(self, node: ast.AST) -> Iterator[None]:
        self._chain += 1
        if self._chain > MAX_CHAIN:
            refuse(Refusal.TOO_LARGE, f"a chain may have at most {MAX_CHAIN} links", node)
        yield
        self._chain -= 1

    def _comprehend(self, generators: list[ast.comprehension], enter: Callable[[], None], at: ast.AST) -> None:
        """Runs `enter` for every combination that the comprehension's `for`s and constant `if`s leave."""
        before = dict(self.names)

        def go(rest: list[ast.comprehension]) -> None:
            if not rest:
                enter()
                return
            if rest[0].is_async:
                refuse(Refusal.FORBIDDEN, "this would need execution", at)
            for value in self.unroll(rest[0].iter):
                self.bind(rest[0].target, value)
                if all(self.holds(test) for test in rest[0].ifs):
                    go(rest[1:])

        if len(generators) > MAX_DEPTH:
            refuse(Refusal.TOO_LARGE, f"more than {MAX_DEPTH} loops are nested here", at)
        go(generators)
        self.names = before
