import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters, errors, params
from metaagentx.policy.adapters import LoraOptions, attach
from metaagentx.policy.config import Experts
from metaagentx.policy.load import load
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.pretrained_tokenizer import check_vocabulary, read_tokenizer
from metaagentx.policy.save import save
from metaagentx.policy.tokenizer import build
from tests.policy import tiny

TOKENIZER = build(["ab", "cd"], "abcd ", max_length=64)
MIXTURE = dataclasses.replace(tiny.config(), experts=Experts(count=4, active=2, d_ff=16, normalise=True))


def draw(config):
    random = np.random.default_rng(0)
    return jax.tree.map(lambda w: jnp.asarray(random.standard_normal(w.shape), w.dtype), params.abstract(config))


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b))


@pytest.mark.parametrize("config", [tiny.config(), tiny.config(tied=False, dtype="bfloat16"), MIXTURE])
@pytest.mark.parametrize("shard_bytes", [10**9, 3000])
def test_what_is_saved_is_loaded_again(tmp_path, config, shard_bytes):
    weights = draw(config)
    save(tmp_path / "model", weights, config, shard_bytes=shard_bytes)
    assert read_config(tmp_path / "model", config.dtype) == config
    assert same(load(tmp_path / "model", config), weights)


@pytest.mark.parametrize("config", [tiny.LLAMA, MIXTURE])
def test_a_mesh_saves_the_bytes_that_one_device_saves(tmp_path, config):
    mesh = make_mesh(2, 2, 2)
    weights = draw(config)
    save(tmp_path / "one", weights, config)
    save(tmp_path / "mesh", jax.device_put(weights, params.shardings(config, mesh)), config)
    one, many = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "mesh"))
    assert one == many


def test_files_are_cut_in_the_order_of_layers_and_indexed(tmp_path):
    config = tiny.config()
    save(tmp_path / "model", draw(config), config, shard_bytes=30_000)
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    files = sorted(p.name for p in (tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 1
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    held = {name: load_file(tmp_path / "model" / name) for name in files}
    assert index["weight_map"] == {tensor: name for name, content in held.items() for tensor in content}
    assert index["metadata"]["total_size"] == 4 * params.count(config)
    assert all(sum(w.nbytes for w in content.values()) <= 30_000 for content in held.values())
    assert list(index["weight_map"]) == sorted(index["weight_map"], key=lambda name: "layers.1" in name)


def test_a_tied_head_is_not_written_and_the_dtype_is_the_configs(tmp_path):
    config = tiny.config(dtype="bfloat16")
    weights = draw(tiny.config())  # float32 masters
    save(tmp_path / "model", weights, config)
    held = load_file(tmp_path / "model/model.safetensors")
    assert "lm_head.weight" not in held
    assert {w.dtype for w in held.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert json.loads((tmp_path / "model/config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_tokenizer_and_its_template_come_along(tmp_path):
    config = tiny.config()
    save(tmp_path / "model", draw(config), config, TOKENIZER)
    again = read_tokenizer(tmp_path / "model")
    messages = [{"role": "user", "content": "abcd"}]
    assert again.apply_chat_template(messages) == TOKENIZER.apply_chat_template(messages)
    assert json.loads((tmp_path / "model/config.json").read_text())["eos_token_id"] == TOKENIZER.eos_token_id
    assert read_config(tmp_path / "model", "float32") == config


def test_an_existing_directory_is_kept(tmp_path):
    config = tiny.config()
    with pytest.raises(FileExistsError, match="new directory"):
        save(tmp_path, draw(config), config)


def test_a_save_that_fails_leaves_no_directory_and_the_next_one_succeeds(tmp_path, monkeypatch):
    config = tiny.config()
    weights = draw(config)
    with monkeypatch.context() as patch:
        patch.setattr(TOKENIZER, "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path / "model", weights, config, TOKENIZER)
    assert not (tmp_path / "model").exists()
    save(tmp_path / "model", weights, config, TOKENIZER)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_weights_that_are_not_the_configs_are_refused_before_anything_is_written(tmp_path):
    config = tiny.config()
    weights = draw(config)
    with pytest.raises(ValueError, match=r"embed_tokens.weight must be an array of shape \(50, 32\), not of shape"):
        save(tmp_path / "model", weights, dataclasses.replace(config, vocab_size=50))
    options = LoraOptions(rank=2, alpha=4.0, targets="q")
    adapted = attach(weights, adapters.initialise(config, options, jax.random.key(1)), options)
    with pytest.raises(ValueError, match=r"q_proj.weight must be an array .* not Adapted; merge adapters first"):
        save(tmp_path / "model", adapted, config)
    with pytest.raises(ValueError, match="no family"):
        save(tmp_path / "model", weights, dataclasses.replace(config, qkv_bias=True))
    assert not list(tmp_path.iterdir())


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(errors.NoConfig, match=r"config\.json"):
        read_config(tmp_path, "float32")


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(errors.NoTokenizer, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(errors.NoTokenizer, match=str(tmp_path)):
        read_tokenizer(tmp_path)


def test_a_tokenizer_without_chat_template_is_refused(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(errors.NoChatTemplate, match="base model"):
        read_tokenizer(tmp_path)


def test_a_model_may_have_more_ids_than_the_tokenizer_and_not_fewer():
    check_vocabulary(TOKENIZER, dataclasses.replace(tiny.config(), vocab_size=len(TOKENIZER)))
    check_vocabulary(TOKENIZER, dataclasses.replace(tiny.config(), vocab_size=len(TOKENIZER) + 100))
    with pytest.raises(errors.VocabularyTooLarge, match=r"vocab_size \(12\).*outside: ' ', 'd'"):
        check_vocabulary(TOKENIZER, dataclasses.replace(tiny.config(), vocab_size=12))
