"""Claims about the cold start."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from metaagentx.learn.options import OptimizerOptions
from metaagentx.learn.supervised import begin, imitate, pack_demonstrations
from metaagentx.policy.model import forward, unembed
from metaagentx.policy.params import initialise
from tests.learn.examples import COMPUTE, CONFIG, PACK


@jax.jit
def score(params, rows):
    """Log-probabilities of every next token, one conversation a row."""
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
    hidden = forward(params, CONFIG, rows, positions, jnp.ones_like(rows))
    return jax.nn.log_softmax(unembed(params, CONFIG, hidden))


def test_loss_is_the_mean_cross_entropy_of_the_answers_and_falls() -> None:
    rng = np.random.default_rng(0)
    conversations = []
    for length in rng.integers(3, 10, 12):
        tokens = np.sort(rng.integers(1, CONFIG.vocab_size, length)).astype(np.int32)
        conversations.append((tokens, np.arange(length) >= 2))
    params = initialise(CONFIG, jax.random.key(0))

    rows = np.zeros((len(conversations), 10), np.int32)  # padded on the right: causal, so that nothing sees it
    for row, (tokens, _) in zip(rows, conversations, strict=True):
        row[: len(tokens)] = tokens
    logp = np.asarray(score(params, rows))
    nats, count = 0.0, 0
    for row, (tokens, mask) in zip(logp, conversations, strict=True):
        nats -= sum(row[t - 1, tokens[t]] for t in np.flatnonzero(mask))
        count += mask.sum()

    options = OptimizerOptions(learning_rate=1e-2)
    batch = pack_demonstrations(conversations, PACK)
    compute, state, losses = replace(COMPUTE, micro_rows=4), begin(params, options, master=True), []
    for _ in range(20):
        state, metrics = imitate(state, batch, options, compute)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[0], nats / count, rtol=1e-5)
    assert int(metrics["tokens"]) == count
    assert losses[-1] < 0.6 * losses[0]
