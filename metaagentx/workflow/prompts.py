"""Everything an agent is told that no designer wrote, in one place, and how it is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metaagentx.workflow.context import Context, Said
from metaagentx.workflow.ir import Agent
from metaagentx.workflow.protocol import Delivery, Message
from metaagentx.workflow.room import Allowance
from metaagentx.workflow.template import QUESTION, fill


@dataclass(frozen=True, slots=True)
class Wording:
    """The interpreter's own words. Places in braces are filled; all other braces stay."""

    own_solution: str = "Now give your own solution."
    no_reply: str = "(no reply)"
    left_out: str = "(earlier steps left out)"
    judge: str = "The members above answered independently. Weigh their solutions and give the final one."
    debate: str = (
        "Above are the solutions of the last round, yours among them. Weigh them and give your updated solution."
    )
    debate_judge: str = "Above are the final solutions of a debate. Weigh them and give the final one."
    reflection: str = (
        "Check this solution step by step:\n\n{response}\n\n"
        "End with one line: VERDICT: CORRECT, or VERDICT: INCORRECT and what is wrong."
    )
    refinement: str = (
        "Your solution was:\n\n{response}\n\nThis was said about it:\n\n{reflection}\n\n"
        "Give an improved, complete solution."
    )
    route: str = "Which of these should go on: {routes}? Reply with one name."
    tools: str = (
        "You may call these tools:\n{tools}\nTo call one, write "
        '<tool_call>{"name": ..., "arguments": {...}}</tool_call> and wait for its result.'
    )
    tool_error: str = "Error: {error}"
    final: str = "No more tools now. Give your final answer."
    clipped: str = "\n... {count} characters left out ...\n"


def system_message(
    agent: Agent, question: str, delivery: Delivery, wording: Wording, tool_texts: Mapping[str, str]
) -> tuple[Message, ...]:
    """The agent's prompt, its tools where texts describe them, and how to deliver; nothing where all of it is empty.

    `{question}` in the prompt is the question: so a script's f-string means what it says.
    """
    known = [tool_texts[name] for name in agent.tools if name in tool_texts]
    tools = wording.tools.replace("{tools}", "\n".join(known)) if known else ""
    prompt = fill(agent.system_prompt, {QUESTION: question})
    text = "\n\n".join(part for part in (prompt, tools, delivery.instruction) if part)
    return (Message("system", text),) if text else ()


def user_message(agent: Agent, context: Context, delivery: Delivery, wording: Wording, allowance: Allowance) -> Message:
    """What the agent is asked.

    With a task: the task, answers spliced in, and neither the question nor other steps. Without: the question, then
    each earlier step's delivery, then the request for an own solution. Requests of a composite around it (to criticise,
    to judge) come last and stand in for that request. What others have said is shown as far as the allowance goes, the
    newest first; the question, the task and the requests themselves are always whole.
    """
    requests = [asked.filled(context.question, allowance.take) for asked in reversed(context.requests)][::-1]
    parts: list[str]
    if agent.task is not None:
        parts = [context.spliced(agent.task, allowance.take), *requests]
    else:
        shown = _shown(context.messages, delivery, wording, allowance)
        parts = [context.question, *shown, *(requests or ([wording.own_solution] if shown else []))]
    return Message("user", "\n\n".join(parts))


def block(said: Said, delivery: Delivery, wording: Wording) -> str:
    """One step as later agents see it."""
    if said.is_silent:
        return f"[{said.name}]: {wording.no_reply}"
    return f"[{said.name}]:\n{delivery.shorten(said.text)}"


def _shown(messages: tuple[Said, ...], delivery: Delivery, wording: Wording, allowance: Allowance) -> list[str]:
    """The newest steps that the allowance is enough for, oldest first; of the newest at least its ends."""
    blocks: list[str] = []
    left_out = False
    for said in reversed(messages):
        text = block(said, delivery, wording)
        if len(text) > allowance.left and (blocks or allowance.left <= 0):
            allowance.drop(text)
            left_out = True
        else:
            blocks.append(allowance.take(text))
    return [*([wording.left_out] if left_out else []), *reversed(blocks)]
