"""The study of the tiny team: do sub-agents that train pay, at equal tokens?

    make team-study

runs this sweep, and then `python -m benchmarks.team_study runs/team_study`. Each of five seeds has a cold start of its
own, which its three arms share: main agent and sub-agents train (`team`), the main agent alone does (`frozen_sub`), an
agent works without sub-agents (`single`, in the tables also with the majority of so many answers that they cost at
least the team's tokens). Every arm stops at the same number of tokens generated in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import tiny_team

SEEDS = range(5)
TOKENS = 400_000


def get_config(variant: str = "team") -> ConfigDict:
    """The default; validation and checkpoints are rarer, as nobody watches."""
    config = tiny_team.get_config(variant)
    config.train.token_budget = TOKENS
    config.train.evaluate_every = 20
    config.train.checkpoint_every = 40
    config.train.keep = 1
    return config


def sweep() -> list[dict[str, Any]]:
    """Seed by seed."""
    return [job for seed in SEEDS for job in (_cold_start(seed), *_arms(seed))]


def _cold_start(seed: int) -> dict[str, Any]:
    flags = {"config.seed": seed, "config.train.steps": 0, "config.evaluate.baselines": False}
    return {"name": f"cold_start-{seed}", "group": "cold_start", **flags}


def _arms(seed: int) -> Iterator[dict[str, Any]]:
    cold = f"cold_start-{seed}"
    for arm in tiny_team.VARIANTS:
        yield {
            "name": f"{arm}-{seed}",
            "group": arm,
            "depends_on": cold,
            "config": f"configs/tiny_team_study.py:{arm}",
            "config.seed": seed,
            "config.train.steps": 10_000,
            "config.evaluate.baselines": arm != "frozen_sub",  # whose halves are in the tables of the others
            "config.cold_start.weights_from": "{workdir}/" + cold,
        }
