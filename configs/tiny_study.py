"""The study of the embedded default: does co-evolving both roles pay, at equal tokens?

    make study

runs this sweep, and then `python -m benchmarks.tiny_study runs/study`. Each seed has a cold start of its own, which all
its arms share; five seeds for the main arms, three for the rest. Every arm stops at the same number of tokens generated
in training (`TOKENS`, which stagewise training spends in about `STEPS` steps), but for two that compare joint training
at equal steps (`joint_steps`) and at equal updates of each role (`joint_updates`: half the steps, as each of them
trains both roles). `stagewise_N` has phases of N steps (the default: 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import tiny

SEEDS = range(5)
FEW_SEEDS = range(3)
STEPS = 80
TOKENS = 600_000
PHASES = (1, 5, 30)


def get_config(variant: str = "stagewise") -> ConfigDict:
    """The default; validation and checkpoints are rarer, as nobody watches."""
    config = tiny.get_config(variant)
    config.train.evaluate_every = 20
    config.train.checkpoint_every = 40
    config.train.keep = 1
    return config


def sweep() -> list[dict[str, Any]]:
    """Cold starts and main arms of all seeds first."""
    main = [job for seed in SEEDS for job in (_cold_start(seed), *_main(seed))]
    return main + [job for seed in FEW_SEEDS for job in _variants(seed)]


def _cold_start(seed: int) -> dict[str, Any]:
    flags = {"train.steps": 0, "evaluate.reference_designs": True, "evaluate.baselines": False}
    return {"name": f"cold_start-{seed}", "group": "cold_start"} | _flags(seed, flags)


def _main(seed: int) -> Iterator[dict[str, Any]]:
    equal = {"train.steps": 100 * STEPS, "train.token_budget": TOKENS}
    alone = equal | {"evaluate.baselines": False}
    static = tiny.get_config("static")
    fixed = {f"tree.{key}": static.tree[key] for key in ("fixed_design", "designs", "executions")}

    yield _arm("stagewise", seed, equal)
    for mode in ("designer_only", "executor_only", "joint"):
        yield _arm(mode, seed, alone | {"stages.mode": mode})
    yield _arm("static", seed, alone | fixed | {"stages.mode": static.stages.mode})


def _variants(seed: int) -> Iterator[dict[str, Any]]:
    alone = {"evaluate.baselines": False}
    equal = alone | {"train.steps": 100 * STEPS, "train.token_budget": TOKENS}

    yield _arm("joint_steps", seed, alone | {"stages.mode": "joint", "train.steps": STEPS})
    yield _arm("joint_updates", seed, alone | {"stages.mode": "joint", "train.steps": STEPS // 2})
    for length in PHASES:
        yield _arm(f"stagewise_{length}", seed, equal | {"stages.length": length})


def _arm(arm: str, seed: int, flags: dict[str, Any]) -> dict[str, Any]:
    cold = f"cold_start-{seed}"
    job = {"name": f"{arm}-{seed}", "group": arm, "depends_on": cold}
    return job | _flags(seed, flags | {"cold_start.weights_from": "{workdir}/" + cold})


def _flags(seed: int, flags: dict[str, Any]) -> dict[str, Any]:
    return {"config.seed": seed} | {f"config.{key}": value for key, value in flags.items()}
