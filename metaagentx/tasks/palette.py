"""The roles that a tiny designer may name, what its calculator can do, and what a tiny designer itself is told."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from metaagentx.workflow.ir import Role

DESIGNER_PROMPT = "Design a workflow."
TINY_OPERATIONS = frozenset({"gcd", "*"})  # all that the calculator of the tiny setting can do
TINY_PALETTE: Mapping[str, Role] = MappingProxyType(
    {
        "solve": Role(system_prompt="Solve."),
        "tool": Role(system_prompt="Use the calculator.", tools=("calculator",), max_turns=2),
    }
)
