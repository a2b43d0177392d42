"""Which kernel computes attention: chosen once at start from platform, numbers and shapes, with a line in the log.

A kernel that is asked for by name and cannot be had here gives way to one that can, with a warning.
"""

from __future__ import annotations

import functools
import logging

import jax

from metaagentx.policy import cache_paged
from metaagentx.policy.attention import BLOCK, STEMS
from metaagentx.policy.config import DecodeChoice, DecodeKernel, Kernel, KernelChoice, ModelConfig

SHORT = 2048  # tokens of a row at most, for "strips": the program is as long as the row
MASKED = 4096  # tokens of a packed row at most, for cuDNN: its mask is a matrix of numbers, then of 32 MiB


def for_prompts(choice: KernelChoice, config: ModelConfig, length: int, platform: str | None = None) -> Kernel:
    """The kernel of `engine.attention`, for prompts of up to `length` tokens, each in a row of its own."""
    return _for_rows("engine.attention", choice, config, length, False, platform or jax.default_backend())


def for_packed(
    choice: KernelChoice, config: ModelConfig, length: int, platform: str | None = None, stems: bool = False
) -> Kernel:
    """The kernel of `pack.attention`, for rows of `length` tokens of several sequences, or with `stems` of trees."""
    return _for_rows("pack.attention", choice, config, length, True, platform or jax.default_backend(), stems)


def for_decoding(choice: DecodeChoice, config: ModelConfig, platform: str | None = None) -> DecodeKernel:
    """The kernel of `engine.decode_attention`, on the mesh of `jax.set_mesh` if there is one."""
    mesh = jax.sharding.get_abstract_mesh()
    return _for_decoding(choice, config, 1 if mesh.empty else mesh.shape["tensor"], platform or jax.default_backend())


@functools.lru_cache  # the log line comes once
def _for_rows(
    key: str, choice: KernelChoice, config: ModelConfig, length: int, packed: bool, platform: str, stems: bool = False
) -> Kernel:
    plain: Kernel = "dense" if length < BLOCK else "strips" if platform == "cpu" and length <= SHORT else "blocked"
    gpu: Kernel = "triton" if packed and length > MASKED else "cudnn"
    best: dict[str, Kernel] = {"tpu": "splash", "gpu": gpu}
    wanted = best.get(platform, plain) if choice == "auto" else choice
    reason = _unfit_for_rows(wanted, config, platform, stems)
    _tell(key, choice, wanted, platform, plain, reason)
    return wanted if reason is None else plain


@functools.lru_cache
def _for_decoding(choice: DecodeChoice, config: ModelConfig, tensor: int, platform: str) -> DecodeKernel:
    best: dict[str, DecodeKernel] = {"tpu": "paged", "gpu": "cudnn"}
    wanted = best.get(platform, "dense") if choice == "auto" else choice
    reason = _unfit_for_decoding(wanted, config, tensor, platform)
    _tell("engine.decode_attention", choice, wanted, platform, "dense", reason)
    if wanted == "paged" and reason is None:
        padded = cache_paged.tiled(config.kv_heads), -(-config.head_dim // cache_paged.LANES) * cache_paged.LANES
        if padded != (config.kv_heads, config.head_dim):
            logging.info(
                "its cache pads %d key-value heads of %d to %d of %d", config.kv_heads, config.head_dim, *padded
            )
    return wanted if reason is None else "dense"


def _unfit_for_rows(kernel: Kernel, config: ModelConfig, platform: str, stems: bool) -> str | None:
    """Why a kernel cannot be had; None if it can."""
    if stems and kernel not in STEMS:
        return "it cannot attend to shared prompts (pack.prompt_length)"
    if kernel == "splash" and platform != "tpu":
        return "it is for TPUs"
    if kernel == "cudnn":
        return _unfit_for_cudnn(config, platform)
    if kernel == "triton" and platform != "gpu":
        return "it is for GPUs"
    if kernel == "triton" and (config.head_dim < 16 or config.head_dim & (config.head_dim - 1)):
        return f"it wants heads of a power of two from 16, not {config.head_dim}"
    return None


def _unfit_for_decoding(kernel: DecodeKernel, config: ModelConfig, tensor: int, platform: str) -> str | None:
    if kernel == "cudnn":
        return _unfit_for_cudnn(config, platform)
    if kernel == "paged":
        return cache_paged.refusal(config, tensor) if platform == "tpu" else "it is for TPUs"
    return None


def _unfit_for_cudnn(config: ModelConfig, platform: str) -> str | None:
    if platform != "gpu":
        return "it is for GPUs"
    if config.dtype != "bfloat16":
        return f"it wants bfloat16, not {config.dtype}"
    if config.head_dim % 8 or config.head_dim > 128:
        return f"it wants heads of a multiple of 8 up to 128, not {config.head_dim}"
    return None


def _tell(key: str, choice: str, wanted: str, platform: str, plain: str, reason: str | None) -> None:
    if reason is not None:
        level = logging.INFO if choice == "auto" else logging.WARNING
        logging.log(level, "%s: %r instead of %r: %s", key, plain, wanted, reason)
    elif choice == "auto":
        logging.info("%s: %r on this platform (%s)", key, wanted, platform)
