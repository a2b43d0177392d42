"""In which order train questions are asked: some kinds first, then all of them."""

from __future__ import annotations

from collections.abc import Iterable

from metaagentx.tasks.order import position
from metaagentx.tasks.task import Question, Task


class Curriculum:
    """The endless order of a run's train questions: what is asked is a function of (seed, number) alone."""

    def __init__(self, task: Task, *, first: int, kinds: Iterable[str], seed: int) -> None:
        """
        Args:
          first: how many questions come before all kinds are asked.
          kinds: of those; each pass over them is a new permutation.

        Raises:
          ValueError: no train question is of one of these kinds.
        """
        self._task, self._first, self._seed = task, first, seed
        self._simple: list[int] = []  # where the first questions are in the stored order
        if first:
            found = [task.question("train", index, seed=-1).kind for index in range(task.size("train"))]
            if missing := sorted(set(kinds) - set(found)):
                raise ValueError(
                    f"train.curriculum.kinds: no train question is of kind {missing[0]!r}; there are "
                    f"{', '.join(sorted(set(found)))}"
                )
            self._simple = [index for index, kind in enumerate(found) if kind in set(kinds)]

    def question(self, number: int) -> Question:
        """The train question that is asked as number `number`, from 0."""
        if number >= self._first:
            return self._task.question("train", number, seed=self._seed)
        return self._task.question("train", self._simple[position(self._seed, number, len(self._simple))], seed=-1)
