"""Whole episodes as JSON, for `episodes.jsonl`: a question, its designs, and every word of their executions.

It is enough to run an execution again: `workflow_of` its design and `turns_of` it, with `workflow.replay.run_again`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from metaagentx.rollout.trajectory import DesignRollout, Execution, Tree
from metaagentx.workflow import ir
from metaagentx.workflow.ir import Design, Diagnosis
from metaagentx.workflow.protocol import Message, Outcome, Reply, ToolCall, ToolResult, Turn


def to_json(value: Any) -> Any:
    """A workflow or any other frozen dataclass as nested JSON: {"type": class name, field: value}."""
    if is_dataclass(value):
        return {"type": type(value).__name__} | {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, StrEnum):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} has no place in a workflow")


_KINDS = {
    kind.__name__: kind
    for kind in (
        *(ir.Agent, ir.Ensemble, ir.Reflection, ir.Debate, ir.Router, ir.Loop, ir.Branch, ir.Graph, ir.Workflow),
        *(ir.Edge, ir.KeywordRule, ir.ConditionRule, ir.AgentRule),
        *(ir.Contains, ir.AnswerAgrees, ir.VerdictAccepts, ir.Not, ir.AllOf, ir.AnyOf),
    )
}


def workflow_of(design: Mapping[str, Any]) -> ir.Workflow | None:
    """The workflow of a design in an episode; None where it was refused. The inverse of `to_json`."""
    workflow: ir.Workflow | None = _from_json(design["workflow"])
    return workflow


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        given = {name: _from_json(field) for name, field in value.items() if name != "type"}
        return _KINDS[value["type"]](**given)
    return tuple(map(_from_json, value)) if isinstance(value, list) else value


def turns_of(execution: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of an execution in an episode, as its `RunResult` held them."""
    return tuple(map(_turn_of, execution["turns"]))


def _turn_of(turn: Mapping[str, Any]) -> Turn:
    return Turn(
        turn["agent"],
        tuple(Message(**message) for message in turn["messages"]),
        Reply(turn["reply"], Outcome(turn["outcome"]), turn["tokens"]),
        tuple(ToolCall(**call, agent=turn["agent"]) for call in turn["tool_calls"]),
        tuple(ToolResult(**result) for result in turn["tool_results"]),
        turn["left_out"],
    )


def episode(
    tree: Tree,
    *,
    step: int,
    phase: str,
    design_advantages: Sequence[float] | None = None,
    execution_advantages: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """One question with all its designs and executions.

    Args:
      design_advantages: [M], one a design; None where nothing was trained.
      execution_advantages: [M][N], one an execution of each design.
    """
    designs = tree.designs
    by_design = design_advantages if design_advantages is not None else [None] * len(designs)
    by_execution = execution_advantages if execution_advantages is not None else [None] * len(designs)
    if not len(by_design) == len(by_execution) == len(designs):
        raise ValueError(f"advantages for {len(by_design)} and {len(by_execution)} designs, but {len(designs)} designs")
    return {
        "step": step,
        "phase": phase,
        "question": {"id": tree.question.id, "kind": tree.question.kind, "prompt": tree.question.prompt},
        "designs": [
            _design(design, advantage, advantages)
            for design, advantage, advantages in zip(designs, by_design, by_execution, strict=True)
        ],
    }


def _design(design: DesignRollout, advantage: float | None, advantages: Sequence[float] | None) -> dict[str, Any]:
    by_execution = advantages if advantages is not None else [None] * len(design.executions)
    if len(by_execution) != len(design.executions):
        raise ValueError(f"{len(by_execution)} advantages, but {len(design.executions)} executions")
    parsed = design.parsed
    return {
        "text": design.text,
        "short": design.short,
        "valid": design.valid,
        "diagnosis": to_json(parsed) if isinstance(parsed, Diagnosis) else None,
        "workflow": to_json(parsed.workflow) if isinstance(parsed, Design) else None,
        "outcome": str(design.outcome),
        "masked": design.masked,
        "reward": float(design.reward),
        "advantage": _number(advantage),
        "executions": [_execution(run, a) for run, a in zip(design.executions, by_execution, strict=True)],
    }


def _execution(execution: Execution, advantage: float | None) -> dict[str, Any]:
    result = execution.result
    return {
        "reward": float(execution.reward),
        "correct": float(execution.correct),
        "advantage": _number(advantage),
        "masked": execution.masked,
        "outcome": str(result.outcome),
        "answer": result.answer,
        "calls": result.calls,
        "tokens": result.tokens,
        "turns": [turn_record(turn) for turn in result.turns],
    }


def turn_record(turn: Turn) -> dict[str, Any]:
    """One turn: what the agent was shown, its reply, its tools and what they gave."""
    return {
        "agent": turn.agent,
        "messages": [{"role": message.role, "content": message.content} for message in turn.messages],
        "reply": turn.reply.text,
        "outcome": str(turn.reply.outcome),
        "tokens": turn.reply.tokens,
        "tool_calls": [{"name": call.name, "arguments": dict(call.arguments)} for call in turn.tool_calls],
        "tool_results": [{"text": result.text, "ok": result.ok} for result in turn.tool_results],
        "left_out": turn.left_out,
    }


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
