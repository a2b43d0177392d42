"""The recorded trees: what is asked, in which order, and how many tokens each reply has.

A call of `workloads/tree.json` belongs to a question, a design and an execution (-1: the design itself). Those of one
place come in rounds: the next begins when all of the last have been answered, an execution's first when its design has.
A prompt is the text that follows what was said in its conversation so far; the reply that precedes it is the one that
this very run sampled, so contestants see prompts of equal lengths, and nobody gains or loses by what it writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.pretrained_tokenizer import read_tokenizer

FILE = Path(__file__).parent / "workloads" / "tree.json"
Place = tuple[int, int, int]  # question, design, execution


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call."""

    number: int
    place: Place
    round: int
    conversation: int
    role: str
    text: tuple[int, ...]  # ids of what its prompt adds to the conversation
    reply: int  # tokens
    last: bool  # of its conversation: else a tool works for it next


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that can be made now."""

    call: Call
    prompt: tuple[int, ...]


def read_workload(questions: int, shrink: float) -> list[Call]:
    """The calls of the first `questions` trees, with replies `shrink` times as short."""
    recorded = json.loads(FILE.read_text(encoding="utf-8"))
    tokenizer = read_tokenizer(find_smollm2())
    texts = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in recorded["texts"]]
    chosen = [found for found in recorded["calls"] if found["question"] < questions]
    last = {found["conversation"]: number for number, found in enumerate(chosen)}
    return [
        Call(
            number=number,
            place=(found["question"], found["design"], found["execution"]),
            round=found["round"],
            conversation=found["conversation"],
            role=found["role"],
            text=texts[found["text"]],
            reply=max(1, round(found["reply"] / shrink)),
            last=last[found["conversation"]] == number,
        )
        for number, found in enumerate(chosen)
    ]


def prompt_lengths(calls: Iterable[Call]) -> list[int]:
    """Tokens of each call's prompt."""
    said: dict[int, int] = {}
    lengths = []
    for call in calls:
        lengths.append(said.get(call.conversation, 0) + len(call.text))
        said[call.conversation] = lengths[-1] + call.reply
    return lengths


class Replay:
    """Says which calls can be made, and hears what was replied: `answered`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._rounds: dict[tuple[Place, int], list[Call]] = {}
        for call in calls:
            self._rounds.setdefault((call.place, call.round), []).append(call)
        self._left = {key: len(found) for key, found in self._rounds.items()}
        self.answered: list[tuple[Asked, tuple[int, ...]]] = []
        self._said: dict[int, tuple[int, ...]] = {}
        self._executions: dict[tuple[int, int], list[Place]] = {}
        for place in dict.fromkeys(call.place for call in calls):
            if place[2] >= 0:
                self._executions.setdefault(place[:2], []).append(place)

    def begin(self) -> list[Asked]:
        """The calls that wait for nothing: every design."""
        return [asked for place, number in self._rounds if place[2] < 0 and not number for asked in self._ask(place, 0)]

    def hear(self, asked: Asked, reply: Sequence[int]) -> list[Asked]:
        """The calls that this reply was the last to be waited for."""
        call = asked.call
        assert len(reply) == call.reply, (len(reply), call)
        self.answered.append((asked, tuple(reply)))
        self._said[call.conversation] = (*asked.prompt, *reply)
        key = call.place, call.round
        self._left[key] -= 1
        if self._left[key]:
            return []
        if (call.place, call.round + 1) in self._rounds:
            return self._ask(call.place, call.round + 1)
        if call.place[2] >= 0:
            return []
        return [found for place in self._executions.get(call.place[:2], ()) for found in self._ask(place, 0)]

    def _ask(self, place: Place, number: int) -> list[Asked]:
        calls = self._rounds[place, number]
        return [Asked(call, (*self._said.get(call.conversation, ()), *call.text)) for call in calls]


def totals(calls: Sequence[Call]) -> dict[str, float]:
    """The workload in numbers."""
    replies, prompts = [call.reply for call in calls], prompt_lengths(calls)
    return {
        "calls": len(calls),
        "later_turns": len(calls) - len({call.conversation for call in calls}),
        "reply_tokens": sum(replies),
        "reply_mean": sum(replies) / len(replies),
        "reply_most": max(replies),
        "prompt_tokens": sum(prompts),
        "prompt_most": max(prompts),
        "row_most": max(prompt + reply for prompt, reply in zip(prompts, replies, strict=True)),
    }
