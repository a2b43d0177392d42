"""From a script to a design. The script is read, never run: `ast.parse`, then a total evaluator."""

from __future__ import annotations

import ast
from typing import Any

from metaagentx.workflow import constructors, methods
from metaagentx.workflow.arguments import given
from metaagentx.workflow.assembly import Assembly
from metaagentx.workflow.drafts import Draft, Function, Method, Module, Named, Opaque, Registry
from metaagentx.workflow.ir import Design, Diagnosis, Limits, Refusal, Remark, brief
from metaagentx.workflow.meter import EXPRESSION, Meter, going_through
from metaagentx.workflow.methods import MAX_DEPTH
from metaagentx.workflow.refused import Places, Refused
from metaagentx.workflow.surface import CONDITIONS, ENVIRONMENTS, MODULES, QUESTION
from metaagentx.workflow.tree import syntax
from metaagentx.workflow.values import Values

MAX_SCRIPT = 64 * 1024  # bytes
_SURFACE = {"workflow", "utils", "environments"}  # the packages whose names are the table's
_RIGHT = "a design imports from workflow, builds nodes and runs one workflow"


def parse_script(text: str, limits: Limits, tools: frozenset[str]) -> Design | Diagnosis:
    """The design that the script `text` builds and runs, or why it is refused.

    `tools`: the names of the tools that exist. Never raises, whatever the text; time is linear in its length.
    Syntax is checked first, then the first refusal in script order is reported.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    size = len(text.encode(errors="replace"))
    if size > MAX_SCRIPT:
        return Diagnosis(Refusal.TOO_LONG, f"the script has {size} bytes; at most {MAX_SCRIPT} are allowed")
    tree, left = syntax(text)
    if isinstance(tree, Diagnosis):
        return tree

    places = Places(text)
    script = _Script(limits, tools, Meter(left))
    try:
        script.block(tree.body)
    except Refused as refused:
        return places.diagnose(refused)
    except RecursionError:
        return Diagnosis(Refusal.TOO_LARGE, "the script is nested too deeply")
    if script.assembly.workflow is None:
        return Diagnosis(Refusal.NO_WORKFLOW, "no workflow is run; end with workflow.run(question)")
    remarks = sorted({(*places.of(at), message) for message, at in script.assembly.remarks})
    return Design(
        script.assembly.workflow, tuple(Remark(brief(message), line, column) for line, column, message in remarks)
    )


class _Returned:
    """A block ended with `return value`."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Script:
    """One script being read."""

    def __init__(self, limits: Limits, tools: frozenset[str], meter: Meter) -> None:
        known: dict[str, Any] = {
            "question": QUESTION,
            "__name__": "__main__",
            "__file__": Opaque("__file__"),
            **CONDITIONS,
        }
        known |= {name: Named(name) for name in (*constructors.TABLE, "ToolRegistry")}
        known |= {name: Opaque(name) for name in ENVIRONMENTS}
        self.values = Values(known, self.call, meter)
        self.assembly = Assembly(self.values, limits, tools)
        self._blocks = 0
        self._inlined: set[int] = set()

    def block(self, statements: list[ast.stmt]) -> _Returned | None:
        """Reads `statements` in order, up to a `return`."""
        self._blocks += 1
        if self._blocks > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"blocks may be nested at most {MAX_DEPTH} deep", statements[0])
        returned = None
        for statement in statements:
            self.values.meter.work(1, statement)
            returned = self._statement(statement)
            if returned is not None:
                break
        self._blocks -= 1
        return returned

    def _statement(self, node: ast.stmt) -> _Returned | None:
        values = self.values
        match node:
            case ast.Expr(value=value):
                values.read(value)
            case ast.Assign(targets=targets, value=value):
                result = values.read(value)
                for target in targets:
                    values.bind(target, result)
            case ast.AnnAssign(target=target, value=value):
                if value is not None:
                    values.bind(target, values.read(value))
            case ast.AugAssign():
                self._augment(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.FunctionDef():
                if node.decorator_list:
                    raise Refused(
                        Refusal.FORBIDDEN, "decorators would need execution; leave them out", node.decorator_list[0]
                    )
                self._bind(node.name, Function(node))
            case ast.If():
                return self.block(node.body) if values.holds(node.test) else self.block(node.orelse)
            case ast.For():
                return self._for(node)
            case ast.Try():
                for part in (node.body, node.orelse, node.finalbody):
                    returned = self.block(part)
                    if returned is not None:
                        return returned
            case ast.Return():
                if not self._inlined:
                    raise Refused(Refusal.SYNTAX, "'return' outside a function; end with workflow.run(question)", node)
                return _Returned(None if node.value is None else values.read(node.value))
            case ast.Pass():
                pass
            case ast.While() | ast.ClassDef() | ast.AsyncFunctionDef() | ast.AsyncFor() | ast.With() | ast.AsyncWith():
                raise Refused(Refusal.FORBIDDEN, f"{_keyword(node)} would need execution; {_RIGHT}", node)
            case _:
                raise Refused(Refusal.UNSUPPORTED, f"{_keyword(node)} is not part of the language; {_RIGHT}", node)
        return None

    def _augment(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Attribute):
            raise Refused(
                Refusal.FORBIDDEN, "attributes cannot be assigned; pass keywords to the constructor", node.target
            )
        before = self.values.read(node.target)
        added = self.values.read(node.value)
        if isinstance(before, list) and isinstance(node.op, ast.Add):
            methods.list_method(before, "extend", [added], node)
        else:
            self.values.bind(node.target, self.values.combine(node.op, before, added, node))

    def _for(self, node: ast.For) -> _Returned | None:
        for value in self.values.unroll(node.iter):
            self.values.bind(node.target, value)
            returned = self.block(node.body)
            if returned is not None:
                return returned
        return self.block(node.orelse)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Binds the names of the table; other names of known modules stay unbound until they are used."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.name.split(".")[0]
                if module in MODULES:
                    self._bind(alias.asname or module, Module(module))
                elif module not in _SURFACE:
                    raise Refused(Refusal.FORBIDDEN, f"{module[:40]!r} cannot be imported; {_RIGHT}", node)
            return
        module = (node.module or "").split(".")[0]
        if module not in _SURFACE and module not in MODULES and module != "__future__":
            raise Refused(Refusal.FORBIDDEN, f"{module[:40]!r} cannot be imported; {_RIGHT}", node)
        self.values.meter.work(4 * len(node.names), node)
        for alias in node.names:
            bound = alias.asname or alias.name
            if module in _SURFACE:
                if alias.name in constructors.TABLE or alias.name == "ToolRegistry":
                    self._bind(bound, Named(alias.name))
                elif alias.name in CONDITIONS:
                    self._bind(bound, CONDITIONS[alias.name])
                elif alias.name in ENVIRONMENTS:
                    self._bind(bound, Opaque(alias.name))
            elif alias.name in MODULES.get(module, ()):
                self._bind(bound, Named("dedent") if alias.name == "dedent" else Opaque(alias.name, True))

    def _bind(self, name: str, value: Any) -> None:
        self.values.bind(ast.Name(name), value)

    def call(self, function: Any, call: ast.Call) -> Any:
        """The value of `call`, of what its function part was read as."""
        match function:
            case Opaque(ignored=True):
                self._find_runs(call)
                return function
            case Opaque():
                given(self.values, call)
                return function
            case Named("ToolRegistry"):
                given(self.values, call)
                return Registry()
            case Named(name) if name in constructors.TABLE:
                return self.assembly.construct(name, call)
            case Named(name):
                positional, named = given(self.values, call)
                for value in positional:
                    self.values.meter.work(going_through(value), call)
                    if name == "dedent" and isinstance(value, str):
                        self.values.meter.work(value.count("\n"), call)
                return methods.bounded(methods.call_function(name, positional, named, call), call)
            case Function(ast.FunctionDef() as definition):
                return self._inline(definition, call)
            case Method(Draft() as owner, name):
                return self.assembly.call(owner, name, call)
            case Method(Registry() as owner):
                return self.assembly.register(owner, call)
            case Method(owner, name):
                return self._value_method(owner, name, call)
        raise Refused(
            Refusal.FORBIDDEN,
            "this call would need execution; only constructors, methods and a main() are called",
            call,
        )

    def _inline(self, definition: ast.FunctionDef, call: ast.Call) -> Any:
        """Reads the body of a function without parameters where it is called, once."""
        arguments = definition.args
        if call.args or call.keywords or ast.dump(arguments) != ast.dump(_NO_PARAMETERS):
            raise Refused(
                Refusal.FORBIDDEN,
                "calls of own functions with parameters would need execution; write out what they build, or use a for",
                call,
            )
        if id(definition) in self._inlined:
            raise Refused(
                Refusal.FORBIDDEN, f"{definition.name} is called again; it is read once, use a for instead", call
            )
        self._inlined.add(id(definition))
        returned = self.block(definition.body)
        return None if returned is None else returned.value

    def _value_method(self, owner: Any, name: str, call: ast.Call) -> Any:
        positional, named = given(self.values, call)
        self.values.meter.work(sum(map(going_through, (owner, *positional))), call)
        if isinstance(owner, str):
            if name == "format":
                self.values.meter.work(owner.count("{") + owner.count("}"), call)
            result = methods.bounded(methods.text_method(owner, name, positional, named, call), call)
            self.values.meter.work(going_through(result), call)
            return result
        if named:
            raise Refused(Refusal.UNSUPPORTED, f"{name} takes no keywords here, only values in order", call)
        if isinstance(owner, list):
            return methods.list_method(owner, name, positional, call)
        return methods.dict_method(owner, name, positional, call)

    def _find_runs(self, call: ast.Call) -> None:
        """Reads the calls of `.run(...)` and of `main()` inside an ignored call; the rest of it has no meaning."""
        for node in ast.walk(call):
            self.values.meter.work(EXPRESSION, call)
            match node:
                case ast.Call(func=ast.Attribute(attr="run")):
                    self.values.read(node)
                case ast.Call(func=ast.Name(name), args=[], keywords=[]):
                    function = self.values.names.get(name)
                    if isinstance(function, Function) and id(function.node) not in self._inlined:
                        self.values.read(node)


_NO_PARAMETERS = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])


def _keyword(node: ast.stmt) -> str:
    """A statement's kind, as it is called in Python."""
    return {
        "ClassDef": "class",
        "AsyncFunctionDef": "async def",
        "AsyncFor": "async for",
        "AsyncWith": "async with",
        "Delete": "del",
        "TryStar": "except*",
        "TypeAlias": "type",
    }.get(type(node).__name__, type(node).__name__.lower())
