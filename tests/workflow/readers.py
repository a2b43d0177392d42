"""Everything that reads what a model wrote, each as a function that says what is wrong with its own result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metaagentx.tasks.answers import BoxedDelivery, SolutionDelivery, TaggedDelivery
from metaagentx.tasks.palette import TINY_PALETTE
from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.canonical import key
from metaagentx.workflow.check import check
from metaagentx.workflow.ir import Design, Diagnosis, Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script
from metaagentx.workflow.short import parse_short, print_short
from metaagentx.workflow.tool_calls import read_tool_calls
from metaagentx.workflow.verdict import accepts
from tests.workflow.scripts import ACCEPTED, TOOLS
from tests.workflow.test_script import REFUSED

PUBLISHED = Path(__file__).parent / "published"
LIMITS = Limits()

Reader = Callable[[str], str]
"""Reads a text; returns what is wrong with the result, "" if nothing. Whatever it raises is a fault too."""


def corpus_texts() -> list[str]:
    """Accepted and refused scripts, short forms and replies."""
    scripts = [script for script, *_ in (*ACCEPTED.values(), *REFUSED.values()) if len(script) < 8000]
    scripts += [path.read_text(encoding="utf-8").split("\n=> ")[0] for path in sorted(PUBLISHED.rglob("*.txt"))]
    shorts = [print_short(workflow) for _, workflow in ACCEPTED.values()]
    return [*scripts, *shorts, *REPLIES]


REPLIES = (
    'Let me see.\n<tool_call>{"name": "calculator", "arguments": {"expression": "1 + 1"}}</tool_call>',
    '<tool_call>{"function": {"name": "search", "arguments": "{\\"query\\": \\"x\\"}"}}</tool_call>',
    "<think>hm</think><delivery>2 + 2</delivery> so \\boxed{\\frac{4}{1}} and $1,000.50$.\nVERDICT: INCORRECT",
    "<answer>Paris</answer>\n<solution>\n```python\ndef f(x):\n    return x\n```\n</solution>",
    "```python\nprint(1)\n```\nThis is not quite correct. **Verdict**: accepted",
    "a=solve(4 - 1);b=solve({a} - 7)x3;c=tool(gcd(26, 38))",
)


def _wrong(result: object, text: str) -> str:
    """What is wrong with the outcome of a reading."""
    if isinstance(result, Diagnosis):
        if not result.message or len(result.message) > 500:
            return f"a message of {len(result.message)} characters"
        if result.line < 1 or result.column < 1 or result.line > text.count("\n") + text.count("\r") + 2:
            return f"a diagnosis at {result.line}:{result.column}"
        return ""
    return "" if isinstance(result, Design) else f"a {type(result).__name__}"


def read_script(text: str) -> str:
    return _wrong(parse_script(text, LIMITS, TOOLS), text)


def read_response(text: str) -> str:
    return _wrong(parse_response(text, limits=LIMITS, tools=TOOLS, palette=TINY_PALETTE), text)


def read_short(text: str) -> str:
    return _wrong(parse_short(text, limits=LIMITS, tools=TOOLS, palette=TINY_PALETTE), text)


def read_reply(text: str) -> str:
    """Everything that is read from an agent's reply."""
    for delivery in (BoxedDelivery("", 200), TaggedDelivery("", 200), SolutionDelivery("", 200)):
        answer = delivery.extract(text)
        if len(delivery.shorten(text)) > 200:
            return "a shortened text that is too long"
        if answer is not None:
            once = delivery.normalise(answer)
            if delivery.normalise(once) != once:
                return f"{once[:80]!r} is no normal form"
        read_tool_calls(text, "a", ("calculator", "python_execute"), delivery.extract)
    return "" if accepts(text) in (True, False, None) else "no verdict"


def keep_meaning(text: str) -> str:
    """A script that is accepted means a workflow that is within its limits, prints, and reads back."""
    result = parse_script(text, LIMITS, TOOLS)
    if not isinstance(result, Design):
        return ""
    workflow = result.workflow
    fault = check(workflow, LIMITS)
    if fault is not None or bounds(workflow).model_calls > LIMITS.model_calls:
        return f"an accepted design that is refused: {fault}"
    line = print_short(workflow)
    back = parse_short(line, palette={}, limits=LIMITS, tools=TOOLS)
    if back != Design(workflow) and len(line) <= 65536:
        return f"a short form that reads back as {back!r:.300}"
    return "" if key(workflow) == key(workflow) else "two keys"


READERS: dict[str, Reader] = {
    "script": read_script,
    "response": read_response,
    "short": read_short,
    "reply": read_reply,
    "meaning": keep_meaning,
}
TIMED = ("script", "response", "short", "reply")
