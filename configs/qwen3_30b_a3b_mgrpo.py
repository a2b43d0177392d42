"""The model of M-GRPO (arXiv 2511.13288), Qwen3-30B-A3B, with weights of its own for each of two roles.

    python -m launch.aot --config configs/qwen3_30b_a3b_mgrpo.py --topology v5p:4x4x4

From the paper and its released code: K = 8 rollouts of a question, learning rate 1e-6, clip 0.2 / 0.28, no KL,
temperature 1. This config states the model, its lengths and its batch, in layout "split": two policies, each with its
weights and its optimiser. The roles are the designer and its executors; a main agent that calls sub-agents as tools is
not here yet, so this is the size of M-GRPO and not its algorithm.

Nobody has run this config. Its programs were compiled ahead of time for TPU slices: docs/scaling.md says which, what
memory they need and how fast they would be.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import qwen3_8b


def get_config() -> ConfigDict:
    config = qwen3_8b.get_config()
    config.pretrained.path = "Qwen/Qwen3-30B-A3B"
    config.pretrained.published = "configs/models/qwen3_30b_a3b.json"
    config.policies.layout = "split"
    config.engine.whole = False  # two engines and two policies leave no room

    config.tree.designs = 8  # K
    config.tree.executions = 1
    config.loss.clip_low = 0.2
    config.loss.clip_high = 0.28
    for role in (config.roles.designer, config.roles.executor):
        role.optimizer.learning_rate = 1e-6
    config.stages.mode = "joint"
    config.cold_start.steps = 0
    return config
