"""What a run took, by one clock."""

from __future__ import annotations

import dataclasses

import pytest

from metaagentx.rollout.at_work import alone
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.measure import measure_work
from metaagentx.rollout.observed import observe
from metaagentx.rollout.options import SamplingOptions
from metaagentx.workflow.protocol import Call, Fork
from tests.rollout.conftest import EOS
from tests.rollout.scripted import Adder, user
from tests.rollout.test_aborted import Spelled

ROLES = ("main", "sub")


def talk(role, text):
    for turn in range(3):
        yield Call(role, role, user(text), turn=turn)


@pytest.mark.parametrize("ahead", [0, 1])
def test_seconds_in_which_two_engines_are_at_work_count_once(config, params, options, ahead):
    """Each waits for the other's chunks, too: a device does one after the other."""
    engines = {role: Engine(config, dataclasses.replace(options, ahead=ahead), (EOS,)) for role in ROLES}
    for engine in engines.values():
        engine.load(params, 1)
        engine.warmup()
    asked = Fork(tuple(talk(role, "a" * number) for role in ROLES for number in (1, 2, 3)), "question")

    def process():
        yield asked

    sampling = dict.fromkeys(ROLES, SamplingOptions(max_tokens=6))
    found = observe(process(), engines, Spelled(), Adder(), sampling, seed=0, step=0, share=alone)
    measured = measure_work(found.work, found.seconds)
    assert found.work.calls == 18
    assert measured["engine/prefill_seconds"] > 0
    assert measured["engine/decode_seconds"] > 0
    assert measured["engine/host_seconds"] >= 0
