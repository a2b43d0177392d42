"""What an execution and a design earn (MetaAgent-X, arXiv 2605.14212, section 3; the weights are options)."""

from __future__ import annotations

from collections.abc import Sequence

from metaagentx.rollout.options import TreeOptions
from metaagentx.rollout.trajectory import Execution
from metaagentx.workflow.protocol import Outcome, RunResult


def judge(result: RunResult, correct: float, options: TreeOptions) -> Execution:
    """Score one run.

    additive: R = w_correct * correct + w_format * format - w_cost * cost
    product:  R = w_correct * correct * (1 - w_cost * cost) + w_format * format

    `correct` is the grade of the answer in the last agent's message: what the design's own text says is never read.
    `format` is 1 where that message holds an answer. `cost` is what the run spent over the budget, at most 1. A run
    that failed by our own fault is masked.
    """
    spent = result.tokens if options.cost_unit == "tokens" else result.calls
    cost = min(1.0, spent / options.budget)
    form = float(result.answer is not None)
    if options.cost_form == "additive":
        reward = options.w_correct * correct + options.w_format * form - options.w_cost * cost
    else:
        reward = options.w_correct * correct * (1 - options.w_cost * cost) + options.w_format * form
    return Execution(result, correct, form, cost, reward, masked=result.outcome == Outcome.FAILED)


def mean_reward(executions: Sequence[Execution]) -> float:
    """A valid design's reward: the mean over its executions that are not masked, 0 if there is none."""
    rewards = [execution.reward for execution in executions if not execution.masked]
    return sum(rewards) / len(rewards) if rewards else 0.0
