"""The language that designers write in, as one rollout uses it: roles, tools, limits, wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metaagentx.workflow.canonical import key
from metaagentx.workflow.ir import Design, Diagnosis, Limits, Role, Workflow
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.short import parse_short, print_short
from metaagentx.workflow.texts import texts


@dataclass(frozen=True, slots=True)
class Language:
    """How a designer's response becomes a workflow, and what its agents are told."""

    palette: Mapping[str, Role]  # roles that a short form may name
    tools: frozenset[str]  # tools that exist
    limits: Limits  # what a design may cost
    wording: Wording  # what agents are told beside the design's and the task's words
    tool_texts: Mapping[str, str]  # a tool's description, shown to agents that have it

    def read(self, response: str) -> Design | Diagnosis:
        """A designer's response: a script or a short form."""
        return parse_response(response, palette=self.palette, limits=self.limits, tools=self.tools)

    def read_fixed(self, text: str) -> Design:
        """A design that the configuration gives, in the short form. A ValueError says what is wrong with it."""
        parsed = parse_short(text, palette=self.palette, limits=self.limits, tools=self.tools)
        if isinstance(parsed, Diagnosis):
            raise ValueError(f"tree.fixed_design {text!r}, column {parsed.column}: {parsed.message}")
        return parsed

    def show(self, workflow: Workflow) -> str:
        """The one-line form."""
        return print_short(workflow, self.palette)

    def texts(self, workflow: Workflow) -> str:
        """All that a design says to its agents in its designer's own words."""
        return "\n".join(texts(workflow, {role.system_prompt for role in self.palette.values()}))

    def key(self, workflow: Workflow) -> str:
        """Equal for designs that differ in immaterial ways alone."""
        return key(workflow)
