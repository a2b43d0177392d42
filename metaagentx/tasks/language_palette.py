"""The roles that a small language model may name in the short form, and what tells it of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from metaagentx.workflow.ir import Role

PALETTE: Mapping[str, Role] = MappingProxyType(
    {
        "solve": Role("Solve the problem step by step."),
        "plan": Role("Write a short plan for the problem. Do not solve it yet."),
        "code": Role("Solve the problem by writing a Python function."),
        "check": Role("Check the steps that are shown, then give the correct answer."),
        "calc": Role("Solve the problem with the calculator.", tools=("calculator",), max_turns=2),
    }
)
EXAMPLES = (
    "a=solve()",
    "a=solve()x3",
    "a=plan();b=solve()",
    "a=solve();b=check()",
    "a=calc(12 * 7);b=solve({a} + 5)",
)
SHORT_PROMPT = (
    "Design a workflow for the question: one line of steps name=role(task), separated by ;\n"
    "Roles: solve, plan (plans only), code (writes Python), check (checks earlier steps), calc (has a calculator).\n"
    "role() is asked the question. role(task) is asked the task instead, where {a} is the answer of step a. "
    "x3 takes the vote of three. The last step answers.\n"
    "Examples:\n" + "\n".join(EXAMPLES)
)
