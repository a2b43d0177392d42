"""The final table of a team: main agent and sub-agents, each cold and trained; of one on its own, its majority."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from metaagentx.design_table import CROSSPLAY, SYSTEM, Arm
from metaagentx.score import Score
from metaagentx.settings import Settings
from metaagentx.teamwork import Teamwork
from metaagentx.workbench import Workbench

PLAYERS = ("main agent", "sub-agents")
NAMES = {
    "cold/cold": "team, cold start",
    "cold/trained": "team, cold main agent with trained sub-agents",
    "trained/cold": "team, trained main agent with cold sub-agents",
    SYSTEM: "team, trained (the system)",
}
ALONE = {"cold/cold": "main agent alone, cold start", SYSTEM: "main agent alone, trained (the system)"}


def arms(settings: Settings) -> int:
    """How many arms `fill` plays."""
    options = settings.evaluate
    return 1 + options.baselines * (1 + (2 if options.vote_tokens else 0)) + 2 * settings.crosses


def fill(bench: Workbench, arm: Arm) -> tuple[dict[str, Any], dict[str, Score]]:
    """What `results.json` holds of it, and the scores behind it by arm."""
    system, options = bench.system, bench.settings.evaluate
    assert isinstance(system, Teamwork)  # designs have another table
    names = dict(NAMES if system.team.subs else ALONE)
    scores = {SYSTEM: arm(1, "trained", "trained", system)}
    if options.baselines:
        scores["cold/cold"] = arm(0, "cold", "cold", system)
        if bench.settings.crosses:
            scores["cold/trained"] = arm(2, "cold", "trained", system)
            scores["trained/cold"] = arm(3, "trained", "cold", system)
        if options.vote_tokens:
            for number, weights in enumerate(("cold", "trained")):
                votes = _votes(scores[f"{weights}/{weights}"], options.vote_tokens)
                voting = dataclasses.replace(system, votes=votes)
                scores[f"vote/{weights}"] = arm(4 + number, weights, weights, voting)
                names[f"vote/{weights}"] = f"majority of {votes}, {'cold start' if weights == 'cold' else weights}"

    results: dict[str, Any] = {
        "accuracy": scores[SYSTEM].accuracy,
        "tokens_per_question": float(scores[SYSTEM].tokens.mean()),
        "table": [{"arm": key} | scores[key].row(name) for key, name in names.items() if key in scores],
        "players": PLAYERS,
        "crossplay": {key: scores[key].accuracy for key in CROSSPLAY if "cold/trained" in scores},
        "ways_by_kind": scores[SYSTEM].ways_by_kind(),
    }
    return results, scores


def _votes(alone: Score, tokens: int) -> int:
    """How many rollouts spend at least so many tokens of a question."""
    return max(1, math.ceil(tokens / max(float(alone.tokens.mean()), 1e-9)))
