"""The short form: a whole design on one line. The grammar is in docs/short_form.md.

a=solve(4 - 1);b=solve({a} - 7)x3
"""

from __future__ import annotations

from collections.abc import Mapping

from metaagentx.workflow.ir import Design, Diagnosis, Limits, Refusal, Role, Workflow
from metaagentx.workflow.short_kinds import KINDS
from metaagentx.workflow.short_nodes import DEFAULT_NAME, NodeReader
from metaagentx.workflow.short_print import show_steps
from metaagentx.workflow.short_reader import Refused, named

LONGEST = 65536  # characters of a short form


def parse_short(text: str, *, palette: Mapping[str, Role], limits: Limits, tools: frozenset[str]) -> Design | Diagnosis:
    """Read a short form. Total and in linear time: whatever the text says, the result is a design or a diagnosis.

    Args:
      text: one line, at most 65,536 characters; white space at its end does not count.
      palette: roles that may be named without writing their prompts.
      limits: what a design may cost at most.
      tools: the tools that exist; others are left out with a remark.

    Returns:
      The design, or why it is refused and in which column.
    """
    if len(text) > LONGEST:
        message = f"a short form has at most {LONGEST} characters, not {len(text)}"
        return Diagnosis(Refusal.TOO_LONG, message, 1, LONGEST + 1)
    reader = NodeReader(text.rstrip(), KINDS, palette, limits, tools)
    try:
        workflow = reader.design()
    except Refused as refused:
        return refused.diagnosis
    return Design(workflow, tuple(reader.remarks))


def print_short(workflow: Workflow, palette: Mapping[str, Role] | None = None) -> str:
    """The one-line form of a workflow; `parse_short` with the same palette reads it back to the same workflow."""
    header = "" if workflow.name == DEFAULT_NAME else named(workflow.name) + ":"
    return header + show_steps(workflow.steps, palette or {})
