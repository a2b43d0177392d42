"""The names of the surface that are not constructors: what a script finds bound, what it may import and call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaagentx.workflow.ir import AnswerAgrees, Condition, VerdictAccepts

QUESTION = "{question}"  # stands for the real question wherever a script uses it
ENVIRONMENTS = {"MathEnvironment", "SearchEnvironment", "CodeEnvironment"}
CONDITIONS: Mapping[str, Condition] = {"answer_agrees": AnswerAgrees(), "verdict_accepts": VerdictAccepts()}
MODULES: Mapping[str, frozenset[str]] = {
    "os": frozenset({"getenv", "environ", "path"}),
    "sys": frozenset({"exit", "path", "argv", "stdout", "stderr"}),
    "logging": frozenset({"getLogger", "basicConfig", "info", "debug", "warning", "error", "INFO", "DEBUG", "WARNING"}),
    "textwrap": frozenset({"dedent"}),
    **dict.fromkeys(("re", "json", "typing", "math", "time", "traceback", "collections", "asyncio"), frozenset[str]()),
}
IGNORED = {"print", "exit", "quit"}
FORBIDDEN = {
    *("exec", "eval", "compile", "open", "input", "breakpoint", "__import__", "getattr", "setattr", "delattr"),
    *("globals", "locals", "vars", "dir", "type", "object", "super", "memoryview", "classmethod", "staticmethod"),
}
NODE_METHODS: Mapping[str, set[str]] = {
    "Workflow": {"add_node", "add_nodes", "run"},
    "ConditionalWorkflow": {"add_node", "add_nodes", "run"},
    "LoopWorkflow": {"add_node", "add_nodes", "run", "set_loop_condition"},
    "AgentGraph": {
        *("add_node", "add_nodes", "run", "add_edge", "add_conditional_edges"),
        *("set_entry_point", "set_finish_point"),
    },
}


def asks(value: Any) -> bool:
    """Whether `value` is a text that holds the question, which is not known while a design is read."""
    return isinstance(value, str) and QUESTION in value
