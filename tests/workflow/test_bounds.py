"""Static bounds are exact: some run takes as much, none takes more."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.bounds import Bounds, bounds
from metaagentx.workflow.check import check
from tests.workflow.strategies import workflows

Cost = tuple[int, int, int]  # agent calls, model calls, longest chain


def chain(*costs: Cost) -> Cost:
    return (sum(c[0] for c in costs), sum(c[1] for c in costs), sum(c[2] for c in costs))


def abreast(costs: tuple[Cost, ...]) -> Cost:
    return (sum(c[0] for c in costs), sum(c[1] for c in costs), max((c[2] for c in costs), default=0))


def runs(node: ir.Node) -> set[Cost]:
    """What every possible run of `node` costs: each choice that a reply could make is tried."""
    match node:
        case ir.Agent():
            return {(1, n, n) for n in range(1, node.max_turns + 2)} if node.tools else {(1, 1, 1)}
        case ir.Ensemble():
            members = {abreast(costs) for costs in product(*map(runs, node.agents))}
            if node.judge is None or (len(node.agents) == 1 and node.strategy != "consensus"):
                return members
            judged = {chain(*pair) for pair in product(members, runs(node.judge))}
            return judged if node.strategy == "consensus" else judged | members
        case ir.Reflection():
            answers, critics = runs(node.agent), runs(node.critic or node.agent)
            found, latest = set(answers), answers
            for _ in range(node.iterations):
                criticised = {chain(*pair) for pair in product(latest, critics)}
                latest = {chain(*pair) for pair in product(criticised, answers)}
                found |= criticised | latest
            return found
        case ir.Debate():
            rounds = {abreast(costs) for costs in product(*map(runs, node.debaters))}
            every = {chain(*costs) for costs in product(rounds, repeat=node.rounds)}
            return {chain(*pair) for pair in product(every, runs(node.judge or node.debaters[0]))}
        case ir.Router():
            routes = {cost for _, route in node.routes for cost in runs(route)} | {(0, 0, 0)}
            if not isinstance(node.rule, ir.AgentRule):
                return routes
            return {chain(*pair) for pair in product(runs(node.rule.agent), routes)}
        case ir.Loop():
            once = in_turn(node.body)
            return {chain(*costs) for n in range(1, node.max_iterations + 1) for costs in product(once, repeat=n)}
        case ir.Branch():
            return in_turn(node.body) | {(0, 0, 0)}
        case ir.Graph():
            return walks(node)
        case ir.Workflow():
            return in_turn(node.steps)


def in_turn(steps: tuple[ir.Node, ...]) -> set[Cost]:
    return {chain(*costs) for costs in product(*map(runs, steps))}


def walks(graph: ir.Graph) -> set[Cost]:
    """Every walk from the entry that ends at its first finish within `max_steps`."""
    cost = {node.name: runs(node) for node in graph.nodes}
    found: set[Cost] = set()

    def go(name: str, before: Cost, left: int) -> None:
        if left == 0:
            return
        for here in cost[name]:
            total = chain(before, here)
            if name in graph.finish:
                found.add(total)
                continue
            for edge in graph.edges:
                if edge.source == name:
                    go(edge.target, total, left - 1)
                    if edge.condition is None:
                        break

    go(graph.entry, (0, 0, 0), graph.max_steps)
    return found


agents = st.builds(ir.Agent, st.just("a"), tools=st.sampled_from([(), ("calculator",)]), max_turns=st.integers(1, 2))


def composites(inner: st.SearchStrategy[ir.Node]) -> st.SearchStrategy[ir.Node]:
    """Small composites of every kind: brute force has to try all their runs."""
    some = st.lists(inner, min_size=1, max_size=2).map(tuple)
    maybe = st.none() | agents
    few = st.integers(1, 2)
    strategy = st.sampled_from(["majority_vote", "weighted_vote"])
    routes = some.map(lambda nodes: tuple((f"r{n}", node) for n, node in enumerate(nodes)))
    by_agent = st.builds(ir.AgentRule, agents)
    return st.one_of(
        st.builds(ir.Ensemble, st.just("e"), some, strategy, maybe),
        st.builds(ir.Ensemble, st.just("e"), some, st.just("consensus"), agents),
        st.builds(ir.Reflection, st.just("r"), inner, maybe, few),
        st.builds(ir.Debate, st.just("d"), some, maybe, few),
        st.builds(ir.Router, st.just("o"), routes, by_agent),
        routes.map(lambda pairs: ir.Router("o", pairs, ir.KeywordRule(tuple((name, name) for name, _ in pairs)))),
        st.builds(ir.Loop, st.just("l"), some, st.just(ir.AnswerAgrees()), few),
        st.builds(ir.Branch, st.just("b"), st.just(ir.AnswerAgrees()), some),
        st.builds(ir.Workflow, st.just("w"), some),
    )


@st.composite
def graphs(draw: st.DrawFn) -> ir.Graph:
    names = ["p", "q", "s"]
    turns = [draw(st.integers(1, 3)) for _ in names]
    nodes = tuple(ir.Workflow(name, (ir.Agent("a"),) * count) for name, count in zip(names, turns, strict=True))
    name = st.sampled_from(names)
    condition = st.none() | st.just(ir.AnswerAgrees())
    edges = draw(st.lists(st.builds(ir.Edge, name, name, condition), max_size=6))
    finish = draw(st.lists(name, min_size=1, max_size=2, unique=True))
    return ir.Graph("g", nodes, tuple(edges), draw(name), tuple(finish), draw(st.integers(1, 6)))


def worst(costs: set[Cost]) -> Bounds:
    columns = tuple(zip(*costs, strict=True)) or ((0,), (0,), (0,))
    return Bounds(*map(max, columns))


@settings(max_examples=80, deadline=None)
@given(composites(agents))
def test_bounds_equal_the_worst_of_all_runs(node: ir.Node) -> None:
    workflow = ir.Workflow("w", (node,))
    assert bounds(workflow) == worst(runs(workflow))


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        ir.Loop,
        st.just("l"),
        st.tuples(composites(st.just(ir.Agent("a")))),
        st.just(ir.AnswerAgrees()),
        st.integers(1, 2),
    )
)
def test_bounds_of_nested_composites_equal_the_worst_of_all_runs(node: ir.Node) -> None:
    assert bounds(ir.Workflow("w", (node,))) == worst(runs(node))


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_bounds_of_a_graph_equal_its_longest_walk_to_a_finish(graph: ir.Graph) -> None:
    assert bounds(ir.Workflow("w", (graph,))) == worst(walks(graph))


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_a_graph_is_refused_exactly_when_no_walk_finishes(graph: ir.Graph) -> None:
    fault = check(ir.Workflow("w", (graph,)), ir.Limits())
    assert (fault is None) == bool(walks(graph))


@settings(max_examples=20, deadline=None)
@given(workflows())
def test_what_passes_the_check_stays_within_its_limits(workflow: ir.Workflow) -> None:
    limits = ir.Limits(model_calls=100)
    if check(workflow, limits) is None:
        cost = bounds(workflow)
        assert cost.agent_calls <= cost.model_calls <= 100
        assert cost.critical_path <= cost.model_calls


def test_an_agent_with_tools_has_one_forced_final_turn() -> None:
    agent = ir.Agent("a", tools=("calculator",), max_turns=3)
    assert bounds(ir.Workflow("w", (agent,))) == Bounds(1, 4, 4)


def test_nodes_shared_a_million_times_are_computed_and_refused_at_once() -> None:
    node: ir.Node = ir.Agent("a")
    for level in range(14):
        node = ir.Workflow(f"w{level}", (node,) * 10)
    workflow = ir.Workflow("w", (node,))
    assert bounds(workflow).agent_calls == 10**14
    fault = check(workflow, ir.Limits())
    assert fault is not None
    assert fault.refusal == "too_large"


def test_nodes_nested_too_deep_are_refused_also_where_they_are_shared() -> None:
    node: ir.Node = ir.Agent("a")
    for level in range(10):
        node = ir.Workflow(f"w{level}", (node,))
    deeper: ir.Node = node
    for level in range(8):
        deeper = ir.Workflow(f"v{level}", (deeper,))
    fault = check(ir.Workflow("w", (node, deeper)), ir.Limits())
    assert fault is not None
    assert fault.refusal == "too_large"
