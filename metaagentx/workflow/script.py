"""From a script to a design. The script is read, never run: `ast.parse`, then a total evaluator."""

from __future__ import annotations

import ast
import warnings
from typing import Any

from metaagentx.workflow import constructors, methods
from metaagentx.workflow.check import check
from metaagentx.workflow.conditions import read_condition
from metaagentx.workflow.constructors import Argument, construct, read_routes
from metaagentx.workflow.drafts import Draft, DraftEdge, Function, Method, Module, Named, Opaque, Registry, Step
from metaagentx.workflow.freeze import freeze
from metaagentx.workflow.ir import Condition, Design, Diagnosis, Limits, Refusal, Remark, Workflow
from metaagentx.workflow.refused import Places, Refused, refuse
from metaagentx.workflow.values import CONDITIONS, ENVIRONMENTS, MAX_DEPTH, MODULES, QUESTION, Values

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
    tree = syntax(text)
    if isinstance(tree, Diagnosis):
        return tree

    places = Places(text)
    script = _Script(limits, tools)
    try:
        script.block(tree.body)
    except Refused as refused:
        return places.diagnose(refused)
    except RecursionError:
        return Diagnosis(Refusal.TOO_LARGE, "the script is nested too deeply")
    if script.workflow is None:
        return Diagnosis(Refusal.NO_WORKFLOW, "no workflow is run; end with workflow.run(question)")
    remarks = sorted({(*places.of(at), message) for message, at in script.remarks})
    return Design(script.workflow, tuple(Remark(message, line, column) for line, column, message in remarks))


def syntax(text: str) -> ast.Module | Diagnosis:
    """The syntax tree of `text`, or where it stops being Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        return Diagnosis(
            Refusal.SYNTAX, f"not Python: {error.msg}", max(error.lineno or 1, 1), max(error.offset or 1, 1)
        )
    except (RecursionError, MemoryError):
        return Diagnosis(Refusal.TOO_LARGE, "the script is nested too deeply")
    except ValueError as error:
        return Diagnosis(Refusal.SYNTAX, f"not Python: {error}")


class _Returned:
    """A block ended with `return value`."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Script:
    """One script being read."""

    def __init__(self, limits: Limits, tools: frozenset[str]) -> None:
        known = {"question": QUESTION, "__name__": "__main__", "__file__": Opaque("__file__"), **CONDITIONS}
        known |= {name: Named(name) for name in (*constructors.TABLE, "ToolRegistry")}
        known |= {name: Opaque(name) for name in ENVIRONMENTS}
        self.values = Values(known, self.call)
        self.limits, self.tools = limits, tools
        self.workflow: Workflow | None = None
        self.remarks: list[tuple[str, ast.AST]] = []
        self._run: Draft | None = None
        self._drafts = self._steps = self._blocks = 0
        self._inlined: set[int] = set()

    # Statements.

    def block(self, statements: list[ast.stmt]) -> _Returned | None:
        """Reads `statements` in order, up to a `return`."""
        self._blocks += 1
        if self._blocks > MAX_DEPTH:
            refuse(Refusal.TOO_LARGE, f"blocks are nested more than {MAX_DEPTH} deep", statements[0])
        returned = None
        for statement in statements:
            self.values.work(1, statement)
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
                    refuse(Refusal.FORBIDDEN, "decorators would need execution", node.decorator_list[0])
                values.bind(ast.Name(node.name), Function(node))
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
                    refuse(Refusal.SYNTAX, "'return' outside a function", node)
                return _Returned(None if node.value is None else values.read(node.value))
            case ast.Pass():
                pass
            case ast.While() | ast.ClassDef() | ast.AsyncFunctionDef() | ast.AsyncFor() | ast.With() | ast.AsyncWith():
                refuse(Refusal.FORBIDDEN, f"{_keyword(node)} would need execution; {_RIGHT}", node)
            case _:
                refuse(Refusal.UNSUPPORTED, f"{_keyword(node)} is not part of the language; {_RIGHT}", node)
        return None

    def _augment(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Attribute):
            refuse(Refusal.FORBIDDEN, "attributes cannot be assigned; pass keywords to the constructor", node.target)
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
                    self.values.names[alias.asname or module] = Module(module)
                elif module not in _SURFACE:
                    refuse(Refusal.FORBIDDEN, f"{module[:40]!r} cannot be imported; {_RIGHT}", node)
            return
        module = (node.module or "").split(".")[0]
        if module not in _SURFACE and module not in MODULES and module != "__future__":
            refuse(Refusal.FORBIDDEN, f"{module[:40]!r} cannot be imported; {_RIGHT}", node)
        for alias in node.names:
            bound = alias.asname or alias.name
            if module in _SURFACE:
                if alias.name in constructors.TABLE or alias.name == "ToolRegistry":
                    self.values.names[bound] = Named(alias.name)
                elif alias.name in CONDITIONS:
                    self.values.names[bound] = CONDITIONS[alias.name]
                elif alias.name in ENVIRONMENTS:
                    self.values.names[bound] = Opaque(alias.name)
            elif alias.name in MODULES.get(module, ()):
                attribute = ast.Attribute(ast.Name(module), alias.name)
                attribute = ast.copy_location(ast.fix_missing_locations(attribute), node)
                self.values.names[bound] = Named("dedent") if alias.name == "dedent" else Opaque(alias.name, True)

    # Calls.

    def call(self, function: Any, call: ast.Call) -> Any:
        """The value of `call`, of what its function part was read as."""
        match function:
            case Opaque(ignored=True):
                self._find_runs(call)
                return function
            case Opaque():
                self._arguments(call)
                return function
            case Named("ToolRegistry"):
                self._arguments(call)
                return Registry()
            case Named(name) if name in constructors.TABLE:
                return self._construct(name, call)
            case Named(name):
                given, named = self._arguments(call)
                return methods.bounded(methods.call_function(name, given, named, call), call)
            case Function(ast.FunctionDef() as definition):
                return self._inline(definition, call)
            case Method(Draft() as owner, name):
                return self._node_method(owner, name, call)
            case Method(Registry() as owner):
                return self._register(owner, call)
            case Method(owner, name):
                return self._value_method(owner, name, call)
        refuse(Refusal.FORBIDDEN, "this call would need execution", call)

    def _arguments(self, call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        given: list[Any] = []
        for node in call.args:
            if isinstance(node, ast.Starred):
                given.extend(methods.items(self.values.read(node.value), node))
            else:
                given.append(self.values.read(node))
        return given, {keyword: argument.value for keyword, argument in self._keywords(call).items()}

    def _keywords(self, call: ast.Call, nodes: set[str] | frozenset[str] = frozenset()) -> dict[str, Argument]:
        """The keyword arguments of `call`, `**` of a known dictionary included. `nodes`: those that want nodes."""
        found: dict[str, Argument] = {}
        for keyword in call.keywords:
            value = self.values.read(keyword.value, keyword.arg in nodes)
            if keyword.arg is None:
                if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                    refuse(Refusal.BAD_VALUE, "** takes a dictionary with string keys", keyword.value)
                added = {key: Argument(part, keyword.value) for key, part in value.items()}
            else:
                added = {keyword.arg: Argument(value, keyword.value)}
            for key, argument in added.items():
                if key in found:
                    refuse(Refusal.SYNTAX, f"the keyword {key[:40]!r} is given twice", keyword)
                found[key] = argument
        return found

    def _bind(self, call: ast.Call, name: str, signature: tuple[str, ...], nodes: tuple[str, ...] = ()) -> dict[str, Argument]:
        """The arguments of a method by name; positional ones follow `signature`."""
        found: dict[str, Argument] = {}
        if len(call.args) > len(signature):
            refuse(Refusal.BAD_VALUE, f"{name} takes {', '.join(signature)}", call.args[len(signature)])
        for key, node in zip(signature, call.args, strict=False):
            found[key] = Argument(self.values.read(node, key in nodes), node)
        for keyword in call.keywords:
            if keyword.arg not in signature:
                refuse(Refusal.UNKNOWN_KEYWORD, f"{name} takes {', '.join(signature)}", keyword)
            if keyword.arg in found:
                refuse(Refusal.SYNTAX, f"{keyword.arg} is given twice", keyword)
            found[keyword.arg] = Argument(self.values.read(keyword.value, keyword.arg in nodes), keyword.value)
        return found

    def _construct(self, kind: str, call: ast.Call) -> Draft:
        table = constructors.TABLE[kind]
        if call.args:
            first = next(iter(table))
            refuse(Refusal.BAD_VALUE, f"{kind} takes keywords only: {first}=...", call.args[0])
        for keyword in call.keywords:
            if keyword.arg is not None and keyword.arg not in table and keyword.arg not in constructors.IGNORED:
                refuse(Refusal.UNKNOWN_KEYWORD, f"{kind} takes {', '.join(table)}; not {keyword.arg}", keyword)
        arguments = self._keywords(call, constructors.NODE_KEYWORDS)
        for keyword in arguments:
            if keyword not in table:
                if keyword not in constructors.IGNORED:
                    at = arguments[keyword].at
                    refuse(Refusal.UNKNOWN_KEYWORD, f"{kind} takes {', '.join(table)}; not {keyword[:40]}", at)
                self.remarks.append((f"{keyword} of {kind} has no meaning here", arguments[keyword].at))
        kept = {keyword: argument for keyword, argument in arguments.items() if keyword in table}
        self._drafts += 1
        return construct(kind, kept, call, self._drafts, self.limits, self.values.read)

    def _inline(self, definition: ast.FunctionDef, call: ast.Call) -> Any:
        """Reads the body of a function without parameters where it is called, once."""
        arguments = definition.args
        if call.args or call.keywords or ast.dump(arguments) != ast.dump(_NO_PARAMETERS):
            refuse(Refusal.FORBIDDEN, "calls of own functions with parameters would need execution", call)
        if id(definition) in self._inlined:
            refuse(Refusal.FORBIDDEN, f"{definition.name} is called again; a function is read once", call)
        self._inlined.add(id(definition))
        returned = self.block(definition.body)
        return None if returned is None else returned.value

    def _value_method(self, owner: Any, name: str, call: ast.Call) -> Any:
        given, named = self._arguments(call)
        if isinstance(owner, str):
            self.values.work(len(owner) // 256, call)
            return methods.bounded(methods.text_method(owner, name, given, named, call), call)
        if named:
            refuse(Refusal.UNSUPPORTED, f"{name} takes no keywords here", call)
        if isinstance(owner, list):
            return methods.list_method(owner, name, given, call)
        return methods.dict_method(owner, name, given, call)

    def _find_runs(self, call: ast.Call) -> None:
        """Reads the `.run(...)` calls inside an ignored call; the rest of it has no meaning."""
        for node in ast.walk(call):
            self.values.work(1, call)
            if node is not call and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "run":
                    self.values.read(node)

    # Methods of nodes and registries.

    def _register(self, registry: Registry, call: ast.Call) -> None:
        arguments = self._bind(call, "register", ("name", "func", "description", "parameters"))
        if "name" not in arguments or not isinstance(arguments["name"].value, str):
            refuse(Refusal.BAD_VALUE, "register needs the tool's name, a string", call)
        tool = arguments["name"].value
        if tool not in self.tools:
            known = ", ".join(sorted(self.tools)) or "none"
            self.remarks.append((f"the tool {tool[:80]!r} does not exist and is left out; there is {known}", call))
        elif tool not in registry.tools:
            registry.tools.append(tool)

    def _node_method(self, owner: Draft, name: str, call: ast.Call) -> Any:
        match name:
            case "run":
                return self._run_workflow(owner, call)
            case "add_node" if owner.kind == "AgentGraph":
                self._add_graph_node(owner, call)
            case "add_node":
                signature = ("node", "condition") if owner.kind == "ConditionalWorkflow" else ("node",)
                arguments = self._bind(call, name, signature, ("node",))
                self._add(owner, arguments.get("node"), call, condition=self._condition(arguments.get("condition")))
            case "add_nodes":
                arguments = self._bind(call, name, ("nodes",), ("nodes",))
                if "nodes" not in arguments:
                    refuse(Refusal.BAD_VALUE, "add_nodes takes a list of nodes", call)
                for node in constructors.nodes(arguments["nodes"], "nodes", self.limits):
                    self._add(owner, Argument(node, arguments["nodes"].at), call)
            case "set_loop_condition":
                arguments = self._bind(call, name, ("condition",))
                owner.condition = self._condition(arguments.get("condition"))
                if owner.condition is None:
                    refuse(Refusal.BAD_VALUE, "set_loop_condition takes the condition for going on", call)
            case "add_edge":
                self._add_edge(owner, call)
            case "add_conditional_edges":
                self._add_conditional_edges(owner, call)
            case "set_entry_point" | "set_finish_point":
                arguments = self._bind(call, name, ("name",))
                end = self._end(arguments.get("name"), call)
                if name == "set_entry_point":
                    owner.entry = (end, call)
                else:
                    owner.finish.append((end, call))
        return owner

    def _add(
        self, owner: Draft, argument: Argument | None, call: ast.Call, condition: Condition | None = None, alias: str = ""
    ) -> None:
        if argument is None:
            refuse(Refusal.BAD_VALUE, "add_node takes a node", call)
        node = constructors.node(argument, "what is added", self.limits)
        if node.holds(owner):
            refuse(Refusal.CYCLE, f"{owner.name!r} would contain itself", argument.at)
        self._steps += 1
        methods.fits(self._steps, methods.MAX_ITEMS, "steps", call)
        owner.steps.append(Step(node, call, condition, alias))

    def _add_graph_node(self, owner: Draft, call: ast.Call) -> None:
        """`add_node(node)`, `add_node("name", node)` or the same with keywords."""
        named_first = len(call.args) == 2 or any(keyword.arg == "name" for keyword in call.keywords)
        arguments = self._bind(call, "add_node", ("name", "node") if named_first else ("node",), ("node",))
        alias = constructors.name(arguments["name"], "name of a graph's node", self.limits) if named_first else ""
        node = arguments.get("node")
        self._add(owner, node, call, alias=alias)
        added = owner.steps[-1]
        called = alias or added.node.name
        for step in owner.steps[:-1]:
            if step.node is added.node or called in (step.alias, step.node.name):
                refuse(Refusal.BAD_VALUE, f"the graph already has a node {called!r}", call)

    def _add_edge(self, owner: Draft, call: ast.Call) -> None:
        arguments = self._bind(call, "add_edge", ("source", "target", "condition"), ("source", "target"))
        source, target = self._end(arguments.get("source"), call), self._end(arguments.get("target"), call)
        owner.edges.append(DraftEdge(source, target, self._condition(arguments.get("condition")), call))

    def _add_conditional_edges(self, owner: Draft, call: ast.Call) -> None:
        """`(source, function, {what it returns: target})`: one edge for each case, in order."""
        signature = ("source", "condition", "routes")
        arguments = self._bind(call, "add_conditional_edges", signature, ("source",))
        source = self._end(arguments.get("source"), call)
        if "condition" not in arguments or "routes" not in arguments:
            refuse(Refusal.BAD_VALUE, "add_conditional_edges takes a source, a function and its routes", call)
        function, routes = arguments["condition"], arguments["routes"]
        if not isinstance(routes.value, dict) or not routes.value:
            refuse(Refusal.BAD_VALUE, "routes must be a dictionary from what the function returns to nodes", routes.at)
        targets = {key: self._end(Argument(end, routes.at), call) for key, end in routes.value.items()}
        if set(targets) <= {True, False}:
            holds = self._condition(function)
            cases = [(holds, targets[True])] if True in targets else []
            otherwise = targets.get(False)
        else:
            chosen, final = read_routes(function.value, function.at, self.values.read, targets)
            cases = [(condition, targets[route]) for condition, route in chosen]
            otherwise = None if final is None else targets[final]
        owner.edges.extend(DraftEdge(source, target, condition, call) for condition, target in cases)
        if otherwise is not None:
            owner.edges.append(DraftEdge(source, otherwise, None, call))

    def _end(self, argument: Argument | None, call: ast.Call) -> str | Draft:
        if argument is None or not isinstance(argument.value, str | Draft):
            refuse(Refusal.BAD_VALUE, "the name of a node is wanted here", call if argument is None else argument.at)
        return argument.value

    def _condition(self, argument: Argument | None) -> Condition | None:
        if argument is None or argument.value is None:
            return None
        return read_condition(argument.value, argument.at, self.values.read)

    def _run_workflow(self, owner: Draft, call: ast.Call) -> Opaque:
        """Completes the workflow that runs, where it runs."""
        given, named = self._arguments(call)
        if self._run is not None and self._run is not owner:
            refuse(Refusal.UNSUPPORTED, "a script runs one workflow; add the other one to it as a step", call)
        asked = [*given, *named.values()][:1]
        if asked != [QUESTION]:
            self.remarks.append(("the workflow is run on the question itself, not on what is passed", call))
        self._run = owner
        self.workflow, remarks = freeze(owner, call)
        fault = check(self.workflow, self.limits)
        if fault is not None:
            refuse(fault.refusal, fault.message, call)
        self.remarks = [remark for remark in self.remarks if remark not in remarks] + remarks
        return Opaque("the run's result")


_NO_PARAMETERS = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])


def _keyword(node: ast.stmt) -> str:
    """A statement's kind, as it is called in Python."""
    return {"ClassDef": "class", "AsyncFunctionDef": "async def", "AsyncFor": "async for", "AsyncWith": "async with"}.get(
        type(node).__name__, type(node).__name__.lower()
    )
