"""How nodes and conditions are read from the short form, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from metaagentx.workflow import ir
from metaagentx.workflow.ir import Agent, Condition, Ensemble, Limits, Node, Refusal, Remark, Role, Workflow
from metaagentx.workflow.short_print import equal_members
from metaagentx.workflow.short_reader import Reader
from metaagentx.workflow.template import QUESTION, references

T = TypeVar("T")

DEEPEST = 16  # nodes and conditions within each other
DEFAULT_NAME = "workflow"


class NodeReader(Reader):
    """A cursor that reads nodes, and keeps what it needs to judge them."""

    def __init__(self, text: str, palette: Mapping[str, Role], limits: Limits, tools: frozenset[str]) -> None:
        super().__init__(text)
        self.palette = palette
        self.limits = limits
        self.tools = tools
        self.remarks: list[Remark] = []
        self.agents = 0
        self.depth = 0
        self.open: list[tuple[str, int]] = []  # references to steps that are not resolved yet, and where they are

    def design(self) -> Workflow:
        """The whole text."""
        if self.done():
            self.refuse(Refusal.EMPTY_WORKFLOW, "a design has at least one step: name=role(template)")
        start = self.at
        name = self.name("a step's name")
        if not self.takes(":"):
            name, self.at = DEFAULT_NAME, start
        names: list[str] = []
        steps = [self.step(names)]
        while self.takes(";"):
            steps.append(self.step(names))
        if not self.done():
            self.refuse(Refusal.SYNTAX, f"';' or the end is expected after a step, not {self.next_piece()}")
        for reference, at in self.open:
            if reference != QUESTION:
                known = ", ".join([QUESTION, *names])
                self.refuse(Refusal.UNKNOWN_NAME, f"no earlier step is named {reference[:80]!r}; there is {known}", at)
        return Workflow(name, tuple(steps))

    def step(self, names: list[str]) -> Node:
        """The next node of a sequence: it may refer to `names`, the steps before it, and is added to them."""
        mark = len(self.open)
        node = self.node(names)
        self.resolve(mark, names[:-1])
        return node

    def resolve(self, mark: int, names: Iterable[str]) -> None:
        """Strike references made since `mark` that mean one of `names`."""
        known = frozenset(names)
        self.open[mark:] = [each for each in self.open[mark:] if each[0] not in known]

    def node(self, siblings: list[str]) -> Node:
        """`name=expression`, renamed where a sibling has its name."""
        start = self.skip()
        self.deeper()
        name = written = self.name("a name")
        number = 2
        while name in siblings:
            name, number = f"{written}#{number}", number + 1
        if name != written:
            self.remarks.append(Remark(f"a second step named {written[:80]!r} is shown as {name[:80]!r}", 1, start + 1))
        siblings.append(name)
        self.expect("=", "after a name")
        node = self.expression(name)
        self.depth -= 1
        return node

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            self.refuse(Refusal.TOO_LARGE, f"at most {DEEPEST} levels may lie within each other")

    def expression(self, name: str) -> Node:
        start = self.skip()
        word = self.name("a role or a kind of node")
        if self.sees("("):
            node: Node = self.role(name, word, start)
        elif self.sees("{"):
            if word not in _KINDS:
                self.refuse(Refusal.UNKNOWN_NAME, f"no kind of node {word[:80]!r}; there is {', '.join(_KINDS)}", start)
            node = _KINDS[word](self, name)
        else:
            self.refuse(Refusal.SYNTAX, f"'(' or '{{' is expected after {word[:80]!r}, not {self.next_piece()}")
        if isinstance(node, Agent) and self.text[self.at : self.at + 1] == "x":
            at, self.at = self.at, self.at + 1
            count = self.integer("the number of votes")
            if count < 1:
                self.refuse(Refusal.EMPTY_ENSEMBLE, "a vote has at least one member", at)
            self.count_agents(count - 1, at)
            return Ensemble(name, equal_members(node, count))
        return node

    def count_agents(self, more: int, at: int) -> None:
        self.agents += more
        if self.agents > self.limits.agents:
            self.refuse(Refusal.TOO_LARGE, f"a design has at most {self.limits.agents} agents", at)

    def role(self, name: str, word: str, start: int) -> Agent:
        """`role(template)`: an agent of the palette."""
        role = self.palette.get(word)
        if role is None:
            known = f"there is {', '.join(self.palette)}" if self.palette else "there is no palette"
            self.refuse(Refusal.UNKNOWN_NAME, f"no role {word[:80]!r}; {known}", start)
        self.count_agents(1, start)
        opened = self.skip()
        self.at += 1
        if self.text.startswith(")", self.at):
            self.at += 1
            task = None
        elif self.sees('"'):
            task = self.template()
            self.expect(")", "after a quoted template")
        else:
            self.at = opened + 1
            task = self.raw(opened)
            self.open += [(reference, opened + 1 + at) for reference, at in references(task)]
        return Agent(name, role.system_prompt, self.existing(role.tools, start), role.max_turns, task)

    def template(self) -> str:
        """A quoted template. Escapes hide where a reference stands, so the string's own column is given."""
        at = self.skip()
        task = self.string("a template")
        self.open += [(reference, at) for reference, _ in references(task)]
        return task

    def existing(self, names: Sequence[str], at: int) -> tuple[str, ...]:
        """Those of `names` that are tools; a remark for each other one."""
        for name in names:
            if name not in self.tools:
                self.remarks.append(Remark(f"there is no tool {name[:80]!r}: left out", 1, at + 1))
        return tuple(name for name in names if name in self.tools)

    # Values of fields.

    def several(self, read: Callable[[], T]) -> list[T]:
        """`[item,item,...]`."""
        self.expect("[", "before a list")
        items: list[T] = []
        if self.takes("]"):
            return items
        items.append(read())
        while self.takes(","):
            items.append(read())
        self.expect("]", "or ',' after an item")
        return items

    def fields(self, kind: str, needed: tuple[str, ...], **readers: Callable[[], Any]) -> dict[str, Any]:
        """`{field:value,...}`; values by field, and the position of each value under `@field`."""
        found: dict[str, Any] = {"@": self.skip()}
        self.expect("{", f"after {kind!r}")
        while not self.takes("}"):
            if len(found) > 1:
                self.expect(",", "or '}' after a field")
            at = self.skip()
            key = self.name(f"a field of {kind}")
            if key not in readers:
                self.refuse(
                    Refusal.UNKNOWN_KEYWORD, f"{kind} has no field {key[:80]!r}; it has {', '.join(readers)}", at
                )
            if key in found:
                self.refuse(Refusal.SYNTAX, f"{kind} has the field {key!r} twice", at)
            self.expect(":", f"after {key!r}")
            found["@" + key] = self.skip()
            found[key] = readers[key]()
        for key in needed:
            if key not in found:
                self.refuse(Refusal.SYNTAX, f"{kind} needs the field {key!r}", found["@"])
        return found

    def between(self, low: int, high: int, what: str) -> Callable[[], int]:
        def read() -> int:
            at = self.skip()
            value = self.integer(what)
            if value < low:
                self.refuse(Refusal.BAD_VALUE, f"{what} must be at least {low}, not {value}", at)
            if value > high:
                self.refuse(Refusal.TOO_LARGE, f"{what} may be at most {high}, not {value}", at)
            return value

        return read

    def one_of(self, words: Mapping[str, T], what: str) -> Callable[[], T]:
        def read() -> T:
            at = self.skip()
            word = self.name(what)
            if word not in words:
                self.refuse(Refusal.BAD_VALUE, f"{what} is one of {', '.join(words)}, not {word[:80]!r}", at)
            return words[word]

        return read

    def text_value(self) -> str:
        return self.string("a text")

    def single(self) -> Node:
        return self.node([])

    def nodes(self, names: list[str], *, refusal: Refusal, sequence: bool = False) -> Callable[[], tuple[Node, ...]]:
        """A list of nodes that is not empty; their names are added to `names`."""

        def read() -> tuple[Node, ...]:
            at = self.skip()
            nodes = tuple(self.several(lambda: self.step(names) if sequence else self.node(names)))
            if not nodes:
                self.refuse(refusal, "at least one node is needed here", at)
            return nodes

        return read

    def target(self, names: Iterable[str], name: str, at: int) -> None:
        """Refuse a route or edge that leads nowhere."""
        if name not in names:
            self.refuse(Refusal.UNKNOWN_TARGET, f"{name[:80]!r} leads nowhere; there is {', '.join(names)}"[:400], at)

    def condition(self) -> Condition:
        start = self.skip()
        self.deeper()
        word = self.name("a condition")
        condition: Condition
        match word:
            case "agrees":
                condition = ir.AnswerAgrees()
            case "accepts":
                condition = ir.VerdictAccepts()
            case "contains" | "mentions":
                self.expect("(", f"after {word!r}")
                condition = ir.Contains(self.text_value(), ignore_case=word == "mentions")
                self.expect(")", "after the text")
            case "not":
                self.expect("(", "after 'not'")
                condition = ir.Not(self.condition())
                self.expect(")", "after the condition")
            case "all" | "any":
                self.expect("(", f"after {word!r}")
                inner = [] if self.sees(")") else [self.condition()]
                while self.takes(","):
                    inner.append(self.condition())
                self.expect(")", "or ',' after a condition")
                condition = ir.AllOf(tuple(inner)) if word == "all" else ir.AnyOf(tuple(inner))
            case _:
                known = "contains, mentions, agrees, accepts, not, all, any"
                self.refuse(Refusal.BAD_VALUE, f"no condition {word[:80]!r}; there is {known}", start)
        self.depth -= 1
        return condition


def _agent(reader: NodeReader, name: str) -> Agent:
    reader.count_agents(1, reader.at)
    found = reader.fields(
        "agent",
        (),
        prompt=reader.text_value,
        tools=lambda: reader.several(lambda: reader.name("a tool's name")),
        turns=reader.between(1, reader.limits.turns, "turns"),
        task=reader.template,
    )
    tools = reader.existing(found.get("tools", ()), found.get("@tools", found["@"]))
    agent = Agent(name, found.get("prompt", ""), tools, task=found.get("task"))
    return replace(agent, max_turns=found["turns"]) if "turns" in found else agent


_STRATEGIES = {"majority_vote": "majority_vote", "weighted_vote": "weighted_vote", "consensus": "consensus"}


def _vote(reader: NodeReader, name: str) -> Ensemble:
    members: list[str] = []

    def judge() -> Node:
        mark = len(reader.open)
        node = reader.single()
        reader.resolve(mark, members)
        return node

    found = reader.fields(
        "vote",
        ("agents",),
        agents=reader.nodes(members, refusal=Refusal.EMPTY_ENSEMBLE),
        by=reader.one_of(_STRATEGIES, "the strategy of a vote"),
        judge=judge,
        weights=lambda: tuple(reader.several(lambda: reader.number("a weight"))),
    )
    weights = found.get("weights")
    if weights is not None and (len(weights) != len(members) or not all(0 <= each < math.inf for each in weights)):
        reader.refuse(
            Refusal.BAD_VALUE, f"one finite weight of 0 or above a member is needed: {len(members)}", found["@weights"]
        )
    strategy = found.get("by", "majority_vote")
    if strategy == "consensus" and "judge" not in found:
        reader.refuse(Refusal.MISSING_JUDGE, "a consensus needs a judge", found["@by"])
    return Ensemble(name, found["agents"], strategy, found.get("judge"), weights)


def _reflect(reader: NodeReader, name: str) -> ir.Reflection:
    found = reader.fields(
        "reflect",
        ("agent",),
        agent=reader.single,
        critic=reader.single,
        rounds=reader.between(1, reader.limits.iterations, "rounds"),
        critique=reader.text_value,
        refine=reader.text_value,
        history=reader.one_of({"yes": True, "no": False}, "history"),
    )
    return ir.Reflection(
        name,
        found["agent"],
        found.get("critic"),
        found.get("rounds", 2),
        found.get("critique"),
        found.get("refine"),
        found.get("history", False),
    )


def _debate(reader: NodeReader, name: str) -> ir.Debate:
    debaters: list[str] = []
    mark = len(reader.open)
    found = reader.fields(
        "debate",
        ("debaters",),
        debaters=reader.nodes(debaters, refusal=Refusal.EMPTY_ENSEMBLE),
        judge=reader.single,
        rounds=reader.between(1, reader.limits.iterations, "rounds"),
    )
    reader.resolve(mark, debaters)
    return ir.Debate(name, found["debaters"], found.get("judge"), found.get("rounds", 2))


def _route(reader: NodeReader, name: str) -> ir.Router:
    names: list[str] = []
    siblings: list[str] = []
    targets: list[tuple[str, int]] = []

    def target() -> str:
        at = reader.skip()
        targets.append((reader.name("a route"), at))
        return targets[-1][0]

    def route() -> tuple[str, Node]:
        at = reader.skip()
        names.append(reader.name("a route"))
        if names[-1] in names[:-1]:
            reader.refuse(Refusal.BAD_VALUE, f"the route {names[-1][:80]!r} is named twice", at)
        reader.expect(":", "after a route's name")
        return names[-1], reader.node(siblings)

    found = reader.fields(
        "route",
        ("by", "routes"),
        by=lambda: _rule(reader, target),
        routes=lambda: reader.several(route),
        default=target,
    )
    if not names:
        reader.refuse(Refusal.EMPTY_WORKFLOW, "at least one route is needed here", found["@routes"])
    for each, at in targets:
        reader.target(names, each, at)
    return ir.Router(name, tuple(found["routes"]), found["by"], found.get("default"))


def _rule(reader: NodeReader, target: Callable[[], str]) -> ir.KeywordRule | ir.ConditionRule | ir.AgentRule:
    at = reader.skip()
    word = reader.name("a rule: keywords, cases or ask")

    def leads(read: Callable[[], T]) -> Callable[[], tuple[T, str]]:
        def pair() -> tuple[T, str]:
            value = read()
            reader.expect(">", "before a route")
            return value, target()

        return pair

    if word == "keywords":
        return ir.KeywordRule(tuple(reader.several(leads(reader.text_value))))
    if word == "cases":
        return ir.ConditionRule(tuple(reader.several(leads(reader.condition))))
    if word != "ask":
        reader.refuse(Refusal.BAD_VALUE, f"a rule is keywords[...], cases[...] or ask(...), not {word[:80]!r}", at)
    reader.expect("(", "after 'ask'")
    at = reader.skip()
    agent = reader.single()
    if not isinstance(agent, Agent):
        reader.refuse(Refusal.BAD_VALUE, "only an agent can be asked for a route", at)
    reader.expect(")", "after the agent")
    return ir.AgentRule(agent)


def _loop(reader: NodeReader, name: str) -> ir.Loop:
    body: list[str] = []
    mark = len(reader.open)
    found = reader.fields(
        "loop",
        ("body", "until"),
        body=reader.nodes(body, refusal=Refusal.EMPTY_WORKFLOW),
        until=reader.condition,
        most=reader.between(1, reader.limits.iterations, "iterations"),
    )
    reader.resolve(mark, body)
    return ir.Loop(name, found["body"], found["until"], found.get("most", 5))


def _branch(reader: NodeReader, name: str) -> ir.Branch:
    body = reader.nodes([], refusal=Refusal.EMPTY_WORKFLOW, sequence=True)
    found = reader.fields("branch", ("when", "body"), when=reader.condition, body=body)
    return ir.Branch(name, found["when"], found["body"])


def _graph(reader: NodeReader, name: str) -> ir.Graph:
    names: list[str] = []
    targets: list[tuple[str, int]] = []
    mark = len(reader.open)

    def target() -> str:
        at = reader.skip()
        targets.append((reader.name("a node's name"), at))
        return targets[-1][0]

    def edge() -> ir.Edge:
        source = target()
        reader.expect(">", "after an edge's source")
        goal = target()
        return ir.Edge(source, goal, reader.condition() if reader.takes("if ") else None)

    found = reader.fields(
        "graph",
        ("nodes", "entry", "finish"),
        nodes=reader.nodes(names, refusal=Refusal.EMPTY_WORKFLOW),
        edges=lambda: reader.several(edge),
        entry=target,
        finish=lambda: reader.several(target),
        most=reader.between(1, reader.limits.steps, "steps"),
    )
    for each, at in targets:
        reader.target(names, each, at)
    reader.resolve(mark, names)
    return ir.Graph(
        name,
        found["nodes"],
        tuple(found.get("edges", ())),
        found["entry"],
        tuple(found["finish"]),
        found.get("most", 50),
    )


def _workflow(reader: NodeReader, name: str) -> Workflow:
    steps = reader.nodes([], refusal=Refusal.EMPTY_WORKFLOW, sequence=True)
    return Workflow(name, reader.fields("workflow", ("steps",), steps=steps)["steps"])


_KINDS: Mapping[str, Callable[[NodeReader, str], Node]] = {
    "agent": _agent,
    "vote": _vote,
    "reflect": _reflect,
    "debate": _debate,
    "route": _route,
    "loop": _loop,
    "branch": _branch,
    "graph": _graph,
    "workflow": _workflow,
}
