"""Parts of a rollout as bytes and back: JSON and plain arrays, and of classes only those named here.

Nothing that is read can name code: replies of models travel in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx.hosts import everyones
from metaagentx.rollout.division import Division, Part
from metaagentx.rollout.scheduler import Spent
from metaagentx.rollout.trajectory import DesignRollout, Execution, Trajectory
from metaagentx.rollout.work import Work
from metaagentx.workflow import ir
from metaagentx.workflow.protocol import Message, Outcome, Reply, RunResult, ToolCall, ToolResult, Turn

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Part, Work, Spent, DesignRollout, Execution, Trajectory),
        *(RunResult, Turn, Message, Reply, ToolCall, ToolResult, Outcome),
        *(ir.Design, ir.Diagnosis, ir.Remark, ir.Refusal),
        *(ir.Agent, ir.Ensemble, ir.Reflection, ir.Debate, ir.Router, ir.Loop, ir.Branch, ir.Graph, ir.Workflow),
        *(ir.Edge, ir.KeywordRule, ir.ConditionRule, ir.AgentRule),
        *(ir.Contains, ir.AnswerAgrees, ir.VerdictAccepts, ir.Not, ir.AllOf, ir.AnyOf),
    )
}


def by_process() -> Division:
    """Every process of this program samples a part, and hears of the others'."""

    def exchange(find: Callable[[], Part]) -> list[Part]:
        return [decode(said) for said in everyones(lambda: encode(find()))]

    return Division(jax.process_index(), jax.process_count(), exchange)


def encode(part: Part) -> bytes:
    """A part as bytes. Raises TypeError where it holds anything that is not of `KINDS`, JSON or an array."""
    arrays: list[NDArray[Any]] = []
    text = json.dumps(_plain(part, arrays))  # ASCII, so that text which is no Unicode survives too
    file = io.BytesIO()
    np.savez(file, np.frombuffer(text.encode(), np.uint8), *arrays)
    return file.getvalue()


def decode(data: bytes) -> Part:
    """The part that `encode` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        text, *arrays = (file[f"arr_{number}"] for number in range(len(file.files)))
    part: Part = _typed(json.loads(text.tobytes()), arrays)
    return part


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """JSON: what JSON does not know is [kind, content]."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if isinstance(value, StrEnum):
        return [_known(value), str(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [type(value).__name__, [_plain(item, arrays) for item in value]]
    if is_dataclass(value):
        return [_known(value), {item.name: _plain(getattr(value, item.name), arrays) for item in fields(value)}]
    if isinstance(value, Mapping):
        return ["json", dict(value)]  # a tool's arguments: JSON as the model wrote it
    raise TypeError(f"a {type(value).__name__} has no place in a part of a rollout")


def _typed(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "array":
        return arrays[content]
    if kind == "json":
        return content
    if kind in ("list", "tuple"):
        items = [_typed(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if isinstance(content, dict):
        return KINDS[kind](**{name: _typed(item, arrays) for name, item in content.items()})
    return KINDS[kind](content)


def _known(value: Any) -> str:
    name = type(value).__name__
    if KINDS.get(name) is not type(value):
        raise TypeError(f"a {name} has no place in a part of a rollout")
    return name
