"""An engine that samples from weights in 8 bits: nearly what it samples from the weights themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.sampled import Ask


def logprobs(config, params, options):
    engine = Engine(config, options, ())
    engine.load(params, 1)
    for ticket in range(5):
        prompt = np.arange(2, 6 + ticket, dtype=np.int32)
        engine.submit(Ask(ticket, prompt, (0, 0, 0, 0, 0, ticket), SamplingOptions(0.0, max_tokens=1), "executor"))
    found = {}
    while len(found) < 5:
        found |= {ticket: sampled.logprobs[0] for ticket, sampled in engine.step()}
    return np.array([found[ticket] for ticket in range(5)])


@pytest.mark.parametrize("layers", ["stacked", "separate"])
def test_calls_are_answered_with_nearly_the_same_probabilities(config, params, options, layers):
    exact = logprobs(config, params, options)
    near = logprobs(config, params, dataclasses.replace(options, layers=layers, weights="int8"))
    assert 0 < np.abs(near - exact).max() < 0.2


def test_an_unknown_kind_of_weights_is_refused():
    with pytest.raises(ValueError, match=r"engine\.weights must be one of 'float', 'int8'"):
        EngineOptions(weights="int4")
