"""Where a reply's text first holds one of some strings: also when these span tokens, or tokens split characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set

# What decoders write for bytes that are no whole character (yet).
BROKEN = "\ufffd"


class StopFinder:
    """Fed the token ids of one reply as they come, tells with which of them its text is first to hold a stop string.

    The reply ends with that token, and both its tokens and its text keep the string: what an agent is shown and what
    is trained on are the same. How the ids are cut into feeds changes nothing.

    Each token is decoded with a window of those before it, long enough for the longest string: linear time. A window
    begins where its text is the end of the text of the one before, so never between the pieces of one character.

    Args:
      strings: none of them empty, nor with U+FFFD, which decoders write in place of half a character.
      decode: the text of token ids, without special tokens.
      special: ids that have no text.
    """

    def __init__(self, strings: Sequence[str], decode: Callable[[Sequence[int]], str], special: Set[int] = frozenset()):
        self._strings = tuple(strings)
        self._decode = decode
        self._special = special
        # One character at each end may be half in the window, or a space that decoders drop at the beginning of text.
        self._enough = max(map(len, strings)) + 2
        self._window: list[int] = []
        self._fed = 0
        self.found: int | None = None  # tokens of the reply with the one that completes a string; None: none has yet

    def feed(self, ids: Iterable[int]) -> int | None:
        """More ids of the reply; `found`. What comes after that is not read."""
        for token in ids:
            if self.found is not None:
                break
            self._fed += 1
            if token in self._special:
                continue
            self._window.append(token)
            text = self._decode(self._window)
            if any(string in text for string in self._strings):
                self.found = self._fed
            elif len(text) > 2 * self._enough:
                self._forget(text)
        return self.found

    def _forget(self, text: str) -> None:
        """Let the window begin as late as it can."""
        for begin in range(len(self._window) - 1, 0, -1):
            rest = self._decode(self._window[begin:])
            if len(rest) >= self._enough and text.endswith(rest):
                del self._window[:begin]
                return
