"""A GRPO step in torch, as TRL's trainer takes it: one padded batch, logits of completions alone, AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.grpo import Sample
from benchmarks.peers.hf import PAD, load


class TorchGrpo:
    """SmolLM2-135M-Instruct in training, with the loss of `benchmarks.grpo`."""

    def __init__(self, dtype: str, learning_rate: float, clip: tuple[float, float]) -> None:
        self.model, self.clip = load(dtype).train(), clip
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.0)

    def step(self, samples: Sequence[Sample], size: int | None = None) -> float:
        """One update on all samples, `size` of them at a time (None: all); gradients add up. Their norm."""
        size, tokens = size or len(samples), sum(len(sample.completion) for sample in samples)
        for begin in range(0, len(samples), size):
            self._learn(samples[begin : begin + size], tokens)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _learn(self, samples: Sequence[Sample], tokens: int) -> None:
        """The gradient of one batch of an update on `tokens`: prompts padded on the left, completions on the right."""
        low, high = self.clip
        before, after = max(len(s.prompt) for s in samples), max(len(s.completion) for s in samples)
        rows = [
            [PAD] * (before - len(s.prompt)) + s.prompt + s.completion + [PAD] * (after - len(s.completion))
            for s in samples
        ]
        real = [
            [0] * (before - len(s.prompt))
            + [1] * (len(s.prompt) + len(s.completion))
            + [0] * (after - len(s.completion))
            for s in samples
        ]
        ids, seen = (torch.tensor(x, device=self.model.device) for x in (rows, real))
        advantages = torch.tensor([s.advantage for s in samples], device=self.model.device)[:, None]
        mask = seen[:, before:].float()

        logits = self.model(ids, attention_mask=seen, logits_to_keep=after + 1, use_cache=False).logits[:, :-1]
        # TRL's `selective_log_softmax`: a row at a time, so that no second copy of the logits is held.
        logp = torch.stack(
            [row.log_softmax(-1).gather(-1, i[:, None])[:, 0] for row, i in zip(logits, ids[:, before:], strict=True)]
        )
        ratio = torch.exp(logp - logp.detach())
        gain = torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
        loss = -(gain * mask).sum() / tokens
        loss.backward()
