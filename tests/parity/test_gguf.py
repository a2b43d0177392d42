"""GGUF files: the weights that went in come out, and transformers reads the same model and the same tokens."""

import dataclasses

import jax
import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from metaagentx.mesh import make_mesh  # noqa: E402
from metaagentx.policy import errors, model  # noqa: E402
from metaagentx.policy.chat import Chat  # noqa: E402
from metaagentx.policy.config import Experts  # noqa: E402
from metaagentx.policy.load import load  # noqa: E402
from metaagentx.policy.pretrained_config import read_config  # noqa: E402
from metaagentx.policy.pretrained_tokenizer import check_vocabulary, read_tokenizer  # noqa: E402
from tests.parity import gguf_files  # noqa: E402
from tests.policy import checkpoints, tiny  # noqa: E402

# Rows are whole blocks of 32; transformers assumes heads of 128 for Qwen3, and experts of 768.
SMALL = dataclasses.replace(tiny.LLAMA, vocab_size=288, d_model=64, d_ff=96, heads=4, kv_heads=2, head_dim=16)
QWEN3 = dataclasses.replace(SMALL, qk_norm=True, heads=2, kv_heads=1, head_dim=128, tied_embeddings=True)
MODELS = {
    "llama": SMALL,
    "qwen2": dataclasses.replace(SMALL, qkv_bias=True, tied_embeddings=True),
    "qwen3": QWEN3,
    "qwen3moe": dataclasses.replace(QWEN3, experts=Experts(4, 2, 768, normalise=True)),
}
KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def scaled(config):
    """Weights small enough for a model to stay finite."""
    return {name: w * 0.2 + (w.ndim == 1) for name, w in checkpoints.tensors(config).items()}


@pytest.mark.parametrize("architecture", MODELS)
def test_a_gguf_file_is_the_checkpoint_that_it_was_made_of(tmp_path, architecture):
    config = MODELS[architecture]
    content = scaled(config)
    path = gguf_files.write(tmp_path / "m.gguf", config, content, architecture=architecture)
    assert read_config(path, "float32") == config
    wanted = load(checkpoints.single(tmp_path / "hf", content), config)
    jax.tree.map(np.testing.assert_array_equal, load(path, config), wanted)


@pytest.mark.parametrize("architecture", MODELS)
def test_transformers_reads_the_same_model(tmp_path, architecture):
    config = MODELS[architecture]
    path = gguf_files.write(tmp_path / "m.gguf", config, scaled(config), architecture=architecture)
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, 9))
    with torch.no_grad():
        wanted = torch.log_softmax(network.eval()(torch.tensor(tokens)).logits, -1).numpy()

    @jax.jit
    def log_probabilities(params):
        hidden = model.forward(params, config, tokens, np.arange(9)[None], np.zeros_like(tokens))
        return jax.nn.log_softmax(model.unembed(params, config, hidden))

    np.testing.assert_allclose(log_probabilities(load(path, config)), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_weights_are_what_gguf_says_they_are_on_every_mesh(tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    content = scaled(SMALL)
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, content, kind)
    rounded = {k: gguf.dequantize(gguf.quantize(v, kind), kind) if v.ndim > 1 else v for k, v in content.items()}
    wanted = load(checkpoints.single(tmp_path / "hf", rounded), SMALL)
    for mesh in (None, make_mesh(2, 2, 2)):
        jax.tree.map(np.testing.assert_array_equal, load(path, SMALL, mesh), wanted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "gemma"}, "general.architecture must be one of llama, qwen2, qwen3, qwen3moe, not 'gemma'"),
        ({"rope.freq_base": None}, "no llama.rope.freq_base"),
        ({"attention.head_count_kv": None}, "no llama.attention.head_count_kv"),
        ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.type"),
        ({"expert_count": 4}, "llama.expert_count"),
        ({"rope.dimension_count": 8}, "llama.rope.dimension_count must be the head's 16, not 8"),
        ({"attention.value_length": 8}, "llama.attention.value_length"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, change, says):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL), **change)
    with pytest.raises(errors.UnsupportedGguf) as refusal:
        read_config(path, "float32")
    assert says in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_scaling_is_accepted_when_it_is_none(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL), **{"rope.scaling.type": "none"})
    assert read_config(path, "float32") == SMALL


def test_stretched_frequencies_are_refused(tmp_path):
    content = scaled(SMALL) | {"rope_freqs.weight": np.ones(8, np.float32)}
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, content)
    with pytest.raises(errors.UnsupportedGguf, match="rope_freqs"):
        read_config(path, "float32")
    with pytest.raises(errors.UnexpectedTensors, match="rope_freqs"):
        load(path, SMALL)


def test_a_quantisation_that_gguf_cannot_undo_is_refused(tmp_path, monkeypatch):
    def refuses(data, kind):
        raise NotImplementedError

    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL))
    monkeypatch.setattr(gguf, "dequantize", refuses)
    with pytest.raises(errors.UnsupportedGguf, match="stored as F32"):
        load(path, SMALL)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -100])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL))
    path.write_bytes(path.read_bytes()[:keep])
    for read in (lambda: read_config(path, "float32"), lambda: load(path, SMALL), lambda: read_tokenizer(path)):
        with pytest.raises(errors.DamagedFile, match="no whole GGUF file"):
            read()


def test_a_model_of_another_size_is_refused(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL))
    with pytest.raises(errors.WrongShape, match="embed_tokens"):
        load(path, dataclasses.replace(SMALL, vocab_size=300))
    with pytest.raises(errors.MissingTensors, match="q_norm"):
        load(path, dataclasses.replace(SMALL, qk_norm=True))


@pytest.mark.parametrize("cut", ["smollm", "gpt-2", "qwen2", "llama-bpe"])
def test_tokens_are_those_of_transformers(tmp_path, cut):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL), cut=cut)
    ours = read_tokenizer(path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    assert ours.get_vocab() == theirs.get_vocab()
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens) == set(gguf_files.SPECIAL[:3])
    check_vocabulary(ours, SMALL)
    for text in gguf_files.TEXTS:
        if cut == "qwen2" and "\u0301" in text:
            continue  # the published Qwen2 tokenizer composes characters first, which transformers' reading leaves out
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL), cut="tekken")
    with pytest.raises(errors.UnsupportedGguf, match=r"tokenizer\.ggml\.pre must be .* not 'tekken'"):
        read_tokenizer(path)


def test_merges_outside_the_vocabulary_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files, "MERGES", ["zz z"])
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL))
    with pytest.raises(errors.DamagedFile, match="zz"):
        read_tokenizer(path)


def test_a_conversation_is_written_as_the_file_says(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", SMALL, scaled(SMALL))
    chat = Chat(read_tokenizer(path))
    assert chat.tokenizer.decode(chat.begin([{"role": "user", "content": "the<|im_end|>"}])) == (
        "<|im_start|>user\nthe <|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.end == 2
