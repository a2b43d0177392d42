"""The study of the embedded default: does co-evolving both roles pay, at equal tokens?

    make study        # = python -m launch.sweep --config=configs/tiny_study.py --workdir=runs/study
                      #   and then python -m benchmarks.tiny_study runs/study

Five seeds, each with a cold start of its own, which all arms of the seed share. Every training arm stops at the same
number of generated tokens (`TOKENS`). `joint` is run at equal tokens, at equal steps (`joint_steps`) and at equal role
updates (`joint_updates`), stagewise training at phase lengths 1, 5, 10 (the default) and 30.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import tiny

SEEDS = range(5)
STEPS = 120  # of the default run; what equal steps and equal role updates refer to
TOKENS = 600_000  # generated in training by every arm of the first table
PHASES = (1, 5, 30)


def get_config(variant: str = "stagewise") -> ConfigDict:
    """The default, with more test questions."""
    config = tiny.get_config(variant)
    config.evaluate.validation_questions = 100
    config.train.evaluate_every = 20
    config.train.checkpoint_every = 40
    config.train.keep = 1
    return config


def sweep() -> list[dict[str, Any]]:
    """One cold start a seed, then its arms."""
    return [job for seed in SEEDS for job in _jobs(seed)]


def _jobs(seed: int) -> list[dict[str, Any]]:
    cold = {"name": f"cold_start-{seed}", "group": "cold_start", "config.seed": seed, "config.train.steps": 0}
    jobs = [cold | {"config.evaluate.reference_designs": True}]

    def add(arm: str, **flags: Any) -> None:
        base = {
            "name": f"{arm}-{seed}",
            "group": arm,
            "depends_on": cold["name"],
            "config.seed": seed,
            "config.cold_start.weights_from": "{workdir}/" + str(cold["name"]),
        }
        jobs.append(base | {f"config.{key.replace('__', '.')}": value for key, value in flags.items()})

    equal_tokens = {"train__steps": 100 * STEPS, "train__token_budget": TOKENS}
    add("stagewise", **equal_tokens)
    for mode in ("designer_only", "executor_only", "joint"):
        add(mode, stages__mode=mode, **equal_tokens)
    static = tiny.get_config("static")
    add(
        "static",
        stages__mode=static.stages.mode,
        tree__fixed_design=static.tree.fixed_design,
        tree__designs=static.tree.designs,
        tree__executions=static.tree.executions,
        **equal_tokens,
    )
    for length in PHASES:
        add(f"stagewise_{length}", stages__length=length, **equal_tokens)
    add("stagewise_steps", train__steps=STEPS)
    add("joint_steps", stages__mode="joint", train__steps=STEPS)
    add("joint_updates", stages__mode="joint", train__steps=STEPS // 2)
    return jobs
