"""metaagentx's own training step, as a contestant."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.grpo import Sample
from metaagentx.learn.options import LossOptions, OptimizerOptions, PackOptions, RoleOptions, StageOptions
from metaagentx.learn.pack import pack
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.update import Compute, Recipe, update
from metaagentx.policy.gguf import read_gguf_config
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.kernels import for_packed
from metaagentx.policy.load import load
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.workflow.protocol import Outcome

ROLE = "executor"


class Ours:
    """SmolLM2-135M-Instruct in training, with the loss of `benchmarks.grpo`."""

    def __init__(self, dtype: str, learning_rate: float, clip: tuple[float, float]) -> None:
        path = find_smollm2()
        self.config = read_gguf_config(path, dtype)
        self.roles = {ROLE: RoleOptions(optimizer=OptimizerOptions(learning_rate=learning_rate))}
        self.loss = LossOptions(clip_low=clip[0], clip_high=clip[1], importance_cap=0.0)
        self.phase = phase(StageOptions(mode="executor_only"), (ROLE,), 0)
        self.state = create(load(path, self.config), self.roles, "per_role", master=True)

    def step(self, samples: Sequence[Sample], options: PackOptions) -> float:
        """One update on all samples, packed as `options` says. The norm of its gradients."""
        stems = options.prompt_length > 0
        attention = for_packed(options.attention, self.config, options.width, stems=stems)
        compute = Compute(
            self.config, options.micro_rows, options.chunk, options.remat, attention, unroll=options.unroll
        )
        recipe = Recipe(compute, self.loss, tuple(self.roles.items()), "per_role", gap_bound=np.inf)
        trajectories = [trajectory(sample, number) for number, sample in enumerate(samples)]
        advantages = np.array([sample.advantage for sample in samples], np.float32)
        batch = pack(trajectories, advantages, options, self.loss, keep_zero=True)
        self.state, metrics = update(self.state, {ROLE: batch}, self.phase, recipe)
        jax.block_until_ready(self.state)
        return float(metrics[f"{ROLE}/gradient_norm"])


def trajectory(sample: Sample, number: int) -> Trajectory:
    """A sample as the trajectory of execution `number`."""
    tokens = np.array(sample.prompt + sample.completion, np.int32)
    return Trajectory(
        tokens=tokens,
        loss_mask=np.arange(len(tokens)) >= len(sample.prompt),
        logprobs=np.zeros(len(tokens), np.float32),
        role=ROLE,
        agent="solver",
        turn=0,
        question=0,
        design=0,
        execution=number,
        version=0,
        outcome=Outcome.OK,
    )
