"""What a run has cost and what was said in it, kept apart for each parallel branch so that order cannot matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from metaagentx.workflow.protocol import Call, Outcome, Process, Reply, ToolCall, ToolCalls, ToolResult, Turn

SPENT = ToolResult("this run may make no more tool calls; go on without", ok=False)


@dataclass(slots=True)
class Ledger:
    """The account of one generator: its budget of calls, its counts, its turns in the order in which it took them."""

    budget: int  # model calls
    tool_budget: int
    calls: int = 0
    tool_calls: int = 0
    refused_tool_calls: int = 0
    tokens: int = 0
    turns: list[Turn] = field(default_factory=list)
    conversations: int = 0
    forks: int = 0

    def new_conversation(self) -> int:
        self.conversations += 1
        return self.conversations - 1

    def new_axis(self) -> str:
        """A name for the next fork that this generator has not used before."""
        self.forks += 1
        return "member" if self.forks == 1 else f"member#{self.forks}"

    def ask(self, call: Call, left_out: int) -> Process[Reply]:
        """Sample one reply, if the budget allows it, and record the turn, with what its messages had no room for."""
        reply = Reply("", Outcome.OVER_BUDGET)
        if self.calls < self.budget:
            reply = yield call
            self.calls += 1
            self.tokens += reply.tokens
        self.turns.append(Turn(call.agent, call.messages, reply, left_out=left_out))
        return reply

    def use_tools(self, calls: Sequence[ToolCall]) -> Process[tuple[ToolResult, ...]]:
        """Run as many of the tools as the budget allows, side by side; results in the order of the calls."""
        allowed = tuple(calls[: self.tool_budget - self.tool_calls])
        results: tuple[ToolResult, ...] = yield ToolCalls(allowed)
        refused = len(calls) - len(allowed)
        self.tool_calls += len(allowed)
        self.refused_tool_calls += refused
        return (*results, *(SPENT,) * refused)

    def record_tools(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> None:
        """Add tool calls and their results to the last turn."""
        self.turns[-1] = replace(self.turns[-1], tool_calls=tuple(calls), tool_results=tuple(results))

    def split(self, most: Sequence[int], most_tools: Sequence[int]) -> tuple[Ledger, ...]:
        """An account for each of several parallel branches, by the most calls of models and of tools each can make.

        The shares depend on nothing that happens while the branches run. So the bounds hold for a whole run, and yet
        no branch is refused because another was quicker.
        """
        shares = _shares(self.budget - self.calls, most)
        tool_shares = _shares(self.tool_budget - self.tool_calls, most_tools)
        return tuple(Ledger(*both) for both in zip(shares, tool_shares, strict=True))

    def absorb(self, branches: Sequence[Ledger]) -> None:
        """Take over what finished branches cost and said, in the order of the branches."""
        for branch in branches:
            self.calls += branch.calls
            self.tool_calls += branch.tool_calls
            self.refused_tool_calls += branch.refused_tool_calls
            self.tokens += branch.tokens
            self.turns.extend(branch.turns)


def _shares(left: int, most: Sequence[int]) -> list[int]:
    """`left` shared evenly; what a branch cannot need goes to the others, so what suffices for all starves none."""
    shares = [0] * len(most)
    for done, index in enumerate(sorted(range(len(most)), key=lambda index: most[index])):
        shares[index] = min(most[index], -(-left // (len(most) - done)))
        left -= shares[index]
    return shares
