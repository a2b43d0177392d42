"""Designs are written and run (MetaAgent-X, arXiv 2605.14212): a run without a team."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaagentx.learn.credit import assign
from metaagentx.learn.options import CreditOptions
from metaagentx.options import EvaluateOptions
from metaagentx.report.records import episode
from metaagentx.rollout.options import SamplingOptions, TreeOptions
from metaagentx.rollout.sample import Rollout, sample
from metaagentx.rollout.shape import shape
from metaagentx.rollout.trajectory import DesignRollout
from metaagentx.score import Sample, Score
from metaagentx.settings import ROLES
from metaagentx.system import Credited, Engines, Parts, Sizes
from metaagentx.tasks.task import Question
from metaagentx.workflow.ir import Design
from metaagentx.workflow.protocol import Message


@dataclass(frozen=True, slots=True)
class Designs:
    """The M x N tree of each question (a `system.System`)."""

    parts: Parts
    tree: TreeOptions
    sampling: Mapping[str, SamplingOptions]
    crediting: CreditOptions
    given: tuple[str, ...] = ()  # short forms, taking turns: no designer is asked

    def sample(self, questions: Sequence[Question], engines: Engines, *, seed: int, step: int) -> Rollout:
        """`rollout.sample` with these parts."""
        parts = self.parts
        return sample(
            parts.task,
            questions,
            engines,
            parts.chat,
            parts.toolbox,
            parts.language,
            self.tree,
            self.sampling,
            seed=seed,
            step=step,
            designs=[self.given[i % len(self.given)] for i in range(len(questions))] if self.given else (),
            share=parts.share,
            division=parts.division,
        )

    def credit(self, sampled: Rollout, sizes: Sizes, *, seed: int, step: int) -> Credited:
        """See `learn.credit.assign`: nothing is drawn, and nothing aligned."""
        assigned = assign(sampled.trees, self.crediting)
        metrics = {f"credit/{name}": value for name, value in assigned.metrics.items()}
        return Credited({role: assigned.of(role) for role in ROLES}, metrics)

    def score(self, sampled: Rollout) -> Score:
        """A sample is one execution of one design; an invalid design is wrong in all its executions."""
        trees = sampled.trees
        width = max((len(design.executions) for tree in trees for design in tree.designs), default=0) or 1
        samples = [[found for design in tree.designs for found in _samples(design, width)] for tree in trees]
        return Score.of([tree.question.kind for tree in trees], samples)

    def episode(
        self, sampled: Rollout, number: int, credited: Credited | None = None, *, step: int, phase: str
    ) -> dict[str, Any]:
        """See `report.records.episode`."""
        tree, known = sampled.trees[number], credited.advantages(number) if credited else None
        if known is None:
            return episode(tree, step=step, phase=phase)
        designs = list(enumerate(tree.designs))
        return episode(
            tree,
            step=step,
            phase=phase,
            design_advantages=[known.get((d, -1), 0.0) for d, _ in designs],
            execution_advantages=[[known.get((d, e), 0.0) for e in range(len(each.executions))] for d, each in designs],
        )

    def opening(self, question: Question) -> tuple[str, tuple[Message, ...]] | None:
        """What the designer is shown."""
        if self.tree.fixed_design or self.given:
            return None
        return "designer", tuple(self.parts.task.designer_messages(question))

    def held_out(self, options: EvaluateOptions) -> Designs:
        """With so many designs and executions; as many samples where the design is given."""
        given = self.given or ((self.tree.fixed_design,) if self.tree.fixed_design else ())
        designs = 1 if given else options.designs
        executions = options.designs * options.executions // designs
        return dataclasses.replace(
            self,
            tree=dataclasses.replace(self.tree, fixed_design="", designs=designs, executions=executions),
            sampling=options.drawing(self.sampling),
            given=given,
        )

    def once(self) -> Designs:
        """One design, run once."""
        return dataclasses.replace(self, tree=dataclasses.replace(self.tree, designs=1, executions=1))


def _samples(design: DesignRollout, width: int) -> list[Sample]:
    written = design.trajectory.generated if design.trajectory is not None else 0
    asked = int(design.trajectory is not None)
    if not isinstance(design.parsed, Design):
        return [Sample(0.0, written, asked, "invalid")] * width
    way = shape(design.parsed.workflow)
    return [Sample(e.correct, written + e.result.tokens, asked + e.result.calls, way) for e in design.executions]
