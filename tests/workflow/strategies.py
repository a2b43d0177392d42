"""Hypothesis strategies of designs: every kind of node, every condition, hostile names and prompts."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.bounds import steps_to_finish
from metaagentx.workflow.ir import Agent, Condition, Node, Role, Workflow

TOOLS = ("calculator", "python_execute", "search")

PALETTE = {
    "solve": Role("", (), 2),
    "tool": Role("Use the calculator.", ("calculator",), 2),
    "check well": Role('Check "well".', (), 3),
}

texts = st.one_of(
    st.sampled_from(
        ["", "Solve it.", 'Say "so".\nThen {stop}.', "\\frac{1}{2}", "(", "a)b", "x=1;y=2", "数\u2028\x85", "\ud800"]
    ),
    st.text(max_size=20),
)
names = st.one_of(
    st.sampled_from(["a", "b", "solver", "Judge 1", 'q"t', "x3", "d#2", "é", "{a}", ""]), st.text(max_size=6)
)


def tasks() -> st.SearchStrategy[str | None]:
    """Templates that refer to nothing but the question: whatever the design, they are valid in it."""
    plain = texts.map(lambda text: text.replace("{", "<").replace("}", ">"))
    return st.one_of(st.none(), plain, plain.map(lambda text: text + "({question})"))


def agents(name: str) -> st.SearchStrategy[Agent]:
    """Agents called `name`: free ones, and ones of the palette."""
    free = st.builds(
        Agent,
        name=st.just(name),
        system_prompt=texts,
        tools=st.lists(st.sampled_from(TOOLS), max_size=2, unique=True).map(tuple),
        max_turns=st.integers(1, 20),
        task=tasks(),
    )
    bare = st.builds(
        lambda role, task: Agent(name, role.system_prompt, role.tools, role.max_turns, task),
        st.sampled_from(list(PALETTE.values())),
        tasks(),
    )
    return st.one_of(free, bare)


conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(st.builds(ir.Contains, texts, st.booleans()), st.just(ir.AnswerAgrees()), st.just(ir.VerdictAccepts())),
    lambda inner: st.one_of(
        st.builds(ir.Not, inner),
        st.builds(ir.AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(ir.AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=3,
)


@st.composite
def node_lists(draw: st.DrawFn, depth: int, most: int = 3) -> tuple[Node, ...]:
    """One to `most` nodes whose names differ."""
    count = draw(st.integers(1, most))
    drawn = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    return tuple(draw(nodes(name, depth)) for name in drawn)


@st.composite
def ensembles(draw: st.DrawFn, name: str, depth: int) -> ir.Ensemble:
    if draw(st.booleans()):
        first, count = draw(agents(name)), draw(st.integers(1, 4))
        rest = (
            Agent(f"{name}#{n}", first.system_prompt, first.tools, first.max_turns, first.task)
            for n in range(2, count + 1)
        )
        return ir.Ensemble(name, (first, *rest))
    members = draw(node_lists(depth))
    strategy = draw(st.sampled_from(["majority_vote", "weighted_vote", "consensus"]))
    judge = draw(names.flatmap(lambda judge: nodes(judge, depth)) if strategy == "consensus" else optional(depth))
    finite = st.floats(0, 1e300, allow_nan=False)
    weights = draw(st.one_of(st.none(), st.lists(finite, min_size=len(members), max_size=len(members)).map(tuple)))
    return ir.Ensemble(name, members, strategy, judge, weights)  # type: ignore[arg-type]


def optional(depth: int) -> st.SearchStrategy[Node | None]:
    """A node of any name, or none."""
    return st.one_of(st.none(), names.flatmap(lambda name: nodes(name, depth)))


def single(depth: int) -> st.SearchStrategy[Node]:
    """A node of any name."""
    return names.flatmap(lambda name: nodes(name, depth))


@st.composite
def routers(draw: st.DrawFn, name: str, depth: int) -> ir.Router:
    targets = draw(node_lists(depth))
    routes = draw(st.lists(names, min_size=len(targets), max_size=len(targets), unique=True))
    route = st.sampled_from(routes)
    rule = draw(
        st.one_of(
            st.lists(st.tuples(texts, route), max_size=3).map(lambda pairs: ir.KeywordRule(tuple(pairs))),
            st.lists(st.tuples(conditions, route), max_size=3).map(lambda pairs: ir.ConditionRule(tuple(pairs))),
            names.flatmap(agents).map(ir.AgentRule),
        )
    )
    return ir.Router(name, tuple(zip(routes, targets, strict=True)), rule, draw(st.one_of(st.none(), route)))


@st.composite
def graphs(draw: st.DrawFn, name: str, depth: int) -> ir.Graph:
    inner = draw(node_lists(depth))
    node = st.sampled_from([each.name for each in inner])
    edges = st.lists(st.builds(ir.Edge, node, node, st.one_of(st.none(), conditions)), max_size=4)
    finish = st.lists(node, max_size=2, unique=True)
    graph = ir.Graph(name, inner, tuple(draw(edges)), draw(node), tuple(draw(finish)), draw(st.integers(1, 50)))
    ends = steps_to_finish(graph).get(graph.entry, graph.max_steps + 1) <= graph.max_steps
    return graph if ends else dataclasses.replace(graph, finish=(graph.entry,))


@st.composite
def nodes(draw: st.DrawFn, name: str, depth: int) -> Node:
    """Any node called `name`, at most `depth` composites deep."""
    kind = draw(st.integers(0, 9)) if depth > 0 else 0
    depth -= 1
    rounds = st.integers(1, 10)
    match kind:
        case 0 | 1:
            return draw(agents(name))
        case 2:
            return draw(ensembles(name, depth))
        case 3:
            prompt = st.one_of(st.none(), texts)
            return ir.Reflection(
                name,
                draw(single(depth)),
                draw(optional(depth)),
                draw(rounds),
                draw(prompt),
                draw(prompt),
                draw(st.booleans()),
            )
        case 4:
            return ir.Debate(name, draw(node_lists(depth)), draw(optional(depth)), draw(rounds))
        case 5:
            return draw(routers(name, depth))
        case 6:
            return ir.Loop(name, draw(node_lists(depth)), draw(conditions), draw(rounds))
        case 7:
            return ir.Branch(name, draw(conditions), draw(node_lists(depth)))
        case 8:
            return draw(graphs(name, depth))
    return Workflow(name, draw(node_lists(depth)))


@st.composite
def workflows(draw: st.DrawFn, depth: int = 2) -> Workflow:
    """Valid workflows with any kinds of nodes; an agent that is a step may refer to those before it."""
    steps: list[Node] = []
    for step in draw(node_lists(depth)):
        known = [before.name for before in steps if before.name.isidentifier()]
        if isinstance(step, Agent) and known:
            places = draw(st.lists(st.sampled_from(known), max_size=2))
            step = dataclasses.replace(step, task=(step.task or "") + "".join(f" ({{{place}}})" for place in places))
        steps.append(step)
    return Workflow(draw(names), tuple(steps))
