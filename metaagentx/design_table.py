"""The final table of a run with designs: cold and trained roles, single agents, and votes at the same tokens."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

from metaagentx.designs import Designs
from metaagentx.score import Score
from metaagentx.settings import Settings
from metaagentx.system import System
from metaagentx.tasks.reference_designs import reference_designs
from metaagentx.workbench import Workbench

PLAYERS = ("designer", "executor")
SINGLE = "a=solve()"
SYSTEM = "trained/trained"
CROSSPLAY = ("cold/cold", "trained/cold", "cold/trained", SYSTEM)  # designer/executor
ORDER = ("single/cold", "single/trained", "vote/cold", "vote/trained", "cold/cold", SYSTEM)  # of the table's rows


class Arm(Protocol):
    """Plays one arm: its number, and the weights, "cold" or "trained", of the first role and of the others."""

    def __call__(self, number: int, first: str, rest: str, system: System[Any], /) -> Score: ...


def arms(settings: Settings) -> int:
    """How many arms `fill` plays."""
    return 1 + 5 * settings.evaluate.baselines + 2 * settings.crosses


def fill(bench: Workbench, arm: Arm) -> tuple[dict[str, Any], dict[str, Score]]:
    """What `results.json` holds of it, and the scores behind it by arm."""
    settings, fixed, system = bench.settings, bench.settings.tree.fixed_design, bench.system
    scores = {SYSTEM: arm(1, "trained", "trained", system)}
    names = {SYSTEM: "fixed design, trained" if fixed else "designed, trained (the system)"}
    if settings.evaluate.baselines:
        names = {"cold/cold": "fixed design, cold start" if fixed else "designed, cold start"} | names
        scores["cold/cold"] = arm(0, "cold", "cold", system)
        if settings.crosses:
            scores["cold/trained"] = arm(2, "cold", "trained", system)
            scores["trained/cold"] = arm(3, "trained", "cold", system)
        for number, (weights, label) in enumerate((("cold", "cold start"), ("trained", "trained executor"))):
            single = scores[f"single/{weights}"] = arm(4 + number, weights, weights, given(bench, SINGLE))
            votes = _votes(single, scores[SYSTEM], settings)
            scores[f"vote/{weights}"] = arm(6 + number, weights, weights, given(bench, f"{SINGLE}x{votes}"))
            names[f"single/{weights}"] = f"single agent, {label}"
            names[f"vote/{weights}"] = f"self-consistency of {votes}, {label}"

    results: dict[str, Any] = {
        "accuracy": scores[SYSTEM].accuracy,
        "tokens_per_question": float(scores[SYSTEM].tokens.mean()),
        "table": [{"arm": key} | scores[key].row(names[key]) for key in ORDER if key in names],
        "players": PLAYERS,
        "crossplay": {key: scores[key].accuracy for key in CROSSPLAY if "cold/trained" in scores},
        "ways_by_kind": scores[SYSTEM].ways_by_kind(),
    }
    return results, scores


def references(bench: Workbench, split: str) -> dict[str, Designs]:
    """The task's hand-written designs for all questions of a split; where one is not allowed, a single agent."""
    questions = [bench.task.question(split, index, seed=-1) for index in range(bench.task.size(split))]
    options = [reference_designs(question.prompt) for question in questions]
    names = dict.fromkeys(name for allowed in options for name in allowed)
    return {name: given(bench, *(allowed.get(name, SINGLE) for allowed in options)) for name in names}


def given(bench: Workbench, *designs: str) -> Designs:
    """The run's system with these designs, which take turns, instead of a designer."""
    system = bench.system
    assert isinstance(system, Designs)  # a team has no designs, and another table
    return dataclasses.replace(system, given=designs)


def _votes(single: Score, system: Score, settings: Settings) -> int:
    """How many single agents spend at least the tokens that the system spends (bounded by the limits on designs)."""
    wanted = math.ceil(float(system.tokens.mean()) / max(float(single.tokens.mean()), 1e-9))
    return max(1, min(wanted, settings.limits.agents, settings.limits.model_calls))
