"""A tiny team on one CPU core: a main agent and two kinds of sub-agents, each role with weights of its own (M-GRPO).

    python -m metaagentx.train --config=configs/tiny_team.py --workdir=runs/tiny_team

A question is one, two or three questions of reasoning-gym in one: sums, divisors, products, words to spell backward.
The main agent hands the parts to sub-agents, `calc` (which has a calculator for divisors and products) and `solver`
(which has none), a sum perhaps step by step over two rounds, and hands in all answers. A cold start imitates a noisy
teacher: it delegates almost without regard to the question, and is wrong on one part in four. Then both roles train, at
first on questions of one part.

Variants, `--config=configs/tiny_team.py:NAME`: `team` (default), `frozen_sub` (the main agent alone trains), `single`
(an agent without sub-agents, which has the calculator itself).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base, tiny
from metaagentx.tasks.palette import TINY_PALETTE
from metaagentx.tasks.team_teacher import ALONE_PROMPT, CALCULATOR, MAIN_PROMPT, SOLVER
from metaagentx.teams.options import SubAgentOptions, TeamOptions

VARIANTS = ("team", "frozen_sub", "single")
SOLVE, TOOL = TINY_PALETTE["solve"], TINY_PALETTE["tool"]
TEAM = TeamOptions(
    system_prompt=MAIN_PROMPT,
    subs={
        SOLVER: SubAgentOptions(system_prompt=SOLVE.system_prompt),
        CALCULATOR: SubAgentOptions(system_prompt=TOOL.system_prompt, tools=TOOL.tools, max_turns=TOOL.max_turns),
    },
    rounds=3,
    errands=8,
)
ALONE = TeamOptions(system_prompt=ALONE_PROMPT, tools=TOOL.tools, rounds=3)


def get_config(variant: str = "team") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/tiny_team.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = base.get_config(ALONE if variant == "single" else TEAM)

    config.model = tiny.model(vocab_size=76, max_length=144)
    config.policies.layout = "split"
    config.task.kind = "compound"
    config.task.team_lessons.main = 0.2
    config.task.team_lessons.alone = 0.2
    config.task.team_lessons.noise = 0.05
    config.task.teacher.call = 0.9  # what has no calculator hardly learns to do without

    config.engine.slots = 128
    config.engine.capacity = 144
    config.engine.capacity_buckets = (48, 96)
    config.engine.prompt_buckets = (32, 112)
    config.engine.admit_buckets = (32, 128)
    config.engine.chunk = 4
    config.engine.share_unit = 8
    config.sampling.main.max_tokens = 40

    config.roles.main.optimizer.name = "muon"
    config.roles.main.optimizer.muon_learning_rate = 1e-3
    config.roles.main.optimizer.learning_rate = 2e-4
    config.stages.mode = "joint"
    if variant != "single":
        config.sampling.sub.max_tokens = 14
        config.roles.sub.optimizer.name = "muon"
        config.roles.sub.optimizer.muon_learning_rate = 2e-3
        config.roles.sub.optimizer.learning_rate = 2e-4

    config.pack.row_length = 144
    config.pack.row_buckets = (112,)
    config.pack.micro_rows = 16

    config.cold_start.steps = 500
    config.cold_start.batch = 192
    config.cold_start.demonstrations = 40_000
    config.cold_start.optimizer.name = "muon"
    config.cold_start.optimizer.muon_learning_rate = 0.02
    config.cold_start.optimizer.learning_rate = 4e-3
    config.cold_start.optimizer.warmup_steps = 20
    start = config.cold_start  # its rate falls to 0 over all steps after the warm-up, however many flags make of them
    start.optimizer.decay_steps = start.get_ref("steps") - start.optimizer.get_ref("warmup_steps")

    config.train.curriculum.steps = 10
    config.train.curriculum.kinds = ("one",)
    config.train.steps = 80
    config.train.questions = 16

    if variant == "frozen_sub":
        config.stages.mode = "main_only"
    if variant == "single":
        config.evaluate.vote_tokens = 50  # what the trained team spends on a question, at most
    return config
