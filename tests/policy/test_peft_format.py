from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters, errors
from metaagentx.policy.config import LoraOptions
from metaagentx.policy.hf_config import MissingConstant, UnsupportedSetting
from metaagentx.policy.peft_format import CONFIG, WEIGHTS, load_adapter, save_adapter
from tests.policy import tiny
from tests.policy.test_adapters import noisy

MODEL = tiny.QWEN3
OPTIONS = LoraOptions(rank=4, alpha=6.0, targets="[qkvo]")


@pytest.fixture
def saved(tmp_path):
    save_adapter(tmp_path / "adapter", noisy(1, MODEL, OPTIONS), OPTIONS, MODEL, base="some/base")
    return tmp_path / "adapter"


def test_a_saved_adapter_is_loaded_bit_for_bit_also_across_meshes(saved, tmp_path):
    adapter = noisy(1, MODEL, OPTIONS)
    loaded, options = load_adapter(saved, MODEL)
    assert dataclasses.replace(options, targets=OPTIONS.targets) == OPTIONS
    assert adapters.target_names(MODEL, options) == adapters.target_names(MODEL, OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, loaded, adapter)

    mesh = make_mesh(1, 4, 2)
    cut, options = load_adapter(saved, MODEL, mesh)
    assert jax.tree.map(lambda x: x.sharding, cut) == adapters.shardings(MODEL, OPTIONS, mesh)
    save_adapter(tmp_path / "again", cut, options, MODEL, base="some/base")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_a_bfloat16_adapter_is_saved_as_such(tmp_path):
    adapter = jax.tree.map(lambda x: x.astype(jnp.bfloat16), noisy(1, MODEL, OPTIONS))
    save_adapter(tmp_path / "half", adapter, OPTIONS, MODEL, base=None)
    assert {x.dtype.name for x in load_file(tmp_path / "half" / WEIGHTS).values()} == {"bfloat16"}
    loaded, _ = load_adapter(tmp_path / "half", MODEL)
    jax.tree.map(np.testing.assert_array_equal, loaded, jax.tree.map(np.float32, adapter))


def test_nothing_is_overwritten(saved):
    with pytest.raises(FileExistsError, match="adapter exists"):
        save_adapter(saved, noisy(2, MODEL, OPTIONS), OPTIONS, MODEL, base=None)


Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.pop(Q), errors.MissingTensors, f"lacks {Q} of the 16"),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": t[Q]}), errors.UnexpectedTensors, "lm_head"),
        (lambda t: t.update({Q: t[Q][:2]}), errors.WrongShape, r"layers.1.*q_proj.lora_A.weight is \[2, 32\], not \[4"),
        (lambda t: t.update({Q: t[Q].astype(np.float64)}), errors.WrongDtype, "q_proj.lora_A.weight is F64"),
        (lambda t: t.clear(), errors.UnexpectedTensors, "adapts none of q, k, v, o, gate, up, down"),
    ],
)
def test_tensors_that_are_not_one_pair_for_each_matrix_are_refused(saved, change, error, words):
    tensors = load_file(saved / WEIGHTS)
    change(tensors)
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(error, match=words):
        load_adapter(saved, MODEL)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"use_rslora": True}, UnsupportedSetting, "use_rslora must be null or false, not True"),
        ({"rank_pattern": {"q_proj": 2}}, UnsupportedSetting, "rank_pattern"),
        ({"bias": "all"}, UnsupportedSetting, 'bias must be "none", not'),
        ({"peft_type": "IA3"}, UnsupportedSetting, "peft_type"),
        ({"a_setting_of_tomorrow": 3}, UnsupportedSetting, "a_setting_of_tomorrow"),
        ({"r": None}, MissingConstant, "r must be a whole number above 0, not None"),
        ({"r": 8}, errors.WrongShape, r"is \[4, 32\], not \[8, 32\]"),
        ({"lora_alpha": "6"}, MissingConstant, "lora_alpha must be a number above 0, not '6'"),
    ],
)
def test_a_setting_that_changes_the_computation_is_refused_by_name(saved, change, error, words):
    raw = json.loads((saved / CONFIG).read_text()) | change
    (saved / CONFIG).write_text(json.dumps(raw))
    with pytest.raises(error, match=words) as caught:
        load_adapter(saved, MODEL)
    assert str(saved) in str(caught.value)


def test_files_that_are_not_there_or_not_whole_are_named(saved):
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(errors.DamagedFile, match=WEIGHTS):
        load_adapter(saved, MODEL)
    (saved / CONFIG).write_text("{")
    with pytest.raises(errors.DamagedFile, match=CONFIG):
        load_adapter(saved, MODEL)
    (saved / CONFIG).unlink()
    with pytest.raises(errors.MissingFile, match=f"has no {CONFIG}"):
        load_adapter(saved, MODEL)


def test_an_adapter_of_another_model_is_refused(saved):
    with pytest.raises(errors.WrongShape, match="k_proj"):
        load_adapter(saved, dataclasses.replace(MODEL, kv_heads=4))
    with pytest.raises(errors.UnexpectedTensors, match=r"layers\.1\."):
        load_adapter(saved, dataclasses.replace(MODEL, layers=1))
