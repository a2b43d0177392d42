"""How good is a run? Held-out questions, every arm on the same ones, tokens counted.

    python -m metaagentx.evaluate --workdir=runs/tiny

Reads the settings and the newest checkpoint of a work directory and prints the final table again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import app
from numpy.typing import NDArray

from metaagentx import command_line, policies, report, sft
from metaagentx.checkpoint import Checkpoints, claimed, forget
from metaagentx.mesh import is_primary
from metaagentx.metrics import Progress
from metaagentx.policies import Weights
from metaagentx.report.statistics import over_questions
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.shape import shape
from metaagentx.rollout.trajectory import Tree
from metaagentx.settings import Settings, read
from metaagentx.tasks.reference_designs import reference_designs
from metaagentx.workbench import Workbench, open_workbench
from metaagentx.workflow.ir import Design

SINGLE = "a=solve()"
Arm = Callable[[int, str, str, str], "Score"]  # number, designer's weights, executor's weights, design or ""
SYSTEM = "trained/trained"
CROSSPLAY = ("cold/cold", "trained/cold", "cold/trained", SYSTEM)  # designer/executor
ORDER = ("single/cold", "single/trained", "vote/cold", "vote/trained", "cold/cold", SYSTEM)  # of the table's rows
VALIDATION_STEP, TEST_STEP = 1 << 30, 1 << 31  # far from any training step, so no random key is shared with one


@dataclass(frozen=True, slots=True)
class Score:
    """What one arm did on Q questions, S samples of each (a sample: one design and one execution of it)."""

    kinds: tuple[str, ...]  # [Q]
    correct: NDArray[np.float32]  # [Q, S] grade in [0, 1]
    tokens: NDArray[np.float32]  # [Q, S] generated: the design's and the execution's
    calls: NDArray[np.float32]  # [Q, S] model calls, the designer's included
    shapes: tuple[tuple[str, ...], ...]  # [Q][S] shape of the design, or "invalid"

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def metrics(self) -> dict[str, float]:
        """A point of the learning curve."""
        row = self.row("")
        return {
            "eval/accuracy": row["accuracy"],
            "eval/tokens_per_question": row["tokens_per_question"],
            **{f"eval/accuracy/{kind}": value for kind, value in row["by_kind"].items()},
        }

    def row(self, name: str) -> dict[str, Any]:
        """One row of the final table, with a 95 % interval over questions."""
        interval = over_questions(self.correct.mean(axis=1))
        by_kind: dict[str, list[float]] = defaultdict(list)
        for kind, grades in zip(self.kinds, self.correct, strict=True):
            by_kind[kind].append(float(grades.mean()))
        return {
            "name": name,
            "accuracy": self.accuracy,
            "low": interval.low,
            "high": interval.high,
            "tokens_per_question": float(self.tokens.mean()),
            "calls_per_question": float(self.calls.mean()),
            "questions": len(self.kinds),
            "by_kind": {kind: float(np.mean(grades)) for kind, grades in sorted(by_kind.items())},
        }

    def designs_by_kind(self) -> dict[str, list[dict[str, Any]]]:
        """Which shapes of design each kind of question gets, most frequent first, and how often each is right."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for kind, shapes, grades in zip(self.kinds, self.shapes, self.correct, strict=True):
            for name, grade in zip(shapes, grades, strict=True):
                found[kind][name].append(float(grade))
        return {
            kind: [
                {
                    "design": name,
                    "share": len(grades) / sum(map(len, by_shape.values())),
                    "accuracy": float(np.mean(grades)),
                }
                for name, grades in sorted(by_shape.items(), key=lambda item: -len(item[1]))
            ]
            for kind, by_shape in sorted(found.items())
        }


def measure(trees: Sequence[Tree]) -> Score:
    """Scores of every (design, execution) of each tree; an invalid design scores 0 in all its executions."""
    width = max((len(design.executions) for tree in trees for design in tree.designs), default=0) or 1
    samples = [[sample for design in tree.designs for sample in _samples(design, width)] for tree in trees]
    return Score(
        kinds=tuple(tree.question.kind for tree in trees),
        correct=np.array([[s[0] for s in row] for row in samples], np.float32),
        tokens=np.array([[s[1] for s in row] for row in samples], np.float32),
        calls=np.array([[s[2] for s in row] for row in samples], np.float32),
        shapes=tuple(tuple(s[3] for s in row) for row in samples),
    )


def _samples(design: Any, width: int) -> list[tuple[float, float, float, str]]:
    written = design.trajectory.generated if design.trajectory is not None else 0
    asked = int(design.trajectory is not None)
    if not isinstance(design.parsed, Design):
        return [(0.0, written, asked, "invalid")] * width
    name = shape(design.parsed.workflow)
    return [(e.correct, written + e.result.tokens, asked + e.result.calls, name) for e in design.executions]


def play(
    bench: Workbench,
    engines: Mapping[str, Engine | Remote],
    split: str,
    count: int,
    *,
    step: int,
    design: str = "",
    designs: Sequence[str] = (),
) -> Score:
    """Score the loaded engines on the first `count` questions of `split` (0: all), in stored order.

    With `design` every question gets that short-form design, with `designs` each its own, and the designer is not
    asked.
    """
    settings = bench.settings
    options, size = settings.evaluate, bench.task.size(split)
    count = min(count, size) if count else size
    given = list(designs) or [design] * count
    executions = options.executions * options.designs if given[0] else options.executions
    tree = dataclasses.replace(
        settings.tree, fixed_design="", designs=1 if given[0] else options.designs, executions=executions
    )
    sampling = {
        role: dataclasses.replace(sampling, temperature=options.temperature)
        for role, sampling in settings.sampling.items()
    }
    questions = [bench.task.question(split, index, seed=-1) for index in range(count)]
    rollout = bench.sample(
        questions, engines, step=step, tree=tree, sampling=sampling, designs=given if given[0] else ()
    )
    return measure(rollout.trees)


def validate(bench: Workbench, engines: Mapping[str, Engine | Remote], step: int) -> Score:
    """The point of the learning curve after `step` training steps."""
    count = bench.settings.evaluate.validation_questions
    design = bench.settings.tree.fixed_design
    return play(bench, engines, "validation", count, step=VALIDATION_STEP + step, design=design)


def compare(bench: Workbench, workdir: Path, trained: Weights) -> tuple[dict[str, Any], dict[str, Score]]:
    """The final table: `trained` weights and those of the run's cold start in both roles, and single agents.

    Returns what `results.json` holds, and the scores behind it by arm.
    """
    settings = bench.settings
    engines = {"trained": bench.engines(trained, version=1)}
    if settings.evaluate.baselines or settings.evaluate.reference_designs:
        engines["cold"] = bench.engines(sft.finished(bench, workdir), version=0)
    count, fixed = settings.evaluate.questions, settings.tree.fixed_design

    played = itertools.count(1)
    arms = 1 + settings.evaluate.baselines * (5 if fixed else 7) + settings.evaluate.reference_designs

    def arm(number: int, designer: str, executor: str, design: str) -> Score:
        roles = {"designer": engines[designer]["designer"], "executor": engines[executor]["executor"]}
        score = play(bench, roles, "test", count, step=TEST_STEP + number, design=design)
        progress.update(next(played), phase="final_table")
        return score

    with Progress(arms, active=is_primary()) as progress:
        results, scores = _table(bench, arm)
    if settings.evaluate.reference_designs:
        results["reference_designs"] = reference(bench, engines["cold"])
    return results, scores


def _table(bench: Workbench, arm: Arm) -> tuple[dict[str, Any], dict[str, Score]]:
    settings, fixed = bench.settings, bench.settings.tree.fixed_design
    scores = {SYSTEM: arm(1, "trained", "trained", fixed)}
    names = {SYSTEM: "fixed design, trained" if fixed else "designed, trained (the system)"}
    if settings.evaluate.baselines:
        names = {"cold/cold": "fixed design, cold start" if fixed else "designed, cold start"} | names
        scores["cold/cold"] = arm(0, "cold", "cold", fixed)
        if not fixed:
            scores |= {"cold/trained": arm(2, "cold", "trained", ""), "trained/cold": arm(3, "trained", "cold", "")}
        for number, (weights, label) in enumerate((("cold", "cold start"), ("trained", "trained executor"))):
            single = scores[f"single/{weights}"] = arm(4 + number, weights, weights, SINGLE)
            votes = _votes(single, scores[SYSTEM], settings)
            scores[f"vote/{weights}"] = arm(6 + number, weights, weights, f"{SINGLE}x{votes}")
            names[f"single/{weights}"] = f"single agent, {label}"
            names[f"vote/{weights}"] = f"self-consistency of {votes}, {label}"

    results: dict[str, Any] = {
        "accuracy": scores[SYSTEM].accuracy,
        "tokens_per_question": float(scores[SYSTEM].tokens.mean()),
        "table": [{"arm": key} | scores[key].row(names[key]) for key in ORDER if key in names],
        "crossplay": {key: scores[key].accuracy for key in CROSSPLAY if "cold/trained" in scores},
        "designs_by_kind": scores[SYSTEM].designs_by_kind(),
    }
    return results, scores


def reference(bench: Workbench, engines: Mapping[str, Engine | Remote]) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy of the task's hand-written designs by split, design and kind, with these engines' weights.

    A design that a question does not allow is a single agent there.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in ("validation", "test"):
        questions = [bench.task.question(split, index, seed=-1) for index in range(bench.task.size(split))]
        options = [reference_designs(question.prompt) for question in questions]
        names = dict.fromkeys(name for allowed in options for name in allowed)
        found[split] = {}
        for number, name in enumerate(names):
            designs = [allowed.get(name, SINGLE) for allowed in options]
            score = play(bench, engines, split, len(questions), step=TEST_STEP + 100 + number, designs=designs)
            found[split][name] = score.row(name)["by_kind"]
    return found


def _votes(single: Score, system: Score, settings: Settings) -> int:
    """How many single agents spend at least the tokens that the system spends (bounded by the limits on designs)."""
    wanted = math.ceil(float(system.tokens.mean()) / max(float(single.tokens.mean()), 1e-9))
    return max(1, min(wanted, settings.limits.agents, settings.limits.model_calls))


def save_scores(path: Path, scores: Mapping[str, Score]) -> None:
    """Every arm's grades and tokens, [Q, S], for paired comparisons between runs."""
    arrays = {f"{arm}:correct": score.correct for arm, score in scores.items()}
    arrays |= {f"{arm}:tokens": score.tokens for arm, score in scores.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


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


def newest(bench: Workbench, workdir: Path) -> Weights:
    """The newest weights of a work directory: trained, else those of the cold start. Raises CheckpointError."""
    checkpoints = Checkpoints(workdir / "checkpoints", keep=bench.settings.train.keep)
    if checkpoints.latest() is None:
        return sft.finished(bench, workdir)
    adapted = bench.settings.policies.layout == "adapters"  # their base is that of the cold start
    start = sft.finished(bench, workdir) if adapted else bench.fresh_weights()
    states = policies.states(start, bench.settings)
    return policies.acting(checkpoints.restore(forget(states))[0], start.base)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"unknown argument {arguments[1]!r}")
    workdir = command_line.workdir()
    with command_line.errors_in_words():
        command_line.join()
        with open_workbench(read(claimed(workdir))) as bench:
            bench.expect("test")
            results, _ = compare(bench, workdir, newest(bench, workdir))
        if is_primary():
            report.show(results)


if __name__ == "__main__":
    app.run(main)
