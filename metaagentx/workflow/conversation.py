"""One agent at work: a single reply, or a conversation with tools."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaagentx.workflow.context import Context, Said, after_thinking
from metaagentx.workflow.ir import Agent
from metaagentx.workflow.ledger import Ledger
from metaagentx.workflow.prompts import Wording, system_message, user_message
from metaagentx.workflow.protocol import Call, Delivery, Message, Process, Reply, ToolCall, ToolResult
from metaagentx.workflow.room import Allowance, Messages, Room, shorten_together, widest
from metaagentx.workflow.tool_calls import Malformed, read_tool_calls

_ALL = sys.maxsize  # characters: nothing is left out


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same throughout one run."""

    delivery: Delivery
    wording: Wording
    role: str
    tool_texts: Mapping[str, str]
    room: Room

    def said(self, name: str, reply: Reply) -> Said:
        return Said.of(name, reply, self.delivery.extract(after_thinking(reply.text)) if reply.text else None)


def converse(agent: Agent, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    """Ask the agent; run the tools that it calls; after `max_turns` replies ask once for the answer without tools."""
    conversation = ledger.new_conversation()
    messages, left_out = _opening(agent, context, setting)
    used = setting.room.begin(messages)
    turns = agent.max_turns if agent.tools else 0
    for turn in range(turns + 1):
        reply = yield from ledger.ask(Call(setting.role, agent.name, messages, conversation, turn), left_out)
        last = turn == turns
        text = after_thinking(reply.text)
        calls = () if last else read_tool_calls(text, agent.name, agent.tools, setting.delivery.extract)
        if not calls:
            break
        told = yield from _use_tools(agent, calls, setting, ledger)
        messages, left_out = _answered(reply, told, turn + 1 == turns, used, setting)
        used += setting.room.extend(reply, messages)
    return setting.said(agent.name, reply)


def _opening(agent: Agent, context: Context, setting: Setting) -> tuple[Messages, int]:
    """The first messages, with as much of what others said as there is room for; the characters left out."""
    delivery, wording, room = setting.delivery, setting.wording, setting.room
    system = system_message(agent, context.question, delivery, wording, setting.tool_texts)

    def build(most: int) -> tuple[Messages, Allowance]:
        allowance = Allowance(most, wording.clipped)
        return (*system, user_message(agent, context, delivery, wording, allowance)), allowance

    messages, allowance = build(_ALL)
    if room.begin(messages) > room.longest:
        messages, allowance = build(widest(lambda most: room.begin(build(most)[0]) <= room.longest, allowance.shown))
    return messages, allowance.left_out


def _answered(reply: Reply, results: Sequence[str], final: bool, used: int, setting: Setting) -> tuple[Messages, int]:
    """What follows a reply that called tools, and the characters of their results that are left out.

    Results that do not fit are shortened alike: to all the room there is before the final turn, else to half of it, so
    that the conversation can go on.
    """
    wording, room = setting.wording, setting.room
    request = (Message("user", wording.final),) if final else ()

    def build(most: int) -> tuple[Messages, int]:
        texts, left_out = shorten_together(results, most, wording.clipped)
        return (*(Message("tool", text) for text in texts), *request), left_out

    whole = build(_ALL)
    if used + room.extend(reply, whole[0]) <= room.longest:
        return whole
    free = room.longest - used - room.extend(reply, request)
    most = room.extend(reply, request) + (free if final else free // 2)
    return build(widest(lambda length: room.extend(reply, build(length)[0]) <= most, max(map(len, results))))


def _use_tools(
    agent: Agent, calls: tuple[ToolCall | Malformed, ...], setting: Setting, ledger: Ledger
) -> Process[list[str]]:
    """Run the calls of one reply side by side and tell of them in order; what went wrong is told like a result."""
    checked = [_check(call, agent) for call in calls]
    sound = [call for call in checked if isinstance(call, ToolCall)]
    ran = yield from ledger.use_tools(sound)
    ledger.record_tools(sound, ran)
    results = iter(ran)
    told = [next(results) if isinstance(call, ToolCall) else ToolResult(call.error, ok=False) for call in checked]
    return [each.text if each.ok else setting.wording.tool_error.replace("{error}", each.text) for each in told]


def _check(call: ToolCall | Malformed, agent: Agent) -> ToolCall | Malformed:
    """The call, or what is wrong with it: the agent must have the tool."""
    if isinstance(call, Malformed) or call.name in agent.tools:
        return call
    return Malformed(f"there is no tool {call.name[:100]!r}; there is {', '.join(agent.tools)}")
