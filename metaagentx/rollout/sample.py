"""One rollout: questions in, trees and trajectories out. What training, evaluation and solving call."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaagentx.rollout.at_work import Share, Tools, alone
from metaagentx.rollout.conversation import Dialogue, as_mappings
from metaagentx.rollout.division import WHOLE, Division, Part, join
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.measure import measure_spent, measure_trajectories, measure_trees, measure_work
from metaagentx.rollout.observed import observe
from metaagentx.rollout.options import SamplingOptions, TreeOptions
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.trajectory import Trajectory, Tree
from metaagentx.rollout.tree import forest
from metaagentx.tasks.task import Question, Task
from metaagentx.workflow.protocol import Message, Reply
from metaagentx.workflow.room import Room


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was sampled for a batch of questions. Trajectories appear in their trees too."""

    trees: list[Tree]
    trajectories: list[Trajectory]
    metrics: dict[str, float]

    def digest(self) -> str:
        """A hash of what training takes from a rollout: tokens, log-probabilities and rewards."""
        designs = [design for tree in self.trees for design in tree.designs]
        rewards = [[design.reward, *(execution.reward for execution in design.executions)] for design in designs]
        return digest(rewards, self.trajectories)


def digest(rewards: Sequence[Sequence[float]], trajectories: Iterable[Trajectory]) -> str:
    """A hash of rewards, tokens and log-probabilities."""
    found = hashlib.sha256(repr(rewards).encode())
    for row in trajectories:
        for array in (row.tokens, row.loss_mask, row.logprobs, row.kept):
            found.update(b"" if array is None else array.tobytes())
    return found.hexdigest()


def sample(
    task: Task,
    questions: Sequence[Question],
    engines: Mapping[str, Engine | Remote],
    chat: Dialogue,
    toolbox: Tools,
    language: Language,
    options: TreeOptions,
    sampling: Mapping[str, SamplingOptions],
    *,
    seed: int,
    step: int,
    designs: Sequence[str] = (),
    share: Share = alone,
    division: Division = WHOLE,
) -> Rollout:
    """Grow the trees of `questions`. `engines` and `sampling` have the keys "designer" and "executor".

    `designs`: a short-form design for each question; then no designer is asked. `share`: where several processes sample
    all of it side by side. `division`: where each samples some of the questions.

    The same arguments and weights give the same rollout, whatever ran before: its tokens, and its log-probabilities up
    to rounding. Bit for bit after a load of weights, where no tools run beside the engines.
    """

    def part() -> Part:
        room = prompt_room(engines["executor"], chat, options.prompt_tokens, sampling["executor"].max_tokens)
        own = division.own(len(questions))
        process = forest(questions, task, options, language, designs, room, own)
        found = observe(process, engines, chat, toolbox, sampling, seed=seed, step=step, share=share)
        grown = [found.value[number].designs for number in own]
        return Part(grown, found.trajectories, found.work, found.spent, found.seconds, found.compilations)

    whole = join(division.exchange(part))
    trees = [Tree(question, grown) for question, grown in zip(questions, whole.designs, strict=True)]
    attach(trees, whole.trajectories)
    metrics = {
        **measure_trees(trees),
        **measure_trajectories(whole.trajectories),
        **measure_work(whole.work, whole.seconds),
        **measure_spent(whole.spent, len(trees)),
        "rollout/compilations": float(whole.compilations),
    }
    return Rollout(trees, whole.trajectories, metrics)


def prompt_room(engine: Engine | Remote, chat: Dialogue, longest: int, reply: int) -> Room:
    """Room for prompts in tokens of `chat`.

    At most `longest`, if that is not 0, and at most what the engine takes beside a reply of `reply` tokens.
    """
    most = engine.room(reply)

    def extend(reply: Reply, messages: tuple[Message, ...]) -> int:
        return reply.tokens + len(chat.extend((), as_mappings(messages), not reply.outcome.open))

    return Room(min(longest or most, most), lambda messages: len(chat.begin(as_mappings(messages))), extend)


def attach(trees: Sequence[Tree], trajectories: Iterable[Trajectory]) -> None:
    """Join trajectories to the designs and executions that they belong to, by their ids."""
    by_execution: dict[tuple[int, int, int], list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        by_execution[trajectory.question, trajectory.design, trajectory.execution].append(trajectory)
    for q, tree in enumerate(trees):
        for d, design in enumerate(tree.designs):
            design.trajectory = next(iter(by_execution[q, d, -1]), None)
            for e, execution in enumerate(design.executions):
                execution.trajectories = tuple(by_execution[q, d, e])
