"""From a designer's response to a design: what the rest of the program calls."""

from __future__ import annotations

import re
from collections.abc import Mapping

from metaagentx.workflow.extract import MAX_RESPONSE, candidates, without_thinking
from metaagentx.workflow.ir import Design, Diagnosis, Limits, Refusal, Role
from metaagentx.workflow.script import parse_script
from metaagentx.workflow.short import parse_short

_SHORT = re.compile(r"\s*(?:[\w#]{1,200}\s*:\s*)?[\w#]{1,200}\s*=")  # how a short form begins


def parse_response(
    text: str, *, limits: Limits, tools: frozenset[str], palette: Mapping[str, Role]
) -> Design | Diagnosis:
    """The design that a response holds, or why it is refused. Never raises, whatever the text.

    A response with neither `<code>` nor a fence nor an import of `workflow` is read as the short form, if it begins as
    one does. Else the first candidate that gives a design wins; if none does, the first candidate's diagnosis stands.
    limits: what a design may cost. tools: the tools that exist. palette: the roles that the short form may name.
    """
    size = len(text.encode(errors="replace"))
    if size > MAX_RESPONSE:
        return Diagnosis(Refusal.TOO_LONG, f"the response has {size} bytes; at most {MAX_RESPONSE} are allowed")
    text = without_thinking(text)
    if not text.strip():
        return Diagnosis(Refusal.NO_CODE, "the response holds no design; write one in <code> ... </code>")
    scripts = candidates(text)
    if not scripts:
        if "<code>" in text.lower() or "```" in text:
            return Diagnosis(Refusal.NO_CODE, "the response's code blocks are empty; write a design in them")
        short = parse_short(text.strip(), palette=palette, limits=limits, tools=tools)
        if isinstance(short, Design) or _SHORT.match(text):
            return short
        return Diagnosis(Refusal.NO_CODE, "the response holds no design; write one in <code> ... </code>")

    first: Diagnosis | None = None
    for script in scripts:
        result = _read(script, limits, tools, palette)
        if isinstance(result, Design):
            return result
        first = first or result
    assert first is not None
    return first


def _read(script: str, limits: Limits, tools: frozenset[str], palette: Mapping[str, Role]) -> Design | Diagnosis:
    """One candidate, a script or, where it imports nothing, perhaps the short form."""
    result = parse_script(script, limits, tools)
    if isinstance(result, Design) or "import" in script:
        return result
    short = parse_short(script.strip(), palette=palette, limits=limits, tools=tools)
    return short if isinstance(short, Design) or "\n" not in script.strip() else result
