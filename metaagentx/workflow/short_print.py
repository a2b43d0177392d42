"""How nodes and conditions are written in the short form: only what differs from the default is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from metaagentx.workflow import ir
from metaagentx.workflow.ir import Agent, Condition, Ensemble, Node, Role
from metaagentx.workflow.short_reader import is_raw, named, quoted

Palette = Mapping[str, Role]


def show_steps(steps: Sequence[Node], palette: Palette) -> str:
    """Steps in sequence, separated by semicolons."""
    return ";".join(show_node(step, palette) for step in steps)


def show_node(node: Node, palette: Palette) -> str:
    """`name=expression`."""
    return f"{named(node.name)}={_expression(node, palette)}"


def show_condition(condition: Condition) -> str:
    match condition:
        case ir.Contains(text, ignore_case):
            return f"{'mentions' if ignore_case else 'contains'}({quoted(text)})"
        case ir.AnswerAgrees():
            return "agrees"
        case ir.VerdictAccepts():
            return "accepts"
        case ir.Not(inner):
            return f"not({show_condition(inner)})"
        case ir.AllOf(inners):
            return f"all({','.join(map(show_condition, inners))})"
        case ir.AnyOf(inners):
            return f"any({','.join(map(show_condition, inners))})"


def _expression(node: Node, palette: Palette) -> str:
    match node:
        case Agent():
            return _agent(node, palette)
        case Ensemble(agents=agents) if _is_vote(node):
            first = agents[0]
            assert isinstance(first, Agent)
            return f"{_agent(first, palette)}x{len(agents)}"
        case Ensemble(_, agents, strategy, judge, weights):
            return _record(
                "vote",
                agents=_nodes(agents, palette),
                by=strategy if strategy != "majority_vote" else None,
                judge=_optional(judge, palette),
                weights=None if weights is None else _list(map(repr, map(float, weights))),
            )
        case ir.Reflection(_, agent, critic, iterations, critique, refine, history):
            return _record(
                "reflect",
                agent=show_node(agent, palette),
                critic=_optional(critic, palette),
                rounds=str(iterations) if iterations != 2 else None,
                critique=None if critique is None else quoted(critique),
                refine=None if refine is None else quoted(refine),
                history="yes" if history else None,
            )
        case ir.Debate(_, debaters, judge, rounds):
            return _record(
                "debate",
                debaters=_nodes(debaters, palette),
                judge=_optional(judge, palette),
                rounds=str(rounds) if rounds != 2 else None,
            )
        case ir.Router(_, routes, rule, default):
            return _record(
                "route",
                by=_rule(rule, palette),
                routes=_list(f"{named(route)}:{show_node(target, palette)}" for route, target in routes),
                default=None if default is None else named(default),
            )
        case ir.Loop(_, body, until, most):
            return _record(
                "loop", body=_nodes(body, palette), until=show_condition(until), most=str(most) if most != 5 else None
            )
        case ir.Branch(_, condition, body):
            return _record("branch", when=show_condition(condition), body=_nodes(body, palette))
        case ir.Graph(_, nodes, edges, entry, finish, steps):
            return _record(
                "graph",
                nodes=_nodes(nodes, palette),
                edges=_list(map(_edge, edges)) if edges else None,
                entry=named(entry),
                finish=_list(map(named, finish)),
                most=str(steps) if steps != 50 else None,
            )
        case ir.Workflow(_, steps):
            return _record("workflow", steps=_nodes(steps, palette))


def _agent(agent: Agent, palette: Palette) -> str:
    bare = Role(agent.system_prompt, agent.tools, agent.max_turns)
    role = next((name for name, role in palette.items() if role == bare), None)
    if role is not None:
        task = "" if agent.task is None else agent.task if is_raw(agent.task) else quoted(agent.task)
        return f"{named(role)}({task})"
    return _record(
        "agent",
        prompt=quoted(agent.system_prompt) if agent.system_prompt else None,
        tools=_list(map(named, agent.tools)) if agent.tools else None,
        turns=str(agent.max_turns) if agent.max_turns != 10 else None,
        task=None if agent.task is None else quoted(agent.task),
    )


def _is_vote(node: Ensemble) -> bool:
    """Whether an ensemble is the plain vote of equal agents that the suffix xK makes."""
    first = node.agents[0] if node.agents else None
    return isinstance(first, Agent) and node == Ensemble(
        node.name, equal_members(replace(first, name=node.name), len(node.agents))
    )


def equal_members(agent: Agent, count: int) -> tuple[Agent, ...]:
    """`count` agents alike, named name, name#2, name#3 and so on."""
    return (agent, *(replace(agent, name=f"{agent.name}#{number}") for number in range(2, count + 1)))


def _rule(rule: ir.KeywordRule | ir.ConditionRule | ir.AgentRule, palette: Palette) -> str:
    match rule:
        case ir.KeywordRule(keywords):
            return "keywords" + _list(f"{quoted(keyword)}>{named(route)}" for keyword, route in keywords)
        case ir.ConditionRule(cases):
            return "cases" + _list(f"{show_condition(condition)}>{named(route)}" for condition, route in cases)
        case ir.AgentRule(agent):
            return f"ask({show_node(agent, palette)})"


def _edge(edge: ir.Edge) -> str:
    condition = "" if edge.condition is None else f" if {show_condition(edge.condition)}"
    return f"{named(edge.source)}>{named(edge.target)}{condition}"


def _record(kind: str, **fields: str | None) -> str:
    return kind + "{" + ",".join(f"{key}:{value}" for key, value in fields.items() if value is not None) + "}"


def _list(items: Iterable[str]) -> str:
    return f"[{','.join(items)}]"


def _nodes(nodes: Sequence[Node], palette: Palette) -> str:
    return _list(show_node(node, palette) for node in nodes)


def _optional(node: Node | None, palette: Palette) -> str | None:
    return None if node is None else show_node(node, palette)
