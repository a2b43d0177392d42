"""How nodes and conditions are read from the short form, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from metaagentx.workflow import ir
from metaagentx.workflow.check import MAX_DEPTH, check
from metaagentx.workflow.ir import Agent, Condition, Ensemble, Limits, Node, Refusal, Remark, Role, Workflow
from metaagentx.workflow.short_print import equal_members
from metaagentx.workflow.short_reader import Reader
from metaagentx.workflow.template import QUESTION, references

T = TypeVar("T")

DEFAULT_NAME = "workflow"


Kind: TypeAlias = Callable[["NodeReader", str], Node]
"""How one kind of node is read: from its opening brace on, given its name."""


class NodeReader(Reader):
    """A cursor that reads nodes, and keeps what it needs to judge them."""

    def __init__(
        self, text: str, kinds: Mapping[str, Kind], palette: Mapping[str, Role], limits: Limits, tools: frozenset[str]
    ) -> None:
        super().__init__(text)
        self.kinds = kinds
        self.palette = palette
        self.limits = limits
        self.tools = tools
        self.remarks: list[Remark] = []
        self.agents = 0
        self.depth = 1  # the workflow itself
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
                self.refuse(Refusal.UNKNOWN_NAME, f"no earlier step is named {reference[:80]!r}", at)
        workflow = Workflow(name, tuple(steps))
        fault = check(workflow, self.limits)
        if fault is not None:
            self.refuse(fault.refusal, fault.message, start)
        return workflow

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
        if self.depth > MAX_DEPTH:
            self.refuse(Refusal.TOO_LARGE, f"at most {MAX_DEPTH} levels may lie within each other")

    def expression(self, name: str) -> Node:
        start = self.skip()
        word = self.name("a role or a kind of node")
        if self.sees("("):
            node: Node = self.role(name, word, start)
        elif self.sees("{"):
            if word not in self.kinds:
                self.refuse(
                    Refusal.UNKNOWN_NAME, f"no kind of node {word[:80]!r}; there is {', '.join(self.kinds)}", start
                )
            node = self.kinds[word](self, name)
        else:
            self.refuse(Refusal.SYNTAX, f"'(' or '{{' is expected after {word[:80]!r}, not {self.next_piece()}")
        if isinstance(node, Agent) and self.takes("x"):
            at = self.at - 1
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
        """Those of `names` that are tools; a remark on the others."""
        unknown = [name[:80] for name in names if name not in self.tools]
        if unknown:
            self.remarks.append(Remark(f"left out, as no such tool exists: {', '.join(unknown[:8])}", 1, at + 1))
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
