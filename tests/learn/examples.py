"""Tiny policies and made-up trajectories for the tests of this room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metaagentx.learn.options import LossOptions, OptimizerOptions, PackOptions, RoleOptions
from metaagentx.learn.pack import Batch, pack
from metaagentx.learn.update import Compute, Recipe
from metaagentx.policy.config import ModelConfig
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.workflow.protocol import Outcome

CONFIG = ModelConfig(
    vocab_size=16,
    d_model=16,
    layers=2,
    heads=2,
    kv_heads=2,
    head_dim=8,
    d_ff=32,
    rope_theta=1e4,
    rope_scaling=None,
    norm_eps=1e-6,
    qkv_bias=False,
    qk_norm=True,
    experts=None,
    tied_embeddings=True,
    max_length=64,
    dtype="float32",
)
PACK = PackOptions(row_length=16, row_buckets=(8, 16), micro_rows=8)
ROLE = RoleOptions(optimizer=OptimizerOptions(learning_rate=1e-2, clip_norm=0.0))


def trajectory(tokens: list[int], prompt: int, role: str = "executor", ids: tuple = (0, 0, 0), **other) -> Trajectory:
    """`prompt` tokens without loss, the rest sampled with log-probability -2."""
    mask = np.arange(len(tokens)) >= prompt
    logprobs = np.where(mask, -2, 0).astype(np.float32)
    values = {"agent": "solver", "turn": 0, "version": 0, "outcome": Outcome.OK, **other}
    question, design, execution = ids
    return Trajectory(
        tokens=np.array(tokens, np.int32),
        loss_mask=mask,
        logprobs=logprobs,
        role=role,
        question=question,
        design=design,
        execution=execution,
        **values,
    )


def random_trajectories(count: int, seed: int = 0, role: str = "executor") -> list[Trajectory]:
    """Lengths 3 to 9; every third execution has two calls."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        length = int(rng.integers(3, 10))
        tokens = rng.integers(1, CONFIG.vocab_size, length).tolist()
        found.append(trajectory(tokens, int(rng.integers(1, length)), role, (0, 0, i - (i % 3 == 2))))
    return found


COMPUTE = Compute(config=CONFIG, micro_rows=8, chunk=16, remat="none", attention="dense")
ROLES = {"designer": ROLE, "executor": ROLE}
RECIPE = Recipe(compute=COMPUTE, loss=LossOptions(), roles=tuple(ROLES.items()), moments="per_role", gap_bound=10.0)
LAYOUTS = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]


def some_batch(count: int = 40, seed: int = 0, keep_zero: bool = True, loss: LossOptions = RECIPE.loss) -> Batch:
    """32 rows of trajectories with advantages of every sign."""
    advantages = np.random.default_rng(seed).choice([-1.5, 0.0, 0.5, 2.0], count).astype(np.float32)
    return pack(random_trajectories(count, seed), advantages, replace(PACK, row_buckets=(32,)), loss, keep_zero)
