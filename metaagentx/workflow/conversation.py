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
    """Run the calls of one reply in order; what went wrong is told like a result."""
    ran: list[ToolCall] = []
    results: list[ToolResult] = []
    messages: list[Message] = []
    for call in calls:
        if isinstance(call, Malformed):
            result = ToolResult(call.error, ok=False)
        elif call.name not in agent.tools:
            result = ToolResult(f"there is no tool {call.name[:100]!r}; there is {', '.join(agent.tools)}", ok=False)
        else:
            result = yield from ledger.use_tool(call)
            ran.append(call)
            results.append(result)
        text = result.text if result.ok else setting.wording.tool_error.replace("{error}", result.text)
        messages.append(Message("tool", text))
    ledger.record_tools(ran, results)
    return tuple(messages)
