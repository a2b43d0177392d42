"""Which programs an engine has, and how many of them a wave takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask

EOS = 1


@pytest.fixture
def dispatches(monkeypatch):
    """Rows of each dispatch of blocks."""
    seen: list[int] = []

    def engine_with(config, params, options):
        engine = Engine(config, options, (EOS,))
        calls, refill = engine._programs.calls, engine._programs.calls.refill

        def counted(weights, state, rows, *rest):
            seen.append(rows)
            return refill(weights, state, rows, *rest)

        monkeypatch.setattr(calls, "refill", counted)
        engine.load(params, 1)
        return engine

    return engine_with, seen


@pytest.mark.parametrize(("length", "rows"), [(2, [1]), (4, [1]), (9, [3]), (12, [3])])
def test_a_prompt_alone_is_computed_in_one_dispatch_of_its_blocks(config, params, options, dispatches, length, rows):
    """Also where calls come one at a time: every dispatch reads all weights."""
    engine_with, seen = dispatches
    engine = engine_with(config, params, dataclasses.replace(options, slots=1, admit_buckets=(1,), share_unit=4))
    prompt = np.arange(length, dtype=np.int32) + EOS + 1
    engine.submit(Ask(0, prompt % config.vocab_size, (0, 0, 0, 0, -1, 0), SamplingOptions(max_tokens=1), "executor"))
    engine.step()
    assert seen == rows


def test_where_more_prompts_are_admitted_at_once_there_are_no_other_programs(config, params, options, dispatches):
    engine_with, seen = dispatches
    options = dataclasses.replace(options, prompt_buckets=(12,), admit_buckets=(1, 4), share_unit=4)
    engine = engine_with(config, params, options)
    list(engine._programs.calls.prompts(engine._weights, engine._programs.state))
    assert seen == [4, 1]
