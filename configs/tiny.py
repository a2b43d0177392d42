"""The embedded default: a 230 k-parameter policy learns to design and to execute, on two CPU cores.

    python -m metaagentx.train --config=configs/tiny.py --workdir=runs/tiny

Questions come from reasoning-gym: sums of three and of five terms, greatest common divisors and products (the tiny
calculator knows `gcd` and `*` and nothing else), words to spell backward. A cold start imitates a noisy teacher: it
can write designs of every kind but not choose between them, and is right on one step of a sum about eight times in ten.
Stagewise reinforcement learning then improves both roles in turn. Expect held-out accuracy to go from about 44 % after
the cold start to about 80 %, against 43 % for self-consistency at the same tokens (README has the study).

Variants, `--config=configs/tiny.py:NAME`: `stagewise` (default), `joint`, `designer_only` (a frozen executor),
`executor_only` (a frozen designer), `static` (no designer: one hand-written design, its executor trained).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("stagewise", "joint", "designer_only", "executor_only", "static")


def model(vocab_size: int, max_length: int) -> ConfigDict:
    """A transformer of some 230 k parameters."""
    return ConfigDict(
        {
            "vocab_size": vocab_size,
            "d_model": 96,
            "layers": 3,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 24,
            "d_ff": 192,
            "rope_theta": 10_000.0,
            "rope_scaling": None,
            "norm_eps": 1e-6,
            "qkv_bias": False,
            "qk_norm": True,
            "experts": None,
            "tied_embeddings": True,
            "max_length": max_length,
            "dtype": "float32",
        }
    )


def get_config(variant: str = "stagewise") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/tiny.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = base.get_config()

    config.model = model(vocab_size=86, max_length=64)
    config.limits.agents = 12
    config.limits.model_calls = 12

    config.engine.slots = 256
    config.engine.capacity = 64
    config.engine.prompt_buckets = (16, 48)
    config.engine.admit_buckets = (32, 256)
    config.engine.chunk = 4
    config.engine.share = "prompt"  # prompts have some twenty tokens: another dispatch costs more than they do
    config.sampling.designer.max_tokens = 40
    config.sampling.executor.max_tokens = 14

    # An answer is worth less the more calls it took. Its form earns nothing; a design that cannot be read costs.
    config.tree.w_format = 0.0
    config.tree.w_invalid = 0.2
    config.tree.cost_form = "product"
    config.tree.cost_unit = "calls"
    config.tree.w_cost = 0.2
    config.tree.budget = 10
    config.credit.std_floor = 0.05

    config.roles.executor.optimizer.name = "muon"
    config.roles.executor.optimizer.muon_learning_rate = 1e-3
    config.roles.executor.optimizer.learning_rate = 2e-4
    config.roles.designer.optimizer.learning_rate = 3e-4
    config.roles.designer.entropy = 0.02
    config.stages.mode = "stagewise"
    config.stages.length = 10

    config.pack.row_length = 64
    config.pack.row_buckets = (512,)  # one bucket: passes over empty rows are skipped
    config.pack.micro_rows = 32

    config.cold_start.steps = 700
    config.cold_start.optimizer.name = "muon"
    config.cold_start.optimizer.muon_learning_rate = 0.02
    config.cold_start.optimizer.learning_rate = 4e-3
    config.cold_start.optimizer.warmup_steps = 20
    start = config.cold_start  # its rate falls to 0 over all steps after the warm-up, however many flags make of them
    start.optimizer.decay_steps = start.get_ref("steps") - start.optimizer.get_ref("warmup_steps")

    config.train.steps = 80
    config.train.questions = 16

    if variant == "static":
        config.stages.mode = "executor_only"
        config.tree.fixed_design = "a=solve()x5"
        config.tree.designs = 1
        config.tree.executions = 16
    else:
        config.stages.mode = variant
    return config
