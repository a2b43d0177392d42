"""The roles that a small language model may name in the short form, and what tells it of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_PROMPT = (
    "Design a workflow for the question: one line of steps name=role(task), separated by ;\n"
    "Roles: solve, plan (plans only), code (writes Python), check (checks earlier steps), calc (has a calculator)"
    "{more}.\n"
    "role() is asked the question. role(task) is asked the task instead, where {{a}} is the answer of step a. "
    "x3 takes the vote of three. The last step answers.\n"
    "Examples:\n{examples}"
)


def palette(tools: Sequence[str]) -> Mapping[str, Role]:
    """The roles where agents may call `tools`: those that no other role has go to a role of their own, `use`."""
    more = _more(tools)
    return {**PALETTE, "use": Role("Solve the problem with your tools.", more, max_turns=4)} if more else PALETTE


def short_prompt(tools: Sequence[str]) -> str:
    """A designer's system prompt where there are these tools."""
    more = f", use (has {', '.join(_more(tools))})" if _more(tools) else ""
    return _PROMPT.format(more=more, examples="\n".join(EXAMPLES))


def _more(tools: Sequence[str]) -> tuple[str, ...]:
    had = {tool for role in PALETTE.values() for tool in role.tools}
    return tuple(tool for tool in tools if tool not in had)
