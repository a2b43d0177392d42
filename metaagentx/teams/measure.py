"""The numbers of a team's rollouts, by name: `rollout/...` as of designs, `team/...` of delegation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from metaagentx.rollout.measure import mean
from metaagentx.teams.tree import TeamTree


def measure_teams(trees: Sequence[TeamTree]) -> dict[str, float]:
    """Accuracy and reward of rollouts, who was asked how often, and how good the reports were.

    Masked rollouts are left out, but for `rollout/generated_tokens`: those of all agents, in whichever program they
    are, and of no judge, which is what `train.token_budget` counts. `team/errands/SUB` counts sub-tasks of a rollout,
    `team/mark/SUB` is the mean mark of its reports, `delegation/KIND/SUB` counts its sub-tasks of a rollout on
    questions of one kind; `team/unmarked` is the share of reports of which nobody could say how good they were.
    """
    by_kind: dict[str, list[float]] = defaultdict(list)
    delegated: dict[str, Counter[str]] = defaultdict(Counter)
    rollouts = []
    for tree in trees:
        for rollout in tree.rollouts:
            if rollout.masked:
                continue
            rollouts.append(rollout)
            by_kind[tree.question.kind].append(rollout.correct)
            delegated[tree.question.kind].update(errand.errand.sub for errand in rollout.errands)
    errands = [errand for rollout in rollouts for errand in rollout.errands]
    names = sorted({errand.errand.sub for errand in errands})
    marks = {name: [e.mark for e in errands if e.errand.sub == name and e.mark is not None] for name in names}

    metrics = {"rollout/accuracy": mean([grade for grades in by_kind.values() for grade in grades])}
    metrics |= {f"rollout/accuracy/{kind}": mean(grades) for kind, grades in sorted(by_kind.items())}
    metrics["rollout/reward"] = mean([rollout.reward for rollout in rollouts])
    metrics["rollout/format"] = mean([rollout.rollout.said.answer is not None for rollout in rollouts])
    metrics["rollout/tokens_per_execution"] = mean([rollout.rollout.tokens for rollout in rollouts])
    metrics["rollout/masked_executions"] = float(sum(r.masked for tree in trees for r in tree.rollouts))

    metrics["rollout/generated_tokens"] = float(sum(r.rollout.tokens for tree in trees for r in tree.rollouts))

    metrics["team/errands"] = len(errands) / max(1, len(rollouts))
    metrics["team/alone"] = mean([not rollout.errands for rollout in rollouts])
    metrics["team/refused"] = float(sum(rollout.rollout.refused for rollout in rollouts))
    metrics["team/replies"] = mean([len(rollout.rollout.turns) for rollout in rollouts])  # the main agent's
    metrics["team/reward"] = mean([errand.reward for errand in errands])
    metrics["team/format"] = mean([errand.errand.said.answer is not None for errand in errands])
    metrics["team/unmarked"] = mean([errand.mark is None for errand in errands])
    for name in names:
        metrics[f"team/errands/{name}"] = sum(e.errand.sub == name for e in errands) / len(rollouts)
        metrics[f"team/mark/{name}"] = mean(marks[name])
    for kind, counter in sorted(delegated.items()):
        for name, count in sorted(counter.items()):
            metrics[f"delegation/{kind}/{name}"] = count / len(by_kind[kind])
    return metrics
