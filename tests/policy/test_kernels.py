"""Which kernel is taken where, and what is said of it."""

from __future__ import annotations

import dataclasses
import logging

import jax
import pytest

from configs import smollm2_gym
from metaagentx.mesh import make_mesh
from metaagentx.policy import kernels
from metaagentx.policy.attention import STEMS
from metaagentx.settings import read
from tests.policy import tiny

QWEN3 = dataclasses.replace(tiny.config(dtype="bfloat16"), heads=32, kv_heads=8, head_dim=128)
SMOLLM2 = dataclasses.replace(tiny.config(dtype="bfloat16"), heads=9, kv_heads=3, head_dim=64)
WIDE = dataclasses.replace(SMOLLM2, dtype="float32")


@pytest.fixture(autouse=True)
def log(caplog):
    """Every choice is made anew, and heard."""
    kernels._for_rows.cache_clear()
    kernels._for_decoding.cache_clear()
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    ("platform", "config", "prompts", "packed", "decoding"),
    [
        ("tpu", QWEN3, "splash", "splash", "paged"),
        ("tpu", SMOLLM2, "splash", "splash", "paged"),
        ("gpu", QWEN3, "cudnn", "triton", "cudnn"),
        ("gpu", SMOLLM2, "cudnn", "triton", "cudnn"),
        ("gpu", WIDE, "blocked", "triton", "dense"),
        ("gpu", dataclasses.replace(QWEN3, head_dim=80), "cudnn", "blocked", "cudnn"),
        ("cpu", QWEN3, "blocked", "blocked", "dense"),
    ],
)
def test_what_suits_a_platform_is_taken(platform, config, prompts, packed, decoding):
    assert kernels.for_prompts("auto", config, 8192, platform) == prompts
    assert kernels.for_packed("auto", config, 8192, platform) == packed
    assert kernels.for_decoding("auto", config, platform) == decoding


def test_short_rows_are_dense_or_in_strips_on_a_cpu_and_masked_by_cudnn_on_a_gpu():
    assert kernels.for_packed("auto", QWEN3, 128, "cpu") == "dense"
    assert kernels.for_packed("auto", QWEN3, 512, "cpu") == "strips"
    assert kernels.for_packed("auto", QWEN3, 4096, "gpu") == "cudnn"


@pytest.mark.parametrize(
    ("platform", "length", "taken"),
    [("cpu", 256, "dense"), ("cpu", 768, "strips"), ("cpu", 4096, "blocked"), ("tpu", 768, "blocked")],
)
def test_rows_of_shared_prompts_take_a_kernel_that_can_attend_to_them(platform, length, taken, log):
    assert kernels.for_packed("auto", QWEN3, length, platform, stems=True) == taken
    (message,) = log.messages
    assert message.startswith(f"pack.attention: '{taken}' ")
    assert ("it cannot attend to shared prompts" in message) == (platform == "tpu")


def test_the_published_models_run_shares_prompts_wherever_it_runs():
    pack = read(smollm2_gym.get_config()).pack
    model = dataclasses.replace(SMOLLM2, dtype="float32")
    assert pack.prompt_length
    for platform in ("cpu", "gpu", "tpu"):
        assert kernels.for_packed(pack.attention, model, pack.width, platform, stems=True) in STEMS


def test_a_choice_is_told_once(log):
    for _ in range(3):
        assert kernels.for_prompts("auto", QWEN3, 8192, "tpu") == "splash"
    assert [record.getMessage() for record in log.records] == ["engine.attention: 'splash' on this platform (tpu)"]


@pytest.mark.parametrize(
    ("choose", "choice", "config", "platform", "instead", "reason"),
    [
        (kernels.for_packed, "splash", QWEN3, "cpu", "dense", "it is for TPUs"),
        (kernels.for_prompts, "cudnn", WIDE, "gpu", "dense", "it wants bfloat16, not float32"),
        (kernels.for_prompts, "cudnn", dataclasses.replace(QWEN3, head_dim=20), "gpu", "dense", "not 20"),
        (kernels.for_packed, "triton", dataclasses.replace(QWEN3, head_dim=80), "gpu", "dense", "power of two"),
    ],
)
def test_a_kernel_that_cannot_be_had_gives_way_with_a_warning(choose, choice, config, platform, instead, reason, log):
    assert choose(choice, config, 64, platform) == instead
    (record,) = log.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(("engine.attention", "pack.attention"))
    assert reason in record.getMessage()


def test_three_key_value_heads_are_padded_to_four_and_that_is_said(log):
    assert kernels.for_decoding("paged", SMOLLM2, "tpu") == "paged"
    assert log.messages == ["its cache pads 3 key-value heads of 64 to 4 of 128"]


def test_heads_that_a_mesh_cuts_into_no_whole_tiles_fall_back_to_the_plain_cache(log):
    with jax.set_mesh(make_mesh(1, 1, 3, devices=jax.devices()[:3])):
        assert kernels.for_decoding("auto", SMOLLM2, "tpu") == "dense"
    (message,) = log.messages
    assert message == (
        "engine.decode_attention: 'dense' instead of 'paged': "
        "3 key-value heads on 3 devices of mesh.tensor are no whole tiles on each"
    )


def test_a_named_kernel_that_can_be_had_is_taken_without_a_word(log):
    assert kernels.for_packed("blocked", QWEN3, 16, "tpu") == "blocked"
    assert kernels.for_decoding("dense", QWEN3, "gpu") == "dense"
    assert not log.records
