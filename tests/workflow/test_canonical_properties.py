"""On generated designs: what no run could show keeps the key, and every other change gives another."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.canonical import key
from metaagentx.workflow.check import check
from metaagentx.workflow.conditions import constant
from tests.workflow.strategies import workflows

LIMITS = ir.Limits(agents=10**6, model_calls=10**9, iterations=99, steps=99, turns=99)


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to every record in it, the inner ones first."""
    if isinstance(value, tuple):
        return tuple(rebuilt(part, change) for part in value)
    if is_dataclass(value):
        return change(replace(value, **{f.name: rebuilt(getattr(value, f.name), change) for f in fields(value)}))
    return value


def respelled(text: str | None, draw: random.Random) -> Any:
    """Other white space, and another case of the letters whose case folds back in every alphabet."""
    if text is None:
        return None
    words = text.split()
    return draw.choice((" ", "\n", " \t ")).join(
        "".join(letter.swapcase() if letter.isascii() else letter for letter in word) for word in words
    )


def immaterial(draw: random.Random) -> Callable[[Any], Any]:
    """Changes that no run could show."""

    def change(node: Any) -> Any:
        match node:
            case ir.Agent():
                tools = (*node.tools[::-1], *node.tools[:1])
                turns = node.max_turns if tools else draw.randint(1, 20)
                return replace(node, system_prompt=respelled(node.system_prompt, draw), tools=tools, max_turns=turns)
            case ir.Reflection():
                node = replace(
                    node,
                    critic=node.critic or node.agent,
                    reflection_prompt=respelled(node.reflection_prompt, draw),
                    refinement_prompt=respelled(node.refinement_prompt, draw),
                )
            case ir.Debate():
                node = replace(node, judge=node.judge or node.debaters[0])
            case ir.Ensemble(strategy="weighted_vote", weights=None):
                node = replace(node, weights=(1.0,) * len(node.agents))
            case ir.Ensemble() if node.strategy != "weighted_vote":
                node = replace(node, weights=None)
            case ir.Workflow():
                steps = (ir.Workflow(step.name, (step,)) if draw.random() < 0.5 else step for step in node.steps)
                node = replace(node, steps=tuple(steps))
            case ir.Graph():
                node = replace(node, finish=node.finish[::-1])
        return node

    return change


def changed(node: Any, draw: random.Random) -> Any:
    """`node` with one thing changed that a run could show."""
    extra = ir.Agent("another one", "zq")
    options: list[dict[str, Any]]
    match node:
        case ir.Agent():
            options = [{"system_prompt": node.system_prompt + " zq"}, {"task": (node.task or "") + " zq"}]
            options.append({"tools": (*node.tools, "zq")})
            options += [{"max_turns": node.max_turns + 1}] if node.tools else []
        case ir.Ensemble():
            options = [
                {"agents": (*node.agents, extra), "weights": None},
                {"judge": replace(extra, system_prompt="zz")},
            ]
            if node.strategy == "weighted_vote":
                options.append({"weights": tuple(w + 1 for w in node.weights or (1.0,) * len(node.agents))})
        case ir.Reflection():
            options = [{"iterations": node.iterations + 1}, {"include_history": not node.include_history}]
            options.append({"critic": extra})
            options.append({"reflection_prompt": None if node.reflection_prompt is not None else "zq"})
            options.append({"refinement_prompt": (node.refinement_prompt or "") + " zq"})
        case ir.Debate():
            options = [{"rounds": node.rounds + 1}, {"judge": extra}, {"debaters": (*node.debaters, extra)}]
        case ir.Router():
            options = [{"routes": (*node.routes, ("another route", extra))}]
            options.append({"default": None if node.default is not None else node.routes[0][0]})
        case ir.Loop():
            options = [{"max_iterations": node.max_iterations + 1}, {"until": ir.Not(node.until)}]
            options.append({"body": (*node.body, extra)})
        case ir.Branch():
            options = [{"condition": ir.Not(node.condition)}, {"body": (*node.body, extra)}]
        case ir.Graph():
            options = [{"max_steps": node.max_steps + 1}, {"nodes": (*node.nodes, extra)}]
            options.append({"edges": (*node.edges, ir.Edge(node.entry, node.entry, ir.Contains("zq")))})
        case ir.Workflow():
            options = [{"steps": (*node.steps, extra)}, {"steps": (extra, *node.steps)}]
        case ir.Contains():
            options = [{"text": node.text + "zq"}, {"ignore_case": not node.ignore_case}]
        case ir.AllOf() | ir.AnyOf():
            options = [{"conditions": (*node.conditions, ir.Contains("zq"))}]
        case ir.Edge():
            options = [{"condition": ir.Contains("zq") if node.condition is None else ir.Not(node.condition)}]
        case ir.KeywordRule():
            options = [{"keywords": tuple((word + "zq", route) for word, route in node.keywords)}]
        case _:
            return node
    return replace(node, **draw.choice(options))


@settings(max_examples=40, deadline=None)
@given(workflows(), st.randoms(use_true_random=False))
def test_what_no_run_could_show_keeps_the_key(workflow: ir.Workflow, draw: random.Random) -> None:
    assume(check(workflow, LIMITS) is None)
    assert key(rebuilt(workflow, immaterial(draw))) == key(workflow)


@settings(max_examples=80, deadline=None)
@given(workflows(), st.randoms(use_true_random=False))
def test_any_single_change_that_a_run_could_show_changes_the_key(workflow: ir.Workflow, draw: random.Random) -> None:
    assume(check(workflow, LIMITS) is None)
    count, decided = 0, False

    def number(value: Any) -> Any:
        nonlocal count, decided
        count += 1
        decided |= isinstance(value, ir.Condition) and constant(value) is not None
        return value

    rebuilt(workflow, number)
    assume(not decided)  # what stands beside a condition that is always true or false may show in no run
    wanted, count = draw.randrange(count), 0

    def change(value: Any) -> Any:
        nonlocal count
        count += 1
        return changed(value, draw) if count - 1 == wanted else value

    other = rebuilt(workflow, change)
    assume(other != workflow)
    assert key(other) != key(workflow)
