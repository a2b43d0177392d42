"""GGUF files (llama.cpp's format) under Hugging Face's names: constants, and tensors dequantised as they are read.

Source of names and of the order of rows: llama.cpp, gguf-py/gguf/tensor_mapping.py and convert_hf_to_gguf.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.config import Experts, ModelConfig
from metaagentx.policy.errors import DamagedFile, UnsupportedGguf
from metaagentx.policy.tensors import Slices, Tensor

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")
WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
OF_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}

# What an architecture's metadata may say: what is read, what changes nothing here, and values that are computed here.
READ = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon",
    "attention.value_length", "block_count", "context_length", "embedding_length", "expert_count",
    "expert_feed_forward_length", "expert_used_count", "feed_forward_length", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type",
}  # fmt: skip
HARMLESS = {"tensor_data_layout", "vocab_size"}
FIXED: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_gating_func": (1,),  # softmax
    "expert_weights_norm": (True,),
}


def open_file(path: Path) -> Any:
    """A `gguf.GGUFReader`: metadata is parsed, tensors are mapped and not read.

    Raises:
      ModuleNotFoundError: the extra `gguf` is not installed.
      DamagedFile: it is no whole GGUF file.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs the extra `gguf`: pip install 'metaagentx[gguf]'") from error
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:  # the reader trusts what it parses
        raise DamagedFile(f"{path} ({path.stat().st_size} bytes) is no whole GGUF file: {error}") from error
    if reader.byte_order != "I":
        raise UnsupportedGguf(f"{path} is written in the other byte order; convert it on this machine")
    return reader


def read_gguf_config(path: Path, dtype: str) -> ModelConfig:
    """The model's constants, from the metadata.

    Raises:
      UnsupportedGguf: an architecture or position scheme other than those read here, or a key that is not there.
    """
    reader = open_file(path)
    architecture = _architecture(reader, path)
    names = {tensor.name for tensor in reader.tensors}

    def key(name: str) -> Any:
        return field(reader, path, f"{architecture}.{name}")

    scaling = reader.get_field(f"{architecture}.rope.scaling.type")
    if "rope_freqs.weight" in names or (scaling and scaling.contents() != "none"):
        raise UnsupportedGguf(
            f"{path} stretches its rotary positions ({architecture}.rope.scaling.type or rope_freqs.weight), which is "
            "read from a config.json only; load the Hugging Face checkpoint"
        )
    _refuse_unknown(reader, path, architecture)
    if architecture != "qwen3moe" and reader.get_field(f"{architecture}.expert_count"):
        raise UnsupportedGguf(f"{path}: {architecture}.expert_count; experts are read for qwen3moe only")

    heads, d_model = key("attention.head_count"), key("embedding_length")
    explicit = reader.get_field(f"{architecture}.attention.key_length")
    head_dim = explicit.contents() if explicit else d_model // heads
    for name in ("rope.dimension_count", "attention.value_length"):
        other = reader.get_field(f"{architecture}.{name}")
        if other and other.contents() != head_dim:
            raise UnsupportedGguf(
                f"{path}: {architecture}.{name} must be the head's {head_dim}, not {other.contents()}"
            )
    experts = None
    if architecture == "qwen3moe":  # llama.cpp always normalises this family's expert weights
        experts = Experts(
            key("expert_count"), key("expert_used_count"), key("expert_feed_forward_length"), normalise=True
        )
    return ModelConfig(
        vocab_size=len(field(reader, path, "tokenizer.ggml.tokens")),
        d_model=d_model,
        layers=key("block_count"),
        heads=heads,
        kv_heads=key("attention.head_count_kv"),
        head_dim=head_dim,
        d_ff=key("feed_forward_length"),
        rope_theta=_decimal(key("rope.freq_base")),
        rope_scaling=None,
        norm_eps=_decimal(key("attention.layer_norm_rms_epsilon")),
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture in ("qwen3", "qwen3moe"),
        experts=experts,
        tied_embeddings="output.weight" not in names,
        max_length=key("context_length"),
        dtype=dtype,
    )


def open_gguf(path: Path) -> dict[str, Tensor]:
    """Every tensor under its Hugging Face name, unread; quantised ones read as float32.

    Names that no table here knows are kept, for `load.check` to refuse.

    Raises:
      UnsupportedGguf: an architecture or a quantisation that is not read here.
      DamagedFile: it is no whole GGUF file.
    """
    reader = open_file(path)
    from gguf import dequantize

    permuted = _permuted(reader, path) if _architecture(reader, path) == "llama" else {}
    for kind, tensor in {tensor.tensor_type: tensor for tensor in reader.tensors}.items():
        try:
            dequantize(tensor.data[:1], kind)
        except NotImplementedError as error:
            raise UnsupportedGguf(f"{path}: {tensor.name} is stored as {kind.name}, which gguf cannot undo") from error

    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))  # GGUF counts dimensions from the last
        for name, data, part in _named(tensor.name, tensor.data, shape):
            rows = permuted.get(re.sub(r"blk\.\d+\.", "", tensor.name))
            tensors[name] = Tensor(part, "F32", path, _reader(data, tensor.tensor_type, part, rows))
    return tensors


def field(reader: Any, path: Path, name: str) -> Any:
    """A metadata value.

    Raises:
      UnsupportedGguf: it is not there.
    """
    found = reader.get_field(name)
    if found is None:
        raise UnsupportedGguf(f"{path} has no {name} in its metadata, and no value is guessed for it")
    return found.contents()


def _refuse_unknown(reader: Any, path: Path, architecture: str) -> None:
    """A key that is not known may change what the model computes: a window of attention, a scale of its logits."""
    for name, value in reader.fields.items():
        prefix, _, key = name.partition(".")
        if prefix != architecture or key in READ | HARMLESS or key.startswith("rope.scaling."):
            continue
        if value.contents() not in FIXED.get(key, ()):
            only = f", only {FIXED[key][0]}" if key in FIXED else ""
            raise UnsupportedGguf(f"{path}: {name}: {value.contents()!r} is not supported{only}")


def _architecture(reader: Any, path: Path) -> str:
    name = str(field(reader, path, "general.architecture"))
    if name not in ARCHITECTURES:
        raise UnsupportedGguf(f"{path}: general.architecture must be one of {', '.join(ARCHITECTURES)}, not {name!r}")
    return name


def _named(
    name: str, data: NDArray[Any], shape: tuple[int, ...]
) -> Iterator[tuple[str, NDArray[Any], tuple[int, ...]]]:
    """Hugging Face's name, the stored data and the shape of each tensor inside the one called `name`."""
    stem, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(.+)", stem)
    if layer and layer[2] in OF_EXPERTS:
        for expert in range(shape[0]):
            yield f"model.layers.{layer[1]}.{OF_EXPERTS[layer[2]].format(expert)}.{kind}", data[expert], shape[1:]
    elif layer and layer[2] in IN_LAYER:
        yield f"model.layers.{layer[1]}.{IN_LAYER[layer[2]]}.{kind}", data, shape
    else:
        yield f"{WHOLE[stem]}.{kind}" if stem in WHOLE else name, data, shape


def _permuted(reader: Any, path: Path) -> dict[str, NDArray[np.intp]]:
    """Where each row of llama's q and k is: llama.cpp pairs channels 2i and 2i + 1, Hugging Face i and i + H / 2."""
    heads = {"attn_q.weight": "attention.head_count", "attn_k.weight": "attention.head_count_kv"}
    rows = {}
    for name, count in heads.items():
        size = {int(tensor.shape[1]) for tensor in reader.tensors if tensor.name.endswith(f".{name}")}
        groups = field(reader, path, f"llama.{count}")
        if len(size) != 1 or min(size) % (2 * groups):
            raise UnsupportedGguf(f"{path}: every {name} must have as many rows in {groups} heads, not {sorted(size)}")
        rows[name] = np.arange(min(size)).reshape(groups, -1, 2).swapaxes(1, 2).ravel()
    return rows


def _reader(
    data: NDArray[Any], kind: Any, shape: tuple[int, ...], rows: NDArray[np.intp] | None
) -> Callable[[Slices], NDArray[Any]]:
    """Undoes the quantisation of the blocks that a slice touches, and cuts the slice out of them."""
    from gguf import GGML_QUANT_SIZES, dequantize

    block, stored = GGML_QUANT_SIZES[kind]  # values, bytes
    stored //= data.itemsize

    def read(index: Slices) -> NDArray[Any]:
        start, stop, _ = index[-1].indices(shape[-1])
        first, last = start // block, -(-stop // block)
        blocks = data[..., first * stored : last * stored]
        if len(shape) > 1:
            blocks = blocks[index[0] if rows is None else rows[index[0]]]
        return dequantize(blocks, kind)[..., start - first * block : stop - first * block]

    return read


def _decimal(value: float) -> float:
    """The constant that was meant: GGUF stores 1e-5 as float32, 9.9999997e-06 when widened."""
    return float(str(np.float32(value)))
