"""M-GRPO (arXiv 2511.13288) at its size: Qwen3-30B-A3B leads a team and is its sub-agents, each with its own weights.

    for POLICY in main sub; do  # each on devices of its own
        python -m metaagentx.teams.server --policy=$POLICY --config=configs/qwen3_30b_a3b_mgrpo.py \
            --workdir=/mnt/shared/mgrpo/$POLICY --store=postgresql://user@host/mgrpo \
            --config.task.files.train=train.jsonl --config.task.files.validation=dev.jsonl \
            --config.task.files.test=test.jsonl --config.task.tools.corpus=documents.jsonl
    done

or `python -m metaagentx.train` with the same flags, which holds both policies in one program.

From the paper and its released code: K = 8 rollouts of a question, sub-agents' trajectories aligned to the 99 %
quantile of their number, rewards 0.1 format + 0.9 correct of the main agent and 0.1 format + 0.4 correct + 0.5 local of
its sub-agents, both policies trained together at 1e-6, clip 0.2 / 0.28, no KL, temperature 1, no cold start. A judge
marks the local quality: an OpenAI-compatible server, here one of the same model on this machine
(`--config.policies.servers.judge.url`). The paper's sub-agents search and read; here others also compute.

Nobody has run this config. Its programs were compiled ahead of time for TPU slices: docs/scaling.md says which, what
memory they need and how fast they would be
(`python -m launch.aot --config configs/qwen3_30b_a3b_mgrpo.py --topology v5p:4x4x4`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import qwen3_8b
from metaagentx.learn.align import AlignOptions
from metaagentx.teams.options import SubAgentOptions, TeamOptions

TEAM = TeamOptions(
    system_prompt=(
        "You lead a team. Split the question into sub-tasks that can be done on their own, hand them to your "
        "sub-agents, several at once where they do not depend on each other, and put their reports together. A "
        "sub-agent sees nothing but the sub-task that you write: say all that it needs to know."
    ),
    subs={
        "researcher": SubAgentOptions(
            description="Searches documents, reads them, and reports what they say.",
            system_prompt="Answer the task from what you find. Search, read what looks useful, and report briefly.",
            tools=("search", "fetch_data"),
            max_turns=8,
        ),
        "calculator": SubAgentOptions(
            description="Evaluates formulas and runs small Python programs, and reports the result.",
            system_prompt="Compute what the task asks for, check the result, and report it.",
            tools=("calculator", "python_execute"),
            max_turns=8,
        ),
    },
    rollouts=8,  # K
    rounds=8,
    errands=16,
    local="judge",
    align=AlignOptions(quantile=0.99, weighting="duplicate", statistics="aligned"),
)


def get_config() -> ConfigDict:
    config = qwen3_8b.large(TEAM)
    config.pretrained.path = "Qwen/Qwen3-30B-A3B"
    config.pretrained.published = "configs/models/qwen3_30b_a3b.json"
    config.policies.layout = "split"
    config.policies.servers.judge.url = "http://localhost:8000/v1"
    config.policies.servers.judge.model = "Qwen/Qwen3-30B-A3B"
    config.sampling.judge.max_tokens = 16
    config.task.tools.names = ("search", "fetch_data", "calculator", "python_execute")
    config.engine.whole = False  # two engines and two policies leave no room

    config.loss.clip_low = 0.2
    config.loss.clip_high = 0.28
    for role in (config.roles.main, config.roles.sub):
        role.optimizer.learning_rate = 1e-6
    config.stages.mode = "joint"
    config.cold_start.steps = 0
    return config
