"""One agent at work: a single reply, or a conversation with tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metaagentx.workflow.context import Context, Said
from metaagentx.workflow.ir import Agent
from metaagentx.workflow.ledger import Ledger
from metaagentx.workflow.prompts import Wording, system_message, user_message
from metaagentx.workflow.protocol import Call, Delivery, Message, Process, Reply, ToolCall, ToolResult
from metaagentx.workflow.tool_calls import Malformed, read_tool_calls


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same throughout one run."""

    delivery: Delivery
    wording: Wording
    role: str
    tool_texts: Mapping[str, str]

    def said(self, name: str, reply: Reply) -> Said:
        return Said.of(name, reply, self.delivery.extract(reply.text) if reply.text else None)


def converse(agent: Agent, context: Context, setting: Setting, ledger: Ledger) -> Process[Said]:
    """Ask the agent; run the tools that it calls; after `max_turns` replies ask once for the answer without tools."""
    conversation = ledger.new_conversation()
    messages = (
        *system_message(agent, setting.delivery, setting.wording, setting.tool_texts),
        user_message(agent, context, setting.delivery, setting.wording),
    )
    turns = agent.max_turns if agent.tools else 0
    for turn in range(turns + 1):
        last = turn == turns
        if last and turn > 0:
            messages = (*messages, Message("user", setting.wording.final))
        reply = yield from ledger.ask(Call(setting.role, agent.name, messages, conversation, turn))
        calls = () if last else read_tool_calls(reply.text, agent.name, agent.tools, setting.delivery.extract)
        if not calls:
            break
        messages = yield from _use_tools(agent, calls, setting, ledger)
    return setting.said(agent.name, reply)


def _use_tools(
    agent: Agent, calls: tuple[ToolCall | Malformed, ...], setting: Setting, ledger: Ledger
) -> Process[tuple[Message, ...]]:
    """Run the calls of one reply side by side and tell of them in order; what went wrong is told like a result."""
    checked = [_check(call, agent) for call in calls]
    sound = [call for call in checked if isinstance(call, ToolCall)]
    ran = yield from ledger.use_tools(sound)
    ledger.record_tools(sound, ran)
    results = iter(ran)
    told = [next(results) if isinstance(call, ToolCall) else ToolResult(call.error, ok=False) for call in checked]
    error = setting.wording.tool_error
    return tuple(Message("tool", each.text if each.ok else error.replace("{error}", each.text)) for each in told)


def _check(call: ToolCall | Malformed, agent: Agent) -> ToolCall | Malformed:
    """The call, or what is wrong with it: the agent must have the tool."""
    if isinstance(call, Malformed) or call.name in agent.tools:
        return call
    return Malformed(f"there is no tool {call.name[:100]!r}; there is {', '.join(agent.tools)}")
