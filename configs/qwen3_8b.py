"""MetaAgent-X (arXiv 2605.14212) at its size: Qwen3-8B designs and executes, by the paper's settings.

    python -m metaagentx.train --config=configs/qwen3_8b.py --workdir=/mnt/shared/qwen3_8b --distributed \
        --config.task.files.train=train.jsonl --config.task.files.validation=dev.jsonl \
        --config.task.files.test=test.jsonl --config.task.files.demonstrations=sharegpt.jsonl

From the paper and its released code: Qwen3 without thinking, a cold start on demonstrations of both roles, then 400
steps of 8 questions, M = N = 4, Adam at 5e-6, phases of 30 steps, executor first, temperature 1, prompts and replies of
up to 8192 tokens each, no KL and no entropy term. Two things differ. Its top-p 0.9 and top-k 20 are left out, since
what is never drawn is never learned from; `--config=configs/qwen3_8b.py:truncated` has them, and corrects the policies'
ratio for it (docs/sampling.md). A design's form earns 0.1 in all, where the released code pays 0.8.

The questions and demonstrations are yours (docs/tasks.md); `pip install -e '.[math,sandbox]'` grades them.

Nobody has run this config. Its programs were compiled ahead of time for TPU slices: docs/scaling.md says which, what
memory they need and how fast they would be
(`python -m launch.aot --config configs/qwen3_8b.py --topology v5p:4x4x4`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from metaagentx.teams.options import TeamOptions

LENGTH = 8192  # of a prompt, and of a reply
VARIANTS = ("plain", "truncated")


def get_config(variant: str = "plain") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/qwen3_8b.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = large()
    config.pretrained.path = "Qwen/Qwen3-8B"
    config.pretrained.published = "configs/models/qwen3_8b.json"
    config.task.tools.names = ("calculator", "python_execute")
    config.engine.whole = True

    if variant == "truncated":
        for sampling in config.sampling.values():
            sampling.top_k = 20
            sampling.top_p = 0.9

    config.tree.designs = 4
    config.tree.executions = 4
    config.tree.w_format = 0.1

    for role in config.roles.values():
        role.optimizer.name = "adamw"
        role.optimizer.learning_rate = 5e-6
    config.stages.mode = "stagewise"
    config.stages.length = 30
    config.stages.first = "executor"

    config.cold_start.steps = 500
    config.cold_start.demonstrations = 11_000  # 3 K designs and 8 K executions
    config.cold_start.batch = 64
    config.cold_start.optimizer.learning_rate = 1e-5
    config.cold_start.optimizer.warmup_steps = 20
    start = config.cold_start  # its rate falls to 0 over all steps after the warm-up, however many flags make of them
    start.optimizer.decay_steps = start.get_ref("steps") - start.optimizer.get_ref("warmup_steps")
    return config


def large(team: TeamOptions | None = None) -> ConfigDict:
    """What runs of this size have in common, whoever works: lengths, batches, and 64 chips of v5p that hold them."""
    config = base.get_config(team)
    config.pretrained.dtype = "bfloat16"
    config.pretrained.max_length = 2 * LENGTH
    config.pretrained.thinking = False
    config.task.kind = "files"
    config.task.files.grading = "equivalence"
    config.task.prompts = "full"

    config.mesh.data = 0
    config.mesh.fsdp = 16  # `configs/scaling.py` has other slices
    config.mesh.tensor = 1

    config.engine.slots = 128  # all executions of a step: 8 questions x 4 designs x 4
    config.engine.capacity = 2 * LENGTH
    config.engine.prompt_buckets = (1024, 4096, LENGTH)
    config.engine.admit_buckets = (16, 64)
    config.engine.chunk = 16
    config.engine.share_unit = 256  # each block reads its context anew: not too many of them in 8192 tokens
    config.engine.attention = "auto"
    config.engine.decode_attention = "auto"
    for sampling in config.sampling.values():
        sampling.max_tokens = LENGTH

    config.pack.row_length = 2 * LENGTH
    config.pack.row_buckets = (128, 512)
    config.pack.micro_rows = 64
    config.pack.chunk = 1024
    config.pack.remat = "attention"
    config.pack.attention = "auto"

    config.train.steps = 400
    config.train.questions = 8
    config.train.evaluate_every = 30
    config.evaluate.temperature = 1.0
    return config
