"""What a script does with its nodes: build them, add them to each other, join them by edges and run one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from metaagentx.workflow import constructors
from metaagentx.workflow.arguments import bind, given, keywords
from metaagentx.workflow.check import check
from metaagentx.workflow.constructors import Argument, construct, read_routes
from metaagentx.workflow.decisions import read_condition
from metaagentx.workflow.drafts import Draft, DraftEdge, Opaque, Registry, Step
from metaagentx.workflow.freeze import freeze
from metaagentx.workflow.ir import Condition, Limits, Refusal, Workflow
from metaagentx.workflow.meter import NODE
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.surface import QUESTION
from metaagentx.workflow.values import Values

MAX_STEPS = 256  # of all workflows of a script


class Assembly:
    """The nodes of one script. `workflow`: the one that it ran; `remarks`: (message, where)."""

    def __init__(self, values: Values, limits: Limits, tools: frozenset[str]) -> None:
        self.workflow: Workflow | None = None
        self.remarks: list[tuple[str, ast.AST]] = []
        self.values, self.limits, self.tools = values, limits, tools
        self._run: Draft | None = None
        self._drafts = self._steps = 0

    def construct(self, kind: str, call: ast.Call) -> Draft:
        table = constructors.TABLE[kind]
        if call.args:
            first = next(iter(table))
            raise Refused(Refusal.BAD_VALUE, f"{kind} takes keywords only: {first}=...", call.args[0])
        self.values.meter.work(NODE, call)
        self._drafts += 1
        draft = construct(kind, self._meant(kind, call), call, self._drafts, self.limits, self.values)
        for child in draft.children():  # what is in many places is looked at in each of them
            self.values.meter.work(sum(1 for _ in child.children()), call)
        return draft

    def _meant(self, kind: str, call: ast.Call) -> Iterator[tuple[str, Argument]]:
        """The keyword arguments of a constructor that mean something here."""
        table = constructors.TABLE[kind]
        for key, argument in keywords(self.values, call, (*table, *constructors.IGNORED), constructors.NODE_KEYWORDS):
            if key in table:
                yield key, argument
            else:
                self.remarks.append((f"{key} of {kind} has no meaning here", argument.at))

    def register(self, registry: Registry, call: ast.Call) -> None:
        arguments = bind(self.values, call, "register", ("name", "func", "description", "parameters"))
        if "name" not in arguments or not isinstance(arguments["name"].value, str):
            raise Refused(Refusal.BAD_VALUE, "register needs the tool's name, a string", call)
        tool = arguments["name"].value
        if tool not in self.tools:
            known = ", ".join(sorted(self.tools)) or "none"
            self.remarks.append((f"the tool {tool[:80]!r} does not exist and is left out; there is {known}", call))
        elif tool not in registry.tools:
            registry.tools.append(tool)

    def call(self, owner: Draft, name: str, call: ast.Call) -> Any:
        match name:
            case "run":
                return self._run_workflow(owner, call)
            case "add_node" if owner.kind == "AgentGraph":
                self._add_graph_node(owner, call)
            case "add_node":
                signature = ("node", "condition") if owner.kind == "ConditionalWorkflow" else ("node",)
                arguments = bind(self.values, call, name, signature, ("node",))
                self._add(owner, arguments.get("node"), call, condition=self._condition(arguments.get("condition")))
            case "add_nodes":
                arguments = bind(self.values, call, name, ("nodes",), ("nodes",))
                if "nodes" not in arguments:
                    raise Refused(Refusal.BAD_VALUE, "add_nodes takes a list of nodes", call)
                for node in constructors.nodes(arguments["nodes"], "nodes", self.limits):
                    self._add(owner, Argument(node, arguments["nodes"].at), call)
            case "set_loop_condition":
                arguments = bind(self.values, call, name, ("condition",))
                owner.condition = self._condition(arguments.get("condition"))
                if owner.condition is None:
                    raise Refused(Refusal.BAD_VALUE, "set_loop_condition takes the condition for going on", call)
            case "add_edge":
                self._add_edge(owner, call)
            case "add_conditional_edges":
                self._add_conditional_edges(owner, call)
            case "set_entry_point" | "set_finish_point":
                arguments = bind(self.values, call, name, ("name",), ("name",))
                end = self._end(arguments.get("name"), call)
                if name == "set_entry_point":
                    owner.entry = (end, call)
                else:
                    owner.finish.append((end, call))
        return owner

    def _add(
        self,
        owner: Draft,
        argument: Argument | None,
        call: ast.Call,
        condition: Condition | None = None,
        alias: str = "",
    ) -> None:
        if argument is None:
            raise Refused(Refusal.BAD_VALUE, "add_node takes a node", call)
        node = constructors.node(argument, "what is added", self.limits)
        for inner in node.inside():
            self.values.meter.work(1, call)
            if inner is owner:
                raise Refused(Refusal.CYCLE, f"{owner.name!r} would contain itself; add another node", argument.at)
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Refused(Refusal.TOO_LARGE, f"at most {MAX_STEPS} nodes can be added to others", call)
        owner.steps.append(Step(node, call, condition, alias))

    def _add_graph_node(self, owner: Draft, call: ast.Call) -> None:
        """`add_node(node)`, `add_node("name", node)` or the same with keywords."""
        named_first = len(call.args) == 2 or any(keyword.arg == "name" for keyword in call.keywords)
        arguments = bind(self.values, call, "add_node", ("name", "node") if named_first else ("node",), ("node",))
        alias = constructors.name(arguments["name"], "name of a graph's node", self.limits) if named_first else ""
        node = arguments.get("node")
        self._add(owner, node, call, alias=alias)
        added = owner.steps[-1]
        called = alias or added.node.name
        for step in owner.steps[:-1]:
            if step.node is added.node or called in (step.alias, step.node.name):
                raise Refused(
                    Refusal.BAD_VALUE, f"the graph already has a node {called!r}; give this one another name", call
                )

    def _add_edge(self, owner: Draft, call: ast.Call) -> None:
        arguments = bind(self.values, call, "add_edge", ("source", "target", "condition"), ("source", "target"))
        source, target = self._end(arguments.get("source"), call), self._end(arguments.get("target"), call)
        owner.edges.append(DraftEdge(source, target, self._condition(arguments.get("condition")), call))

    def _add_conditional_edges(self, owner: Draft, call: ast.Call) -> None:
        """`(source, function, {what it returns: target})`: one edge for each case, in order."""
        signature = ("source", "condition", "routes")
        arguments = bind(self.values, call, "add_conditional_edges", signature, ("source", "routes"))
        source = self._end(arguments.get("source"), call)
        if "condition" not in arguments or "routes" not in arguments:
            raise Refused(Refusal.BAD_VALUE, "add_conditional_edges takes a source, a function and its routes", call)
        function, routes = arguments["condition"], arguments["routes"]
        if not isinstance(routes.value, dict) or not routes.value:
            raise Refused(
                Refusal.BAD_VALUE, "routes must be a dictionary from what the function returns to nodes", routes.at
            )
        targets = {key: self._end(Argument(end, routes.at), call) for key, end in routes.value.items()}
        if set(targets) <= {True, False}:
            holds = self._condition(function)
            cases = [(holds, targets[True])] if True in targets else []
            otherwise = targets.get(False)
        else:
            chosen, final = read_routes(function.value, function.at, self.values, targets)
            cases = [(condition, targets[route]) for condition, route in chosen]
            otherwise = None if final is None else targets[final]
        owner.edges.extend(DraftEdge(source, target, condition, call) for condition, target in cases)
        if otherwise is not None:
            owner.edges.append(DraftEdge(source, otherwise, None, call))

    def _end(self, argument: Argument | None, call: ast.Call) -> str | Draft:
        if argument is None or not isinstance(argument.value, str | Draft):
            raise Refused(
                Refusal.BAD_VALUE,
                "this must be a node of the graph, or its name",
                call if argument is None else argument.at,
            )
        return argument.value

    def _condition(self, argument: Argument | None) -> Condition | None:
        if argument is None or argument.value is None:
            return None
        return read_condition(argument.value, argument.at, self.values)

    def _run_workflow(self, owner: Draft, call: ast.Call) -> Opaque:
        """Completes the workflow that runs, where it runs."""
        positional, named = given(self.values, call)
        if self._run is not None and self._run is not owner:
            raise Refused(Refusal.UNSUPPORTED, "a script runs one workflow; add the other one to it as a step", call)
        asked = [*positional, *named.values()][:1]
        if asked != [QUESTION]:
            self.remarks.append(("the workflow is run on the question itself, not on what is passed", call))
        self._run = owner
        self.values.meter.work(6 * NODE, call)  # what follows, each time that it runs
        for draft in owner.inside():
            self.values.meter.work(2 * NODE + len(draft.edges), call)
        self.workflow, remarks = freeze(owner, call)
        fault = check(self.workflow, self.limits)
        if fault is not None:
            raise Refused(fault.refusal, fault.message, call)
        self.remarks = [remark for remark in self.remarks if remark not in remarks] + remarks
        return Opaque("the run's result")
