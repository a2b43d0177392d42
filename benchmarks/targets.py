"""The ratios that the benchmarks are held to: a gate that must be passed, and a goal.

A ratio says how many times as good metaagentx is as what it is compared with, in the same run on the same cores, unless
the target says what it is. Keys of a record's "ratios" begin with these ids; what follows a "/" names the case.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What a number means, and how good it should be."""

    what: str
    gate: float
    goal: float
    less: bool = False  # less is better

    def passed(self, value: float, bound: float) -> bool:
        """Whether `value` is as good as `bound`."""
        return value <= bound if self.less else value >= bound


TARGETS = {
    "D1": Target("decode at batch 1, tokens/s against transformers", 2.0, 2.5),
    "D2": Target("decode at batch 8, tokens/s against transformers", 1.2, 1.5),
    "D3/32": Target("decode at batch 32, tokens/s against transformers", 1.25, 1.4),
    "D3/64": Target("decode at batch 64, tokens/s against transformers", 1.15, 1.4),
    "D3/tunix": Target("decode at batch 32, tokens/s against Tunix at equal capacity", 1.2, 1.5),
    "D4/hf": Target("recorded trees, useful tokens/s against transformers in waves", 2.2, 3.4),
    "D4/tunix": Target("recorded trees, useful tokens/s against Tunix's rollout in waves", 2.2, 3.4),
    "D4/waves": Target("recorded trees, useful tokens/s against the same engine in waves, nothing shared", 2.2, 3.4),
    "D5/1": Target("decode at batch 1, int8, tokens/s against llama.cpp with Q4_1", 0.4, 0.9),
    "D5/8": Target("decode at batch 8, int8, tokens/s against llama.cpp with Q4_1", 0.65, 1.1),
    "D5/32": Target("decode at batch 32, int8, tokens/s against llama.cpp with Q4_1", 1.1, 1.5),
    "P1": Target("prefill of the recorded trees, seconds without against with shared prefixes", 2.2, 2.5),
    "P1/tokens": Target("prefill of the recorded trees, tokens without against with shared prefixes", 2.2, 2.5),
    "T1/torch": Target("update at equal lengths, tokens/s against a torch GRPO step", 0.95, 1.3),
    "T1/tunix": Target("update at equal lengths, tokens/s against Tunix's trainer", 1.7, 2.3),
    "T2": Target("peak memory of the update as a share of torch's", 0.5, 0.3, less=True),
    "T2/speed": Target("speed of that update against torch", 0.85, 1.0),
    "T3": Target("update of a tree, tokens/s with against without shared prefixes", 1.55, 1.8),
    "T4": Target("update at ragged lengths, tokens/s packed against torch padded", 1.6, 2.0),
    "E1/torch": Target("one RL step of a tree, seconds of transformers and torch against ours", 2.5, 4.0),
    "E1/int8": Target("one RL step of a tree, sampling with 8-bit weights, against transformers and torch", 2.5, 4.0),
    "E1/tunix": Target("one RL step of a tree, seconds of Tunix against ours", 3.0, 5.0),
    "C1/compilations": Target("compilations after the warm-up", 0, 0, less=True),
    "C1/occupancy": Target("share of the slots that decode, recorded trees", 0.90, 0.97),
    "C1/warm_start": Target("seconds from the engine's start to its first call, compilations cached", 10, 5, less=True),
    "G1": Target("decode of SmolLM2-135M on a GPU, tokens/s against transformers", 10, 25),
    "G2/decode": Target("share of the memory bandwidth in decode", 0.60, 0.85),
    "G2/update": Target("share of the peak bfloat16 FLOP/s in the update", 0.40, 0.55),
}
