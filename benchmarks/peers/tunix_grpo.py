"""Tunix (google-tunix): a step of its trainer with its GRPO loss.

Its Llama has a Python loop over layers and no scan, so that the step is one program of all thirty, forward and
backward, with AdamW on each of their 272 arrays: a minute of compilation, once on a machine (JAX keeps the program on
the disk). Hence one shape for all batches. It is given no recomputation, which is what is fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from tunix.rl.algo_core import grpo_loss_fn
from tunix.rl.common import TrainExample
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.rl.trainer import Trainer
from tunix.sft.peft_trainer import TrainingConfig

from benchmarks.grpo import Sample
from benchmarks.peers.tunix import NO_TOKEN, PAD, load


class TunixGrpo:
    """SmolLM2-135M-Instruct in training, with the loss of `benchmarks.grpo`. The program has been compiled and has run.

    Args:
      widths: what prompts and completions are padded to.
      size: samples of a batch.
      batches: of one update, whose gradients add up.
    """

    def __init__(
        self,
        dtype: str,
        learning_rate: float,
        clip: tuple[float, float],
        widths: tuple[int, int],
        size: int,
        batches: int = 1,
    ) -> None:
        self.widths = widths
        recipe = GRPOConfig(beta=0.0, epsilon=clip[0], loss_agg_mode="token-mean")
        recipe.epsilon_high, recipe.temperature = clip[1], 1.0  # its loss reads them, its constructor takes neither
        rule = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(learning_rate, weight_decay=0.0))
        config = TrainingConfig(
            eval_every_n_steps=1_000_000, gradient_accumulation_steps=batches if batches > 1 else None
        )
        self.trainer = Trainer(load(dtype), rule, config, custom_checkpoint_metadata_fn=dict)
        self.trainer.with_loss_fn(
            lambda model, train_example: grpo_loss_fn(model, train_example, recipe, PAD, NO_TOKEN), has_aux=True
        )
        self.trainer.with_gen_model_input_fn(lambda example: {"train_example": example})
        self.train_step, _ = self.trainer.jit_train_and_eval_step()
        self.step([Sample([1], [1], 1.0)] * size)
        if batches > 1:
            count = self.trainer.optimizer.opt_state.mini_step  # of optax.MultiSteps: at 0 it forgets what it summed
            count[...] = jnp.zeros_like(count[...])

    def step(self, samples: Sequence[Sample]) -> float:
        """One batch of an update: prompts padded on the left, completions on the right. The norm of its gradients."""
        before, after = self.widths
        prompts = jnp.array([[PAD] * (before - len(s.prompt)) + s.prompt for s in samples])
        completions = jnp.array([s.completion + [PAD] * (after - len(s.completion)) for s in samples])
        example = TrainExample(
            prompt_ids=prompts,
            prompt_mask=prompts != PAD,
            completion_ids=completions,
            completion_mask=completions != PAD,
            advantages=jnp.array([s.advantage for s in samples]),
            ref_per_token_logps=None,
            old_per_token_logps=None,
        )
        _, _, norm = jax.block_until_ready(self.train_step(example))
        return float(norm)
