"""How long a conversation may become, and what is left out where material is longer: never the question.

Only messages that are new are ever shortened. What a conversation already holds stays as it was said, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from metaagentx.workflow.protocol import Message, Reply

Messages: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """The longest prompt of an agent, and how prompts are measured. All must be pure functions.

    begin: the length of a first prompt. extend: what a reply and the messages after it add to a conversation.
    """

    longest: int
    begin: Callable[[Messages], int]
    extend: Callable[[Reply, Messages], int]


def _characters(messages: Messages) -> int:
    return sum(len(message.content) for message in messages)


CHARACTERS = Room(32768, _characters, lambda reply, messages: len(reply.text) + _characters(messages))


class Allowance:
    """Characters of material that may be shown. Who asks first is served first."""

    def __init__(self, left: int, mark: str) -> None:
        """`mark` stands for what is left out of a text; `{count}` in it is how many characters that is."""
        self.left, self.mark = left, mark
        self.shown = self.left_out = 0

    def take(self, text: str) -> str:
        """The text, or its two ends if there is no room for all of it."""
        shown, left_out = clipped(text, self.left, self.mark)
        spent = min(len(text), self.left)
        self.left -= spent
        self.shown += spent
        self.left_out += left_out
        return shown

    def drop(self, text: str) -> None:
        """Show nothing of a text, and nothing of whatever comes later."""
        self.left, self.left_out = 0, self.left_out + len(text)


def clipped(text: str, most: int, mark: str) -> tuple[str, int]:
    """`text`, or of one with more than `most` characters the two ends around the mark; how many were left out.

    The mark counts, and where there is room for nothing else it stands alone.
    """
    if len(text) <= most:
        return text, 0
    kept = max(0, most - len(mark.replace("{count}", str(len(text)))))
    head, left_out = kept // 2, len(text) - kept
    return f"{text[:head]}{mark.replace('{count}', str(left_out))}{text[head + left_out :]}", left_out


def widest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 0 to `most` that fits, by bisection; 0 where none does."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        low, most = (middle, most) if fits(middle) else (low, middle - 1)
    return low


def shorten_together(texts: Sequence[str], most: int, mark: str) -> tuple[list[str], int]:
    """At most `most` characters of each text, and how many were left out of all."""
    pairs = [clipped(text, most, mark) for text in texts]
    return [text for text, _ in pairs], sum(left_out for _, left_out in pairs)
