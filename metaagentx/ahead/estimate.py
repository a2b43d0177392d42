"""What a compiled program will cost on a slice: memory against what the chip has, time against what it can do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax

from metaagentx.ahead.chips import Slice
from metaagentx.ahead.hlo import Cost
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.spec import table

# The share of what the matrix units can do at which Pallas' kernels (attention, products of experts) are taken to run,
# as the compiler cannot estimate them. A head narrower than a unit leaves the rest of the unit idle.
KERNEL_SHARE = 0.5
# How full slots are taken to be on average. A kernel that reads what a slot holds reads this share of the capacity.
FILLED = 0.5


@dataclass(frozen=True, slots=True)
class Seconds:
    """Estimated time of one run of a program, by what is waited for."""

    compute: float  # the compiler's estimate of its own operations, bandwidth of the HBM included
    kernels: float  # Pallas' kernels, at an assumed share of the peak, or of decoding at the HBM's bandwidth
    collectives: float  # bytes received over the published bandwidth of the links

    @property
    def overlapped(self) -> float:
        """If every collective is hidden behind computation."""
        return max(self.compute + self.kernels, self.collectives)

    @property
    def serial(self) -> float:
        """If none is."""
        return self.compute + self.kernels + self.collectives


def seconds(cost: Cost, where: Slice, config: ModelConfig) -> Seconds:
    """The time that `cost` takes on a chip of the slice."""
    chip = where.chip
    attention = cost.kernels / min(1.0, config.head_dim / chip.width)
    kernels = (attention + cost.ragged) / (KERNEL_SHARE * chip.peak) + FILLED * cost.cached / chip.bandwidth
    collectives = sum(moved / where.link_bandwidth(size) for size, moved in cost.collectives.items())
    return Seconds(cost.cycles / chip.clock, kernels, collectives)


def multiplied(config: ModelConfig) -> int:
    """Weights that one token is multiplied with: without the embedding's table, and active experts alone."""
    every = table(config)
    matrices = [spec for spec in jax.tree.leaves(every["layers"]) if len(spec.shape) > 2]
    count = sum(math.prod(spec.shape) for spec in matrices) + config.vocab_size * config.d_model  # and the head
    if config.experts is not None:
        idle = config.experts.count - config.experts.active
        count -= config.layers * idle * 3 * config.d_model * config.experts.d_ff
    return count


def forward_flops(config: ModelConfig, sequences: int, length: int) -> float:
    """FLOPs of the model's forward pass over whole causal sequences: two a weight and token, and attention's."""
    attention = 2 * config.layers * config.heads * config.head_dim * length**2  # two products of [T, T / 2]
    return sequences * (2.0 * multiplied(config) * length + attention)


def training_flops(config: ModelConfig, sequences: int, length: int) -> float:
    """FLOPs of forward and backward pass, without what is computed twice to save memory (PaLM, arXiv 2204.02311)."""
    return 3 * forward_flops(config, sequences, length)


def decode_flops(config: ModelConfig, slots: int, length: float) -> float:
    """FLOPs of one more token in every slot, over `length` tokens each."""
    return slots * (2.0 * multiplied(config) + 4 * config.layers * config.heads * config.head_dim * length)
