"""Whether a run of several servers kept its promises: nothing lost, nothing twice, nothing mixed up.

    python -m metaagentx.teams.audit --store=sqlite:///runs/team/team.db --run=team --journals=runs/team/sub/journal.db

Everything is looked up in the store and in the journals of the sub-agents' servers, and rewards are computed anew. The
exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from absl import app, flags

from metaagentx.command_line import errors_in_words
from metaagentx.sections import SettingsError, build
from metaagentx.teams.errands import Order
from metaagentx.teams.journal import Entry, Journal
from metaagentx.teams.learner import digest
from metaagentx.teams.options import MAIN, MainReward, TeamOptions
from metaagentx.teams.records import Outcome, Report, SubTask, Trained
from metaagentx.teams.reward import main_reward
from metaagentx.teams.serve import earned
from metaagentx.teams.store import Store


@dataclass(slots=True)
class Audit:
    """What was looked at, and what is wrong with it."""

    steps: int = 0
    rollouts: int = 0
    done: int = 0  # sub-tasks
    dead: int = 0  # dead letters
    masked: int = 0  # sub-tasks that were done and are members of nothing, since their rollout was lost
    staleness: int = 0  # the most updates that a sub-task's weights were behind its step
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.done} done, {self.dead} dead, {self.masked} masked, at most {self.staleness} updates stale"
        lines = [f"{self.steps} steps, {self.rollouts} rollouts, sub-tasks: {counts}", *self.problems]
        return "\n".join([*lines, f"{len(self.problems)} problems"])


Expected: TypeAlias = tuple[float | None, int | None]
"""Of a sample: its reward, None where it was lost to our own faults; the digest of its tokens, None if nobody knows."""


def audit(store: Store, journals: Sequence[Journal], options: TeamOptions, questions: int) -> Audit:
    """Look over a run that has ended, of so many questions a step.

    That is: every sealed step was trained by every policy, and no other step was; each of its rollouts and sub-tasks
    that was done is a sample of that step and of no other, with the reward that its outcome and its mark give, and
    with the tokens that earned it (those of sub-tasks as long as a journal has them); a rollout with a dead letter is
    masked; every sub-task is the one that its key names, and of the question that its rollout is of, as are all
    rollouts of that question; texts and versions are the same in the store and in the journals; nothing was done by
    weights that are too old.
    """
    found = Audit()
    entries = {entry.task.key: entry for journal in journals for entry in journal.entries()}
    steps, policies = store.steps(), store.policies()
    if steps != list(range(store.ended() or 0)):
        found.problems.append(f"the run ended after {store.ended()} steps, but sealed are {steps}")
    trained = {policy: _trained(policy, store, found) for policy in (MAIN, *policies)}
    for policy, by_step in trained.items():
        found.problems += [
            f"policy {policy!r} trained step {step}, which was not sealed" for step in by_step if step not in steps
        ]
    for step in steps:
        found.steps += 1
        outcomes = store.outcomes(step)
        if outcomes is None:
            found.problems.append(f"step {step}: outcomes are missing")
            continue
        _compare(MAIN, step, _mains(outcomes, options.main_reward, found), trained[MAIN], found)
        for policy in policies:
            expected = _subs(store.tasks(step, policy), outcomes, entries, options, questions, found)
            _compare(policy, step, expected, trained[policy], found)
    return found


def _trained(policy: str, store: Store, found: Audit) -> dict[int, dict[str, Trained]]:
    """The samples of each step; a sample of two steps is a problem."""
    rows = store.samples(policy)
    for key, count in Counter(key for _, key, _ in rows).items():
        if count > 1:
            found.problems.append(f"{key} is a sample of {count} steps of policy {policy!r}")
    steps: dict[int, dict[str, Trained]] = {}
    for step, key, told in rows:
        steps.setdefault(step, {})[key] = told
    return steps


def _mains(outcomes: Sequence[Outcome], weights: MainReward, found: Audit) -> dict[str, Expected]:
    """By rollout."""
    expected: dict[str, Expected] = {}
    names: dict[str, str] = {}  # of questions, by what the keys of their rollouts begin with
    for outcome in outcomes:
        values = outcome.values
        name = names.setdefault(outcome.rollout.rpartition("/")[0], outcome.question)
        if name != outcome.question:
            found.problems.append(
                f"{outcome.rollout} is of question {outcome.question!r}, others beside it of {name!r}"
            )
        found.rollouts += 1
        reward = main_reward(bool(values["answered"]), values["correct"], weights)
        expected[outcome.rollout] = None if values["masked"] else reward, int(values["digest"])
    return expected


def _subs(
    tasks: Sequence[tuple[SubTask, Report | None]],
    outcomes: Sequence[Outcome],
    entries: Mapping[str, Entry],
    options: TeamOptions,
    questions: int,
    found: Audit,
) -> dict[str, Expected]:
    """By sub-task, of those that were done."""
    by_rollout = {outcome.rollout: outcome.values for outcome in outcomes}
    expected: dict[str, Expected] = {}
    for task, report in tasks:
        if report is None:
            found.problems.append(f"{task.key}: nobody ended it, though its step is sealed")
        elif task.rollout not in by_rollout:
            found.problems.append(f"{task.key}: its rollout {task.rollout} has no outcome")
        elif report.text is None:
            found.dead += 1
            if not by_rollout[task.rollout]["masked"]:
                found.problems.append(f"{task.key}: a dead letter, but its rollout {task.rollout} is not masked")
        else:
            found.done += 1
            entry = entries.get(task.key)
            _ordered(task, questions, found)
            _same(task, report, entry, options.exchange.staleness, found)
            values = by_rollout[task.rollout]
            found.masked += bool(values["masked"])
            reward = None if values["masked"] else earned(report.text, values, options.sub_reward)
            row = None if entry is None else entry.trajectory
            expected[task.key] = reward, None if row is None else digest(row)
    return expected


def _ordered(task: SubTask, questions: int, found: Audit) -> None:
    """Whether a sub-task is what its key says, and of its rollout's question."""
    try:
        order = Order.of(task)
    except ValueError as error:
        found.problems.append(str(error))
        return
    _, place = order.path[0]
    number = task.step * questions + place
    if order.question != number:
        found.problems.append(f"{task.key} is of question {order.question} of the run, but its rollout of {number}")


def _same(task: SubTask, report: Report, entry: Entry | None, staleness: int, found: Audit) -> None:
    """Whether store and journal tell the same of a sub-task."""
    if entry is None:
        found.problems.append(f"{task.key}: done, but in no journal")
    elif (entry.task, entry.reply, entry.version) != (task, report.text, report.version):
        found.problems.append(f"{task.key}: the journal tells of another task, reply or version than the store")
    found.staleness = max(found.staleness, task.step - report.version)
    if not 0 <= task.step - report.version <= staleness:
        found.problems.append(f"{task.key}: done by weights of version {report.version}, in step {task.step}")


def _compare(
    policy: str,
    step: int,
    expected: Mapping[str, Expected],
    trained: Mapping[int, Mapping[str, Trained]],
    found: Audit,
) -> None:
    actual = trained.get(step, {})
    for key in sorted(expected.keys() | actual.keys()):
        if key not in actual:
            found.problems.append(f"{key} is lost: policy {policy!r} did not train on it in step {step}")
        elif key not in expected:
            found.problems.append(f"{key} is no sample of step {step}, but policy {policy!r} trained on it")
        else:
            reward, tokens = expected[key]
            if actual[key].reward != reward:
                found.problems.append(f"{key} was trained on with reward {actual[key].reward}; it earned {reward}")
            if tokens not in (actual[key].digest, None):
                found.problems.append(f"{key} was trained on with other tokens than those that earned its reward")


def main(_: Sequence[str]) -> None:
    with errors_in_words():
        if missing := [path for path in JOURNALS.value if not Path(path).is_file()]:
            raise SettingsError(f"--journals: there is no {missing[0]}; servers keep theirs as WORKDIR/journal.db")
        try:
            store = Store(STORE.value, RUN.value)
            journals = [Journal(Path(path)) for path in JOURNALS.value]
        except ValueError as error:
            raise SettingsError(str(error)) from error
        said = store.about()
        if said is None:
            raise SettingsError(f"the store holds no run {RUN.value!r}")
        about = json.loads(said)
        team = build(TeamOptions, about["team"], "config.team")
        result = audit(store, journals, team, about["train"]["questions"])
    print(result)
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    STORE = flags.DEFINE_string("store", None, "The store that the servers shared.", required=True)
    RUN = flags.DEFINE_string("run", "team", "The run's name.")
    JOURNALS = flags.DEFINE_list("journals", [], "Journals of all servers of sub-agents, with commas between.")
    app.run(main)
