"""Claims about top-k, top-p and biases through the engine, against the trainer's distribution and their definition."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy.model import forward, unembed
from metaagentx.rollout.bias import Biases, kind
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask
from tests.rollout.test_draw import reachable, softmax
from tests.rollout.test_engine import EOS, finish, ids, prompts

SEVERAL = (
    SamplingOptions(max_tokens=8),
    SamplingOptions(max_tokens=8, top_k=3),
    SamplingOptions(max_tokens=8, top_p=0.6),
    SamplingOptions(max_tokens=8, top_k=5, top_p=0.8, bias=(("a", 2.0),)),
    SamplingOptions(max_tokens=8, only=("b",)),
)
ADDED = {
    SEVERAL[3]: np.array([2.0] + [0] * 12, np.float32),
    SEVERAL[4]: np.where(np.arange(13) % 3 == 1, 0, -np.inf).astype(np.float32),
}
BIASES = Biases(
    np.stack([np.zeros(13, np.float32), *ADDED.values()]),
    {kind("executor", sampling): row for row, sampling in enumerate(ADDED, 1)},
)


@pytest.fixture(scope="module")
def reshaping(config, params, options):
    few = dataclasses.replace(options, prompt_buckets=(12,), admit_buckets=(8,), share="none")
    engine = Engine(config, few, (EOS,), biases=BIASES, truncated=True)
    engine.load(params, 1)
    return engine


def sample(engine, rows, order=None):
    for number in order if order is not None else range(len(rows)):
        engine.submit(Ask(number, rows[number], ids(number), SEVERAL[number % len(SEVERAL)], "executor"))
    return finish(engine, len(rows))


def test_every_token_could_be_drawn_and_what_was_kept_is_the_trainers_mass(config, params, reshaping):
    rows, places = prompts(20), jnp.arange(24)[None]
    done = sample(reshaping, rows)
    see = jax.jit(
        lambda tokens: unembed(params, config, forward(params, config, tokens, places, jnp.ones_like(tokens)))
    )
    cut = 0
    for number, sampled in done.items():
        sampling = SEVERAL[number % len(SEVERAL)]
        tokens = np.zeros((1, 24), np.int32)
        row = np.concatenate([rows[number], sampled.tokens])
        tokens[0, : len(row)] = row
        logits = np.asarray(see(tokens))[0, len(rows[number]) - 1 : len(row) - 1]
        for token, logprob, kept, at in zip(sampled.tokens, sampled.logprobs, sampled.kept, logits, strict=True):
            drawn = softmax(at + ADDED.get(sampling, np.zeros(13)))
            drawn = np.where(reachable(drawn, sampling.top_k, sampling.top_p), drawn, 0)
            drawn /= drawn.sum()
            assert drawn[token] > 0
            np.testing.assert_allclose(logprob, np.log(softmax(at)[token]), atol=1e-4)
            np.testing.assert_allclose(kept, np.log(softmax(at)[token] / drawn[token]), atol=1e-4)
            cut += kept < -0.01
    assert cut > 30


def test_a_call_does_not_depend_on_how_its_neighbours_draw(params, reshaping):
    rows = prompts(20)
    expected = sample(reshaping, rows)
    reshaping.load(params, 1)
    other = sample(reshaping, rows, order=reversed(range(20)))
    for number in range(20):
        np.testing.assert_array_equal(expected[number].tokens, other[number].tokens)
        np.testing.assert_array_equal(expected[number].kept, other[number].kept)


def test_a_plain_call_is_the_same_in_an_engine_that_can_truncate(params, engine, reshaping):
    rows = prompts(8)
    reshaping.load(params, 1)
    for each in (engine, reshaping):
        for number, row in enumerate(rows):
            each.submit(Ask(number, row, ids(number), SEVERAL[0], "executor"))
    plain, other = finish(engine, 8), finish(reshaping, 8)
    for number in range(8):
        np.testing.assert_array_equal(plain[number].tokens, other[number].tokens)
        assert plain[number].kept is None
        np.testing.assert_allclose(other[number].kept, 0, atol=2e-6)
