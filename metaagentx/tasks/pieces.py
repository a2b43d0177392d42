"""The pieces of the tiny tokenizers: everything that questions, designs, contexts and answers are written in."""

from __future__ import annotations

import string

from metaagentx.tasks.palette import DESIGNER_PROMPT, TINY_PALETTE
from metaagentx.tasks.teacher import TOOL_CALL
from metaagentx.tasks.team_teacher import ALONE_PROMPT, DELEGATIONS, MAIN_PROMPT

QUESTION_PHRASES = (
    "State the final answer to the following arithmetic problem: ",
    " =",
    "Find the Greatest Common Divisor (GCD) of these numbers: ",
    ". Give only the GCD as your final answer.",
    "Solve the following multiplication: ",
    ". Give only the result as your final answer.",
    "Spell this word backward (example: sun -> nus): ",
)
OPERATORS = (" + ", " - ", " * ", ", ")
ANSWERS = ("\\boxed{", "}", "gcd(", *TOOL_CALL)
DESIGNS = ("a=", "b=", "c=", "d=", ";", "solve(", "tool(", ")", "x3", "x5", "{a}", "{b}", "{c}", "{question}")
CONTEXT = (  # what the interpreter puts around earlier steps and tool results
    "\n\n",
    "[",
    "]:\n",
    "]: ",
    "(no reply)",
    "Now give your own solution.",
    "No more tools now. Give your final answer.",
    "Error",
    ": ",
)
CHARACTERS = ("-", *string.digits, *string.ascii_lowercase)

_NUMBERS = ("-", *string.digits)
# What a reply of either role can be made of: a design in the short form over numbers, an answer or a call of the tool.
REPLIES = {
    "designer": (*DESIGNS, *OPERATORS, *_NUMBERS),
    "executor": (*ANSWERS, ")", " * ", ", ", *CHARACTERS),
}


def pieces(kind: str) -> tuple[str, ...]:
    """The pieces of a kind of task."""
    return team_pieces() if kind == "compound" else tiny_pieces()


def team_pieces() -> tuple[str, ...]:
    """Every piece of a tiny team once."""
    prompts = (MAIN_PROMPT, ALONE_PROMPT, *(role.system_prompt for role in TINY_PALETTE.values()))
    return (*QUESTION_PHRASES, *prompts, *OPERATORS, *ANSWERS, *DELEGATIONS, ")", *CONTEXT, *CHARACTERS)


def tiny_pieces() -> tuple[str, ...]:
    """Every piece once. A tokenizer takes the longest piece that fits at each place."""
    prompts = (DESIGNER_PROMPT, *(role.system_prompt for role in TINY_PALETTE.values()))
    return (*QUESTION_PHRASES, *prompts, *OPERATORS, *ANSWERS, *DESIGNS, *CONTEXT, *CHARACTERS)
