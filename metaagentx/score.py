"""How good and how dear the samples of held-out questions were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaagentx.report.statistics import over_questions


class Sample(NamedTuple):
    """One answer to a question."""

    correct: float  # grade in [0, 1]
    tokens: float  # generated for it: all agents together
    calls: float  # of a model
    way: str  # how it was come by, in a few words: the shape of its design, or who was asked to help


@dataclass(frozen=True, slots=True)
class Score:
    """What one arm did on Q questions, S samples of each."""

    kinds: tuple[str, ...]  # [Q]; tables have them in this order, each where it first appears
    correct: NDArray[np.float32]  # [Q, S] grade in [0, 1]
    tokens: NDArray[np.float32]  # [Q, S]
    calls: NDArray[np.float32]  # [Q, S]
    ways: tuple[tuple[str, ...], ...]  # [Q][S]

    @classmethod
    def of(cls, kinds: Sequence[str], samples: Sequence[Sequence[Sample]]) -> Score:
        """The score of `samples` [Q][S] of questions of these kinds."""

        correct, tokens, calls = (np.array([[s[i] for s in row] for row in samples], np.float32) for i in range(3))
        return cls(tuple(kinds), correct, tokens, calls, tuple(tuple(s.way for s in row) for row in samples))

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def metrics(self) -> dict[str, float]:
        """A point of the learning curve."""
        row = self.row("")
        return {
            "eval/accuracy": row["accuracy"],
            "eval/tokens_per_question": row["tokens_per_question"],
            **{f"eval/accuracy/{kind}": value for kind, value in row["by_kind"].items()},
        }

    def row(self, name: str) -> dict[str, Any]:
        """One row of the final table, with a 95 % interval over questions."""
        interval = over_questions(self.correct.mean(axis=1))
        by_kind: dict[str, list[float]] = defaultdict(list)
        for kind, grades in zip(self.kinds, self.correct, strict=True):
            by_kind[kind].append(float(grades.mean()))
        return {
            "name": name,
            "accuracy": self.accuracy,
            "low": interval.low,
            "high": interval.high,
            "tokens_per_question": float(self.tokens.mean()),
            "calls_per_question": float(self.calls.mean()),
            "questions": len(self.kinds),
            "by_kind": {kind: float(np.mean(grades)) for kind, grades in by_kind.items()},
        }

    def ways_by_kind(self) -> dict[str, list[dict[str, Any]]]:
        """In which ways each kind of question is answered, most frequent first, and how often each is right."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for kind, ways, grades in zip(self.kinds, self.ways, self.correct, strict=True):
            for name, grade in zip(ways, grades, strict=True):
                found[kind][name].append(float(grade))
        return {
            kind: [
                {
                    "way": name,
                    "share": len(grades) / sum(map(len, by_way.values())),
                    "accuracy": float(np.mean(grades)),
                }
                for name, grades in sorted(by_way.items(), key=lambda item: -len(item[1]))
            ]
            for kind, by_way in found.items()
        }
