"""The numbers of a rollout, by name: `rollout/...` of all questions, `rollout/accuracy/KIND` of one kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from metaagentx.rollout.scheduler import Spent
from metaagentx.rollout.shape import SHAPES, shape
from metaagentx.rollout.trajectory import Trajectory, Tree
from metaagentx.rollout.work import Work
from metaagentx.workflow.ir import Design, Diagnosis
from metaagentx.workflow.protocol import Outcome


def measure_trees(trees: Sequence[Tree]) -> dict[str, float]:
    """Accuracy, validity, cost and the mix of designs.

    Accuracy is the expected grade of one execution of one design; an invalid design counts as 0. Masked designs and
    executions are left out. `rollout/leaks` is the share of valid designs that say or look for the true answer
    (`tasks.leak`). Saying it gains nothing by itself, since a run's result is what an agent says last.
    """
    metrics: dict[str, float] = {}
    designs = [design for tree in trees for design in tree.designs if not design.masked]
    by_kind: dict[str, list[float]] = defaultdict(list)
    for tree in trees:
        for design in tree.designs:
            if not design.masked:
                grades = [execution.correct for execution in design.executions if not execution.masked]
                by_kind[tree.question.kind].append(mean(grades))
    metrics["rollout/accuracy"] = mean([grade for grades in by_kind.values() for grade in grades])
    for kind, grades in sorted(by_kind.items()):
        metrics[f"rollout/accuracy/{kind}"] = mean(grades)

    executions = [execution for design in designs for execution in design.executions if not execution.masked]
    metrics["rollout/reward"] = mean([design.reward for design in designs])
    metrics["rollout/format"] = mean([execution.format for execution in executions])
    metrics["rollout/calls_per_execution"] = mean([execution.result.calls for execution in executions])
    metrics["rollout/tool_calls_per_execution"] = mean([execution.result.tool_calls for execution in executions])
    metrics["rollout/refused_tool_calls"] = float(sum(execution.result.refused_tool_calls for execution in executions))
    metrics["rollout/shortened_executions"] = mean([execution.result.left_out > 0 for execution in executions])
    metrics["rollout/tokens_per_execution"] = mean([execution.result.tokens for execution in executions])
    metrics["rollout/masked_executions"] = float(
        sum(execution.masked for tree in trees for design in tree.designs for execution in design.executions)
    )

    metrics["rollout/valid"] = mean([design.valid for design in designs])
    metrics["rollout/leaks"] = mean([design.leaks for design in designs if design.valid])
    refusals = Counter(design.parsed.refusal.value for design in designs if isinstance(design.parsed, Diagnosis))
    for refusal, count in sorted(refusals.items()):
        metrics[f"rollout/refused/{refusal}"] = count / len(designs)
    shapes = Counter(shape(design.parsed.workflow) for design in designs if isinstance(design.parsed, Design))
    for name in SHAPES:
        metrics[f"rollout/shape/{name}"] = shapes[name] / max(1, shapes.total())
    metrics |= design_mix(trees)
    distinct = [len({design.key for design in tree.designs if design.valid}) for tree in trees]
    metrics["rollout/distinct_designs"] = mean(distinct)
    return metrics


def design_mix(trees: Sequence[Tree]) -> dict[str, float]:
    """The mix of designs as metrics: `designs/KIND/SHAPE`, shares of each kind's designs."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for tree in trees:
        for design in tree.designs:
            name = shape(design.parsed.workflow) if isinstance(design.parsed, Design) else "invalid"
            counts[tree.question.kind][name] += 1
    return {
        f"designs/{kind}/{name}": number / counter.total()
        for kind, counter in sorted(counts.items())
        for name, number in sorted(counter.items())
    }


def measure_trajectories(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Per role: conversations, tokens generated, share that was cut.

    `kept_mass`: the policy's mass on what top-k, top-p and masks let it draw, on average over tokens.
    """
    metrics: dict[str, float] = {}
    by_role: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        by_role[trajectory.role].append(trajectory)
    for role, rows in sorted(by_role.items()):
        metrics[f"rollout/{role}/trajectories"] = float(len(rows))
        metrics[f"rollout/{role}/tokens"] = float(sum(row.generated for row in rows))
        metrics[f"rollout/{role}/tokens_per_trajectory"] = metrics[f"rollout/{role}/tokens"] / len(rows)
        if any(row.kept is not None for row in rows):
            kept = np.concatenate([row.kept[row.loss_mask] for row in rows if row.kept is not None])
            metrics[f"rollout/{role}/kept_mass"] = float(np.mean(np.exp(kept)))
        metrics[f"rollout/{role}/cut"] = mean([row.outcome == Outcome.CUT for row in rows])
    return metrics


def measure_work(total: Work, seconds: float) -> dict[str, float]:
    """What engines did in `seconds` of wall time, all together, their own seconds by one `work.Clock`."""
    return {
        "rollout/seconds": seconds,
        "rollout/calls": float(total.calls),
        "rollout/generated_tokens": float(total.generated_tokens),
        "rollout/tokens_per_second": total.generated_tokens / seconds,
        "engine/occupancy": total.busy_slot_steps / max(1, total.slot_steps),
        "engine/prompt_tokens": float(total.prompt_tokens),
        "engine/prefilled_tokens": float(total.prefilled_tokens),
        "engine/forked_tokens": float(total.forked_tokens),
        "engine/forked/equal_tokens": float(total.equal_tokens),
        "engine/forked/dialogue_tokens": float(total.dialogue_tokens),
        "engine/forked/prefix_tokens": float(total.prefix_tokens),
        "engine/prefill_seconds": total.prefill_seconds,
        "engine/decode_seconds": total.decode_seconds,
        "engine/host_seconds": seconds - total.prefill_seconds - total.decode_seconds,
    }


def measure_spent(spent: Spent, questions: int) -> dict[str, float]:
    """What the calls and tools of so many questions took. Engines had nothing to do in `tools/idle_seconds`."""
    return {
        "rollout/calls_per_question": spent.calls / max(1, questions),
        "rollout/tokens_per_question": spent.tokens / max(1, questions),
        "rollout/refused_calls": float(spent.refused),
        "rollout/failed_calls": float(spent.failed),
        "tools/calls": float(spent.tool_calls),
        "tools/failures": float(spent.tool_failures),
        "tools/seconds": spent.tool_seconds,
        "tools/idle_seconds": spent.idle_seconds,
    }


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
