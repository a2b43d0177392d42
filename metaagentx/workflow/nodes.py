"""How each kind of node runs. A node's message carries the node's own name, whatever ran inside it.

Every function is a process that returns what the node said, or None where nothing ran (a branch not taken).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from metaagentx.workflow.bounds import bounds, live_edges, parts, steps_to_finish
from metaagentx.workflow.conditions import holds
from metaagentx.workflow.context import Context, Said
from metaagentx.workflow.conversation import Setting, converse
from metaagentx.workflow.ir import (
    Agent,
    AgentRule,
    Branch,
    ConditionRule,
    Debate,
    Edge,
    Ensemble,
    Graph,
    KeywordRule,
    Loop,
    Node,
    Reflection,
    Router,
    Workflow,
)
from metaagentx.workflow.ledger import Ledger
from metaagentx.workflow.protocol import Fork, Process
from metaagentx.workflow.template import fill
from metaagentx.workflow.tool_calls import MOST_CALLS
from metaagentx.workflow.verdict import accepts
from metaagentx.workflow.votes import is_split, tally, winner


def run_node(node: Node, context: Context, setting: Setting, ledger: Ledger) -> Process[Said | None]:
    """Run one node after what has been said."""
    said: Said | None
    match node:
        case Agent():
            said = yield from converse(node, context, setting, ledger)
        case Ensemble():
            said = yield from _ensemble(node, context, setting, ledger)
        case Reflection():
            said = yield from _reflection(node, context, setting, ledger)
        case Debate():
            said = yield from _debate(node, context, setting, ledger)
        case Router():
            said = yield from _router(node, context, setting, ledger)
        case Loop():
            said = yield from _loop(node, context, setting, ledger)
        case Branch():
            taken = holds(node.condition, context, setting.delivery)
            said = (yield from _sequence(node.body, context, setting, ledger))[0] if taken else None
        case Graph():
            said = yield from _graph(node, context, setting, ledger)
        case Workflow():
            said = (yield from _sequence(node.steps, context, setting, ledger))[0]
    return None if said is None else replace(said, name=node.name)


def _speak(node: Node, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    """Run a node whose message is needed: one that runs nothing is silent."""
    said = yield from run_node(node, context, setting, ledger)
    return Said.silent(node.name) if said is None else said


def _sequence(
    nodes: Sequence[Node], context: Context, setting: Setting, ledger: Ledger
) -> Process[tuple[Said | None, Context]]:
    """Run nodes one after the other; returns the last message and the context after it."""
    last: Said | None = None
    for node in nodes:
        said = yield from run_node(node, context, setting, ledger)
        if said is not None:
            last, context = said, context.after(said)
    return last, context


def _together(nodes: Sequence[Node], context: Context, setting: Setting, ledger: Ledger) -> Process[tuple[Said, ...]]:
    """Run nodes side by side on the same context."""
    most = [bounds(Workflow("", (node,))).model_calls for node in nodes]
    most_tools = [calls * MOST_CALLS * has_tools(node) for calls, node in zip(most, nodes, strict=True)]
    ledgers = ledger.split(most, most_tools)
    branches = tuple(_speak(node, context, setting, branch) for node, branch in zip(nodes, ledgers, strict=True))
    said: tuple[Said, ...] = yield Fork(branches, ledger.new_axis())
    ledger.absorb(ledgers)
    return said


def has_tools(node: Node) -> bool:
    """Whether an agent in it may call tools. A node that occurs in several places is looked at once."""
    seen, left = {id(node)}, [node]
    while left:
        here = left.pop()
        if isinstance(here, Agent) and here.tools:
            return True
        new = [part for part in parts(here) if id(part) not in seen]
        seen.update(map(id, new))
        left += new
    return False


def _ensemble(node: Ensemble, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    said = yield from _together(node.agents, context, setting, ledger)
    answers = [member.answer for member in said]
    weights = node.weights if node.strategy == "weighted_vote" else None
    normalise = setting.delivery.normalise
    asks_judge = node.strategy == "consensus" or is_split(tally(answers, weights, normalise))
    if node.judge is not None and asks_judge:
        heard = context.after(*said).asking(setting.wording.judge)
        return (yield from _speak(node.judge, heard, setting, ledger))
    index = winner(answers, weights, normalise)
    if index is None:
        return next((member for member in said if not member.is_silent), said[0])
    return said[index]


def _reflection(node: Reflection, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    critic = node.critic or node.agent
    answer = yield from _speak(node.agent, context, setting, ledger)
    past = context
    for _ in range(node.iterations):
        request = node.reflection_prompt or setting.wording.reflection
        critique = yield from _criticise(critic, request, past, answer, None, setting, ledger)
        if accepts(critique.text):
            break
        request = node.refinement_prompt or setting.wording.refinement
        refined = yield from _criticise(node.agent, request, past, answer, critique, setting, ledger)
        if node.include_history:
            past = _append(past, answer, critique)
        if refined.is_silent:
            continue
        same = _same(answer, refined, setting)
        answer = refined
        if same:
            break
    return answer


def _criticise(
    node: Node, request: str, context: Context, answer: Said, critique: Said | None, setting: Setting, ledger: Ledger
) -> Process[Said]:
    """Ask for a critique of `answer`, or with a critique for a refinement.

    What the request has no place for is shown as a message, so that no critic judges what it cannot see.
    """
    silence = setting.wording.no_reply
    material = {"response": answer.text or silence}
    if "{response}" not in request:
        context = _append(context, answer)
    if critique is not None:
        material = {"reflection": critique.text or silence, **material}  # the newest first
        if "{reflection}" not in request:
            context = _append(context, critique)
    return (yield from _speak(node, context.asking(request, **material), setting, ledger))


def _append(context: Context, *said: Said) -> Context:
    """The context with messages added beside any earlier ones of the same names."""
    return replace(context, messages=context.messages + said)


def _same(before: Said, after: Said, setting: Setting) -> bool:
    """Whether an answer stopped changing: by what was extracted, else by the text without white space and case."""
    if before.answer is not None and after.answer is not None:
        return setting.delivery.normalise(before.answer) == setting.delivery.normalise(after.answer)
    return " ".join(before.text.casefold().split()) == " ".join(after.text.casefold().split())


def _debate(node: Debate, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    said = yield from _together(node.debaters, context, setting, ledger)
    for _ in range(node.rounds - 1):
        heard = context.after(*said).asking(setting.wording.debate)
        said = yield from _together(node.debaters, heard, setting, ledger)
    heard = context.after(*said).asking(setting.wording.debate_judge)
    return (yield from _speak(node.judge or node.debaters[0], heard, setting, ledger))


def _router(node: Router, context: Context, setting: Setting, ledger: Ledger) -> Process[Said | None]:
    routes = dict(node.routes)
    choice: str | None = None
    match node.rule:
        case KeywordRule(keywords):
            latest = context.latest.casefold()
            choice = next((route for keyword, route in keywords if keyword.casefold() in latest), None)
        case ConditionRule(cases):
            choice = next((route for case, route in cases if holds(case, context, setting.delivery)), None)
        case AgentRule(agent):
            request = fill(setting.wording.route, {"routes": ", ".join(routes)})
            said = yield from converse(agent, context.asking(request), setting, ledger)
            choice = _named(said, tuple(routes))
    choice = node.default if choice is None else choice
    return None if choice is None else (yield from run_node(routes[choice], context, setting, ledger))


def _named(said: Said, routes: tuple[str, ...]) -> str | None:
    """The route that a reply names: its answer, else the name that it mentions last (the longest of these)."""
    exact = {route.casefold(): route for route in routes}
    for text in (said.answer, said.text):
        if text is not None and text.strip().casefold() in exact:
            return exact[text.strip().casefold()]
    best: tuple[int, int, str] | None = None
    for route in routes:
        for match in re.finditer(rf"(?<!\w){re.escape(route)}(?!\w)", said.text, re.IGNORECASE):
            best = max(best or (-1, 0, ""), (match.end(), len(route), route))
    return best[2] if best else None


def _loop(node: Loop, context: Context, setting: Setting, ledger: Ledger) -> Process[Said | None]:
    context = context.fresh()
    last: Said | None = None
    for _ in range(node.max_iterations):
        said, context = yield from _sequence(node.body, context, setting, ledger)
        last = said or last
        if holds(node.until, context, setting.delivery):
            break
    return last


def _graph(node: Graph, context: Context, setting: Setting, ledger: Ledger) -> Process[Said | None]:
    """Walk the graph; an edge counts only while a finish can still be reached from its target in the steps left."""
    context = context.fresh()
    nodes = {each.name: each for each in node.nodes}
    edges, needed = live_edges(node), steps_to_finish(node)
    last: Said | None = None
    here: str | None = node.entry
    left = node.max_steps
    while here is not None:
        said = yield from run_node(nodes[here], context, setting, ledger)
        if said is not None:
            last, context = said, context.after(said)
        left -= 1
        reachable = (edge for edge in edges[here] if needed.get(edge.target, left + 1) <= left)
        here = next((edge.target for edge in reachable if _open(edge, context, setting)), None)
    return last


def _open(edge: Edge, context: Context, setting: Setting) -> bool:
    return edge.condition is None or holds(edge.condition, context, setting.delivery)
