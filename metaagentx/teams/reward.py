"""What the main agent and its sub-agents earn (M-GRPO, arXiv 2511.13288, section 3; the weights are options)."""

from __future__ import annotations

import re
from functools import partial

from metaagentx.tasks.task import GradingFailed, Task, Verdict
from metaagentx.teams.options import JUDGE, MainReward, SubReward, TeamOptions
from metaagentx.teams.team import Errand, Marker
from metaagentx.workflow.context import after_thinking
from metaagentx.workflow.protocol import Call, Message, Outcome, Process, Reply

_JUDGING = 1 << 30  # the judge's conversation in the process of a sub-task: apart from the sub-agent's own
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")


def main_reward(answered: bool, correct: float, weights: MainReward) -> float:
    """`format + correct * grade`; nothing where the last message holds no answer."""
    return weights.format + weights.correct * correct if answered else 0.0


def sub_reward(errand: Errand, local: float, correct: float, weights: SubReward) -> float:
    """`format + correct * the rollout's grade + local * the report's own mark`; nothing where it holds no answer."""
    if errand.said.answer is None:
        return 0.0
    return weights.format + weights.correct * correct + weights.local * local


def marker(task: Task, options: TeamOptions) -> Marker:
    """Who marks reports: the task's verifiers, where it knows the sub-task as a question; or a policy."""
    return partial(judged, options=options) if options.local == "judge" else partial(verified, task=task)


def verified(errand: Errand, *, task: Task) -> Process[Verdict | None]:
    """The grade of the report as an answer to its sub-task."""
    yield from ()
    question = task.find(errand.task)
    return None if question is None else task.grading(question, errand.said.answer)


def judged(errand: Errand, *, options: TeamOptions) -> Process[Verdict | None]:
    """The mark that a policy gives. A silent report gets 0 unasked; that nobody could be asked is our own fault."""
    if errand.said.is_silent:
        return float
    text = f"Task:\n{errand.task}\n\nReport:\n{errand.said.text}"
    messages = Message("system", options.judge_prompt), Message("user", text)
    reply: Reply = yield Call(options.judge_role, JUDGE, messages, _JUDGING)
    if reply.outcome is Outcome.FAILED:
        return _unasked
    mark = read_mark(reply.text)
    return None if mark is None else partial(float, mark)


def _unasked() -> float:
    raise GradingFailed("the judge gave no reply")


def read_mark(text: str) -> float | None:
    """The last number of a judge's reply, thoughts aside; None if there is none or it is not in [0, 1]."""
    found = _NUMBER.findall(after_thinking(text))
    mark = float(found[-1]) if found else -1.0
    return mark if 0 <= mark <= 1 else None
