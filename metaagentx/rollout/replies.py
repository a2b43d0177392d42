"""The host's copy of the replies that are being generated, grown by what each dispatch reports.

Reports come late: when one is read, a slot may have been given to another call. Each start of a slot is numbered, and
what a report says of an earlier start is dropped.

Letters: S slots, C capacity, T decode steps of a dispatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.state import Report


@dataclass(frozen=True, slots=True)
class Expected:
    """What a dispatch was asked for."""

    starts: NDArray[np.int64]  # [S] which start of each slot it works on
    fresh: NDArray[np.bool_]  # [S] slots whose first token it is the first to report


class Replies:
    """The tokens of the last call of each of S slots. `reshaped`: whether reports say what mass was kept."""

    def __init__(self, slots: int, capacity: int, reshaped: bool) -> None:
        self.tokens = np.zeros((slots, capacity), np.int32)
        self.logprobs = np.zeros((slots, capacity), np.float32)
        self.kept = np.zeros((slots, capacity), np.float32) if reshaped else None
        self.length = np.zeros(slots, np.int32)
        self.running = np.zeros(slots, bool)
        self._starts = np.zeros(slots, np.int64)
        self._fresh = np.zeros(slots, bool)

    def start(self, slot: int) -> None:
        """A new call: nothing of it is known yet."""
        self.length[slot] = 0
        self.running[slot] = self._fresh[slot] = True
        self._starts[slot] += 1

    def expect(self) -> Expected:
        """For the next dispatch."""
        expected = Expected(self._starts.copy(), self._fresh)
        self._fresh = np.zeros_like(self._fresh)
        return expected

    def grow(self, report: Report, expected: Expected) -> NDArray[np.int64]:
        """Take in a report, read to the host; the slots whose calls have ended."""
        current = self.running & (self._starts == expected.starts)
        columns = np.arange(report.tokens.shape[1])[None]
        new = current[:, None] & (columns <= report.count[:, None]) & ((columns > 0) | expected.fresh[:, None])
        row, column = np.nonzero(new)
        where = row, self.length[row] + column - np.where(expected.fresh[row], 0, 1)
        self.tokens[where], self.logprobs[where] = report.tokens[new], report.logprobs[new]
        if self.kept is not None and report.kept is not None:
            self.kept[where] = report.kept[new]
        self.length += np.sum(new, axis=1, dtype=np.int32)
        ended = np.flatnonzero(current & ~report.active)
        self.running[ended] = False
        return ended

    def cut(self, slot: int, length: int) -> None:
        """The call in `slot` has ended with so many tokens, whatever the device goes on to do."""
        self.length[slot] = length
        self.running[slot] = False
