"""What a run has cost and what was said in it, kept apart for each parallel branch so that order cannot matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from metaagentx.workflow.protocol import Call, Outcome, Process, Reply, ToolCall, ToolCalls, ToolResult, Turn


@dataclass(slots=True)
class Ledger:
    """The account of one generator: its budget of calls, its counts, its turns in the order in which it took them."""

    budget: int
    calls: int = 0
    tool_calls: int = 0
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

    def ask(self, call: Call) -> Process[Reply]:
        """Sample one reply, if the budget allows it, and record the turn."""
        reply = Reply("", Outcome.OVER_BUDGET)
        if self.calls < self.budget:
            reply = yield call
            self.calls += 1
            self.tokens += reply.tokens
        self.turns.append(Turn(call.agent, call.messages, reply))
        return reply

    def use_tools(self, calls: Sequence[ToolCall]) -> Process[tuple[ToolResult, ...]]:
        """Run tools side by side; their results in the order of the calls."""
        results: tuple[ToolResult, ...] = (yield ToolCalls(tuple(calls))) if calls else ()
        self.tool_calls += len(calls)
        return results

    def record_tools(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> None:
        """Add tool calls and their results to the last turn."""
        self.turns[-1] = replace(self.turns[-1], tool_calls=tuple(calls), tool_results=tuple(results))

    def split(self, most: Sequence[int]) -> tuple[Ledger, ...]:
        """An account for each of several parallel branches, which make at most `most` calls each.

        What is left is shared evenly, and what a branch cannot need goes to the others: a budget that suffices for all
        starves none. The shares depend on nothing that happens while the branches run.
        """
        left = self.budget - self.calls
        shares = [0] * len(most)
        for done, index in enumerate(sorted(range(len(most)), key=lambda index: most[index])):
            shares[index] = min(most[index], -(-left // (len(most) - done)))
            left -= shares[index]
        return tuple(Ledger(share) for share in shares)

    def absorb(self, branches: Sequence[Ledger]) -> None:
        """Take over what finished branches cost and said, in the order of the branches."""
        for branch in branches:
            self.calls += branch.calls
            self.tool_calls += branch.tool_calls
            self.tokens += branch.tokens
            self.turns.extend(branch.turns)
