"""A team at work (M-GRPO, arXiv 2511.13288): a main agent, and the sub-agents whom it asks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaagentx.learn.options import CreditOptions
from metaagentx.options import EvaluateOptions
from metaagentx.report.team_records import team_episode
from metaagentx.rollout.options import SamplingOptions
from metaagentx.score import Sample, Score
from metaagentx.system import Credited, Engines, Parts, Sizes
from metaagentx.tasks.task import Question
from metaagentx.teams.credit import credit, earned, lost_of
from metaagentx.teams.options import MAIN, TeamOptions
from metaagentx.teams.play import Played, Scene, play, scene
from metaagentx.teams.team import work
from metaagentx.teams.tree import Graded, TeamTree
from metaagentx.workflow.protocol import Call, Message
from metaagentx.workflow.room import CHARACTERS
from metaagentx.workflow.votes import winner

ALONE = "asks nobody"


@dataclass(frozen=True, slots=True)
class Teamwork:
    """K rollouts of each question (a `system.System`)."""

    parts: Parts
    team: TeamOptions
    sampling: Mapping[str, SamplingOptions]
    crediting: CreditOptions
    votes: int = 1  # rollouts that make one answer together, by majority

    def sample(self, questions: Sequence[Question], engines: Engines, *, seed: int, step: int) -> Played:
        """`teams.play` with these parts, all agents in this program."""
        parts = self.parts
        return play(
            questions,
            self.scene(engines),
            engines,
            parts.chat,
            parts.toolbox,
            self.sampling,
            seed=seed,
            step=step,
            share=parts.share,
        )

    def scene(self, engines: Engines) -> Scene:
        """What rollouts have in common where `engines` answer."""
        parts, language = self.parts, self.parts.language
        texts = language.wording, language.tool_texts
        return scene(parts.task, self.team, *texts, engines, parts.chat, self.sampling)

    def credit(self, sampled: Played, sizes: Sizes, *, seed: int, step: int) -> Credited:
        """Role by role: see `teams.credit`."""
        lost = lost_of(sampled.trees)
        roles = {
            role: credit(
                role,
                earned(sampled.trees, role),
                lost,
                self.team,
                self.crediting,
                sizes=sizes.get(role, ()),
                seed=seed,
                step=step,
            )
            for role in self.team.learners
        }
        metrics = {f"credit/{role}/{name}": v for role, found in roles.items() for name, v in found.metrics.items()}
        return Credited(roles, metrics)

    def score(self, sampled: Played) -> Score:
        """A sample is one rollout, or the majority of `votes` of them."""
        kinds = [tree.question.kind for tree in sampled.trees]
        return Score.of(kinds, [self._samples(tree) for tree in sampled.trees])

    def _samples(self, tree: TeamTree) -> list[Sample]:
        starts = range(0, len(tree.rollouts), self.votes)
        return [self._sample(tree.question, tree.rollouts[start : start + self.votes]) for start in starts]

    def _sample(self, question: Question, voters: Sequence[Graded]) -> Sample:
        runs = [voter.rollout for voter in voters]
        chosen = winner([run.said.answer for run in runs], None, self.parts.task.delivery(question).normalise)
        calls = sum(len(run.turns) + sum(len(errand.turns) for errand in run.errands) for run in runs)
        shown = voters[chosen or 0]  # nobody may have voted
        return Sample(shown.correct, sum(run.tokens for run in runs), calls, way(shown))

    def episode(
        self, sampled: Played, number: int, credited: Credited | None = None, *, step: int, phase: str
    ) -> dict[str, Any]:
        """See `report.team_records.team_episode`."""
        known = None if credited is None else credited.advantages(number)
        return team_episode(sampled.trees[number], known, step=step, phase=phase)

    def opening(self, question: Question) -> tuple[str, tuple[Message, ...]]:
        """What the main agent is shown."""
        parts, language = self.parts, self.parts.language
        rooms = dict.fromkeys(self.team.roles, CHARACTERS)
        bare = Scene(parts.task, self.team, language.wording, language.tool_texts, rooms)
        asked = bare.setting(MAIN, parts.task.delivery(question))
        call = next(work(question.prompt, bare.team, asked, bare.beside(0, 0, question)))
        assert isinstance(call, Call)  # what a rollout begins with
        return MAIN, call.messages

    def held_out(self, options: EvaluateOptions) -> Teamwork:
        """As many samples of each question as designs have executions."""
        rollouts = options.designs * options.executions * self.votes
        return dataclasses.replace(
            self,
            team=dataclasses.replace(self.team, rollouts=rollouts),
            sampling=options.drawing(self.sampling),
        )

    def once(self) -> Teamwork:
        """One rollout."""
        return dataclasses.replace(self, team=dataclasses.replace(self.team, rollouts=1))


def way(rollout: Graded) -> str:
    """Whom the main agent asked how often."""
    asked = Counter(errand.errand.sub for errand in rollout.errands)
    return " + ".join(f"{count} {name}" for name, count in sorted(asked.items())) or ALONE
