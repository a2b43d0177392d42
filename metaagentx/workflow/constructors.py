"""The constructors of the surface: their keywords, and what each accepts."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from metaagentx.workflow.decisions import read_cases
from metaagentx.workflow.drafts import Draft, Function, Registry
from metaagentx.workflow.ir import Condition, Limits, Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.values import Values

STRATEGIES = ("majority_vote", "weighted_vote", "consensus")
NODE_KEYWORDS = {
    "agents",
    "consensus_agent",
    "agent",
    "critic_agent",
    "debaters",
    "judge",
    "routes",
    "keyword_routes",
    "default_node",
    "routing_agent",
}
# Keywords of the published constructors that have no meaning here.
IGNORED = (
    *("ai_client", "tokenizer", "server_address", "ppo_trainer_config", "enable_thinking"),
    *("enable_conversation_logging", "model", "model_name", "temperature", "top_p", "max_tokens", "api_key"),
    *("base_url", "timeout", "verbose", "logger", "description", "metadata", "config"),
)


@dataclass(frozen=True, slots=True)
class Argument:
    """A keyword's value and where it stands."""

    value: Any
    at: ast.expr


Check = Callable[[Argument, str, Limits], Any]


def text(argument: Argument, what: str, limits: Limits) -> str:
    if not isinstance(argument.value, str):
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a string", argument.at)
    return argument.value


def name(argument: Argument, what: str, limits: Limits) -> str:
    if not text(argument, what, limits).strip():
        raise Refused(Refusal.BAD_VALUE, f"{what} must not be empty", argument.at)
    return text(argument, what, limits)


def flag(argument: Argument, what: str, limits: Limits) -> bool:
    if not isinstance(argument.value, bool):
        raise Refused(Refusal.BAD_VALUE, f"{what} must be True or False", argument.at)
    return argument.value


def strategy(argument: Argument, what: str, limits: Limits) -> str:
    if not isinstance(argument.value, str) or argument.value not in STRATEGIES:
        raise Refused(Refusal.BAD_VALUE, f"{what} must be one of {', '.join(STRATEGIES)}", argument.at)
    return argument.value


def count(most: Callable[[Limits], int]) -> Check:
    """A whole number from 1 to a limit."""

    def check(argument: Argument, what: str, limits: Limits) -> int:
        value = argument.value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Refused(Refusal.BAD_VALUE, f"{what} must be a whole number from 1 to {most(limits)}", argument.at)
        if value > most(limits):
            raise Refused(Refusal.TOO_LARGE, f"{what} is {value}; at most {most(limits)} is allowed", argument.at)
        return value

    return check


def registry(argument: Argument, what: str, limits: Limits) -> Registry:
    if not isinstance(argument.value, Registry):
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a ToolRegistry()", argument.at)
    return argument.value


def node(argument: Argument, what: str, limits: Limits) -> Draft:
    if not isinstance(argument.value, Draft):
        if isinstance(argument.at, ast.Name):
            raise Refused(
                Refusal.UNBOUND_AGENT, f"{argument.at.id!r} is not bound to a node; build it before", argument.at
            )
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a node", argument.at)
    return argument.value


def agent(argument: Argument, what: str, limits: Limits) -> Draft:
    if node(argument, what, limits).kind != "AgentNode":
        raise Refused(Refusal.BAD_VALUE, f"{what} must be an AgentNode", argument.at)
    return node(argument, what, limits)


def nodes(argument: Argument, what: str, limits: Limits) -> tuple[Draft, ...]:
    if not isinstance(argument.value, list | tuple):
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a list of nodes", argument.at)
    return tuple(node(part, f"each of {what}", limits) for part in _elements(argument, argument.value))


def members(argument: Argument, what: str, limits: Limits) -> tuple[Draft, ...]:
    found = nodes(argument, what, limits)
    if not found:
        raise Refused(Refusal.EMPTY_ENSEMBLE, f"{what} is empty; give at least one node", argument.at)
    return found


def routes(argument: Argument, what: str, limits: Limits) -> dict[str, Draft]:
    if not isinstance(argument.value, dict) or not argument.value:
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a dictionary from names to nodes, not empty", argument.at)
    values = argument.at.values if isinstance(argument.at, ast.Dict) else []
    found: dict[str, Draft] = {}
    for index, (key, value) in enumerate(argument.value.items()):
        at = values[index] if len(values) == len(argument.value) else argument.at
        if not isinstance(key, str) or not key:
            raise Refused(Refusal.BAD_VALUE, f"every key of {what} must be a string, not empty", at)
        found[key] = node(Argument(value, at), f"each of {what}", limits)
    return found


def weights(argument: Argument, what: str, limits: Limits) -> list[Any] | tuple[Any, ...] | dict[Any, Any]:
    value = argument.value
    if isinstance(value, list | tuple | dict):
        numbers = list(value.values()) if isinstance(value, dict) else list(value)
        if all(isinstance(number, int | float) and isfinite(number) and number >= 0 for number in numbers):
            return value
    raise Refused(
        Refusal.BAD_VALUE, f"{what} must be a list of numbers, none negative, one for each member", argument.at
    )


def function(argument: Argument, what: str, limits: Limits) -> Argument:
    if not isinstance(argument.value, Function):
        raise Refused(Refusal.BAD_VALUE, f"{what} must be a lambda or def that returns a route's name", argument.at)
    return argument


def _elements(argument: Argument, value: list[Any] | tuple[Any, ...]) -> list[Argument]:
    """The elements of a list, each where it stands if the list was written out here."""
    written = argument.at.elts if isinstance(argument.at, ast.List | ast.Tuple) else []
    places = written if len(written) == len(value) else [argument.at] * len(value)
    return [Argument(part, at) for part, at in zip(value, places, strict=True)]


TABLE: Mapping[str, Mapping[str, Check]] = {
    "AgentNode": {
        "name": name,
        "system_prompt": text,
        "tool_registry": registry,
        "max_turns": count(lambda limits: limits.turns),
        "task": text,
    },
    "EnsembleNode": {
        "name": name,
        "agents": members,
        "strategy": strategy,
        "consensus_agent": node,
        "weights": weights,
    },
    "ReflectionNode": {
        "name": name,
        "agent": node,
        "num_iterations": count(lambda limits: limits.iterations),
        "critic_agent": node,
        "reflection_prompt": text,
        "refinement_prompt": text,
        "include_history": flag,
    },
    "DebateNode": {
        "name": name,
        "debaters": members,
        "judge": node,
        "num_rounds": count(lambda limits: limits.iterations),
    },
    "RouterNode": {
        "name": name,
        "routes": routes,
        "routing_func": function,
        "routing_agent": agent,
        "default_route": text,
    },
    "create_keyword_router": {"name": name, "keyword_routes": routes, "default_node": node},
    "Workflow": {"name": name},
    "ConditionalWorkflow": {"name": name},
    "LoopWorkflow": {"name": name, "max_iterations": count(lambda limits: limits.iterations)},
    "AgentGraph": {"name": name, "max_steps": count(lambda limits: limits.steps)},
}
_NEEDED = {
    "AgentNode": ("name",),
    "EnsembleNode": ("name", "agents"),
    "ReflectionNode": ("name", "agent"),
    "DebateNode": ("name", "debaters"),
    "RouterNode": ("name", "routes"),
    "create_keyword_router": ("name", "keyword_routes"),
}
_DEFAULT_NAMES = {
    "Workflow": "workflow",
    "ConditionalWorkflow": "conditional_workflow",
    "LoopWorkflow": "loop_workflow",
    "AgentGraph": "agent_graph",
}


def construct(
    kind: str,
    given: Iterable[tuple[str, Argument]],
    call: ast.Call,
    order: int,
    limits: Limits,
    values: Values,
) -> Draft:
    """The node that `kind(**given)` builds; `None` for a keyword means that it was left out."""
    fields: dict[str, Any] = {}
    arguments: dict[str, Argument] = {}
    for keyword, argument in given:
        arguments[keyword] = argument
        if argument.value is None and keyword not in _NEEDED.get(kind, ()):
            continue
        fields[keyword] = TABLE[kind][keyword](argument, f"{keyword} of {kind}", limits)
    for keyword in _NEEDED.get(kind, ()):
        if keyword not in fields:
            raise Refused(Refusal.BAD_VALUE, f"{kind} needs {keyword}=...", call)
    fields.setdefault("name", _DEFAULT_NAMES.get(kind))
    match kind:
        case "EnsembleNode":
            _finish_ensemble(fields, arguments, call)
        case "RouterNode":
            _finish_router(fields, arguments, call, values)
    return Draft(kind, fields, call, order)


def _finish_ensemble(fields: dict[str, Any], arguments: Mapping[str, Argument], call: ast.Call) -> None:
    if fields.get("strategy") == "consensus" and "consensus_agent" not in fields:
        raise Refused(Refusal.MISSING_JUDGE, "strategy 'consensus' needs consensus_agent=...", call)
    given = fields.pop("weights", None)
    if given is not None:
        if isinstance(given, dict):
            given = [given[draft.name] for draft in fields["agents"] if draft.name in given]
        if len(given) != len(fields["agents"]):
            raise Refused(Refusal.BAD_VALUE, "weights must hold one number for each member", arguments["weights"].at)
        fields["weights"] = tuple(float(weight) for weight in given)


def _finish_router(
    fields: dict[str, Any],
    arguments: Mapping[str, Argument],
    call: ast.Call,
    values: Values,
) -> None:
    known = fields["routes"]
    if ("routing_func" in fields) == ("routing_agent" in fields):
        raise Refused(Refusal.BAD_VALUE, "RouterNode needs routing_func=... or routing_agent=..., one of the two", call)
    if "default_route" in fields and fields["default_route"] not in known:
        raise Refused(Refusal.UNKNOWN_TARGET, _no_route(fields["default_route"], known), arguments["default_route"].at)
    if "routing_func" in fields:
        argument = fields.pop("routing_func")
        fields["cases"], otherwise = read_routes(argument.value, argument.at, values, known)
        if otherwise is not None:
            fields["default_route"] = otherwise


def read_routes(
    value: Any, at: ast.AST, values: Values, known: Mapping[str, Any]
) -> tuple[tuple[tuple[Condition, str], ...], str | None]:
    """The routes that a function chooses, each with its condition, and the one it takes otherwise."""
    cases: list[tuple[Condition, str]] = []
    for case in read_cases(value, at, values):
        route = values.read(case.returns)
        if not isinstance(route, str) or route not in known:
            raise Refused(Refusal.UNKNOWN_TARGET, _no_route(route, known), case.returns)
        if case.condition is None:
            return tuple(cases), route
        cases.append((case.condition, route))
    return tuple(cases), None


def _no_route(route: Any, known: Mapping[str, Any]) -> str:
    shown = repr(route) if isinstance(route, str) else "this"
    return f"{shown[:80]} is no route; the routes are {', '.join(map(repr, list(known)[:8]))}"
