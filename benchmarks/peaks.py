"""What accelerators could do at most, as published, to say which share of it was reached."""

from __future__ import annotations

from dataclasses import dataclass

from metaagentx.ahead.chips import CHIPS


@dataclass(frozen=True, slots=True)
class Peak:
    """Published numbers of one device."""

    bandwidth: float  # of its memory, bytes/s
    flops: float  # bfloat16 FLOP/s with float32 sums, dense


# NVIDIA's data sheets ("H100 Tensor Core GPU", "H200 Tensor Core GPU", "A100 Tensor Core GPU"), by JAX's device kind.
PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(3.35e12, 989.4e12),  # SXM
    "NVIDIA H100 PCIe": Peak(2.0e12, 756e12),
    "NVIDIA H200": Peak(4.8e12, 989.4e12),
    "NVIDIA A100-SXM4-80GB": Peak(2.039e12, 312e12),
    "NVIDIA A100-SXM4-40GB": Peak(1.555e12, 312e12),
    "TPU v5 lite": Peak(CHIPS["v5e"].bandwidth, CHIPS["v5e"].peak),
    "TPU v5p": Peak(CHIPS["v5p"].bandwidth, CHIPS["v5p"].peak),
    "TPU v6 lite": Peak(CHIPS["v6e"].bandwidth, CHIPS["v6e"].peak),
}


def decode_bandwidth(weights: int, cache: int, steps: int, seconds: float) -> float:
    """Bytes/s that decoding reads at least: at every step all `weights` (bytes), and `cache` (bytes) in all steps."""
    return (weights * steps + cache) / seconds


def update_flops(weights: int, tokens: int, seconds: float) -> float:
    """Model FLOP/s of an update: 2 for each weight and token forward, 4 backward (arXiv 2001.08361, section 2.1)."""
    return 6 * weights * tokens / seconds
