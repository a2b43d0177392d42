"""Bias, temperature, top-k and top-p leave the tokens that transformers' processors leave, in their order."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from metaagentx.rollout.draw import Knobs, draw  # noqa: E402
from metaagentx.rollout.options import SamplingOptions  # noqa: E402

DRAWS, VOCABULARY = 3000, 500
OPTIONS = [
    SamplingOptions(top_k=7),
    SamplingOptions(top_p=0.9),
    SamplingOptions(temperature=0.7, top_k=20, top_p=0.9),
    SamplingOptions(temperature=1.6, top_k=200, top_p=0.95),
    SamplingOptions(temperature=1.3),
]
drawing = jax.jit(draw, static_argnums=5)


def theirs(logits, sampling, added):
    """The distribution of their processors, in the order in which `generate` has them (5.23): biases come first."""
    found = transformers.LogitsProcessorList()
    if added.any():
        found.append(transformers.SequenceBiasLogitsProcessor({(i,): float(added[i]) for i in np.flatnonzero(added)}))
    found.append(transformers.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        found.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(transformers.TopPLogitsWarper(sampling.top_p))
    scores = found(torch.zeros((1, 1), dtype=torch.long), torch.tensor(logits[None]))
    return torch.softmax(scores.double(), -1)[0].numpy()


@pytest.mark.parametrize("sampling", OPTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_probabilities_are_those_that_transformers_draws_with(sampling, biased):
    rng = np.random.default_rng(3)
    logits = (rng.normal(size=VOCABULARY) * 2).astype(np.float32)
    added = np.where(rng.random(VOCABULARY) < 0.2, rng.normal(size=VOCABULARY) * 3, 0).astype(np.float32) * biased
    expected = theirs(logits, sampling, added)
    table = np.stack([np.zeros_like(added), added])
    given = Knobs.of([sampling] * DRAWS, [1] * DRAWS, DRAWS)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    many = np.broadcast_to(logits, (DRAWS, VOCABULARY))
    tokens, logprobs, kept = map(np.asarray, drawing(many, given, keys, np.arange(DRAWS), table, True))
    np.testing.assert_allclose(np.exp(logprobs - kept), expected[tokens], rtol=1e-4)  # so none is drawn that they drop
    # And none that they keep is dropped: the probabilities of the rest would be larger.
    assert expected[np.unique(tokens)].sum() > 0.9
