"""Small GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from metaagentx.policy.config import ModelConfig

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["h e", "Ġ t", "t he", "Ġ Ġ", "i n", "Ġt he"]
VOCABULARY = [*SPECIAL, *ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
TYPES = [3, 3, 3, 4, 4, *([1] * (len(VOCABULARY) - 5))]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    "the thing in there",
    " the  the   the\n\n\tin\r\n  ",
    "I'll don't WE'RE it's",
    "x=3.14159, y = -2e10; 1234567890 12 345",
    "naïve café 漢字かな Привет 🙂👩‍👩‍👧 e\u0301 \u00a0\u3000",
    "def f(x):\n    return x  # comment\n",
    "<|im_start|>user\nhi<|im_end|>\n<think>in</think>",
    "",
]
RENAMED = {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate.": "ffn_gate_inp.",
    "model.layers.": "blk.",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    cut: str = "smollm",
    **metadata: Any,
) -> Path:
    """`tensors` by Hugging Face name; matrices are stored as `kind`. `metadata` is set as it is (None: left out)."""
    writer = gguf.GGUFWriter(path, architecture)
    values = {
        "block_count": config.layers,
        "context_length": config.max_length,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.freq_base": config.rope_theta,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
    }
    if config.experts is not None:
        values["expert_count"] = config.experts.count
        values["expert_used_count"] = config.experts.active
        values["expert_feed_forward_length"] = config.experts.d_ff
    for name, value in {**values, **metadata}.items():
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(f"{architecture}.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([*VOCABULARY, *(f"[PAD{i}]" for i in range(len(VOCABULARY), config.vocab_size))])
    writer.add_token_types([*TYPES, *([5] * (config.vocab_size - len(VOCABULARY)))])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in _renamed(config, tensors, architecture).items():
        stored = kind if tensor.ndim > 1 and not name.endswith("ffn_gate_inp.weight") else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _renamed(config: ModelConfig, tensors: Mapping[str, np.ndarray], architecture: str) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    experts: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            tensor = _permute(tensor, config.heads if "q_proj" in name else config.kv_heads)
        head, _, expert = name.partition(".mlp.experts.")
        if expert:
            experts.setdefault(f"{head}.mlp.{expert.split('.', 1)[1]}", []).append(tensor)
            continue
        out[_ggml(name)] = tensor
    return out | {_ggml(name).replace(".weight", "_exps.weight"): np.stack(parts) for name, parts in experts.items()}


def _ggml(name: str) -> str:
    for theirs, ggml in RENAMED.items():
        name = name.replace(theirs, ggml)
    return name


def _permute(tensor: np.ndarray, heads: int) -> np.ndarray:
    """As in llama.cpp's convert_hf_to_gguf.py: the two halves of a head's channels are interleaved."""
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)
