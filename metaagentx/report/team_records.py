"""A team's episodes as JSON, for `episodes.jsonl`: a question, its rollouts, their sub-tasks, and every word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaagentx.report.records import turn_record
from metaagentx.teams.tree import Graded, GradedErrand, TeamTree


def team_episode(
    tree: TeamTree, advantages: Mapping[tuple[int, int], float] | None = None, *, step: int, phase: str
) -> dict[str, Any]:
    """One question with all its rollouts.

    Args:
      advantages: of those that were trained on, by the numbers of the rollout and of the sub-task, which is -1 for the
        main agent; None: nothing was trained.
    """
    return {
        "step": step,
        "phase": phase,
        "question": {"id": tree.question.id, "kind": tree.question.kind, "prompt": tree.question.prompt},
        "rollouts": [_rollout(rollout, k, advantages) for k, rollout in enumerate(tree.rollouts)],
    }


def _rollout(graded: Graded, number: int, advantages: Mapping[tuple[int, int], float] | None) -> dict[str, Any]:
    run = graded.rollout
    return {
        "reward": float(graded.reward),
        "correct": float(graded.correct),
        "advantage": None if advantages is None else advantages.get((number, -1)),
        "masked": graded.masked,
        "outcome": str(run.outcome),
        "answer": run.said.answer,
        "tokens": run.tokens,
        "calls": len(run.turns) + sum(len(errand.turns) for errand in run.errands),
        "refused": run.refused,
        "turns": [turn_record(turn) for turn in run.turns],
        "errands": [
            _errand(errand, graded.masked, None if advantages is None else advantages.get((number, i)))
            for i, errand in enumerate(graded.errands)
        ],
    }


def _errand(graded: GradedErrand, masked: bool, advantage: float | None) -> dict[str, Any]:
    errand = graded.errand
    return {
        "sub": errand.sub,
        "task": errand.task,
        "report": errand.said.text,
        "outcome": str(errand.said.outcome),
        "mark": None if graded.mark is None else float(graded.mark),
        "reward": float(graded.reward),
        "advantage": advantage,
        "masked": masked,
        "tokens": errand.tokens,
        "turns": [turn_record(turn) for turn in errand.turns],
    }
