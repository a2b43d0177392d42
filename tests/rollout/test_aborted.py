"""A run that was aborted leaves nothing behind that the next run on the same samplers could get."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions, ServerOptions
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.scheduler import run
from metaagentx.workflow.protocol import Call, Fork
from tests.rollout.conftest import EOS
from tests.rollout.scripted import Adder, Letters, user
from tests.servers import Server, say

OPTIONS = EngineOptions(slots=2, capacity=24, prompt_buckets=(12,), admit_buckets=(2,), chunk=2)
SAMPLING = {"executor": SamplingOptions(max_tokens=8)}


class Spelled(Letters):
    """Text for a model of 13 tokens, and for a server."""

    end = EOS

    def begin(self, messages):
        return [2 + ord(letter) % 11 for message in messages for letter in message["content"]]

    def decode(self, ids):
        return ",".join(map(str, ids))

    def encode(self, text):
        return [*map(ord, text)]


def ask(text):
    return (yield Call("executor", "a", user(text))).text


def side_by_side(*branches):
    return (yield Fork(branches, "question"))


def raising_after(replies):
    for number in range(replies):
        yield Call("executor", "a", user("quick"), turn=number, max_tokens=1)
    raise KeyboardInterrupt


def drive(engine, *branches):
    process = side_by_side(*branches)
    return run(process, {"executor": engine}, Spelled(), Adder(), SAMPLING, seed=0, step=0)[0]


@pytest.mark.parametrize("replies", [0, 1])
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_run_after_an_aborted_one_gets_what_a_new_engine_gives(config, params, replies, ahead):
    """When it was aborted, calls were queued, and, after a reply, decoding or decoded and not read."""

    def fresh():
        engine = Engine(config, dataclasses.replace(OPTIONS, ahead=ahead), (EOS,))
        engine.load(params, 1)
        return engine

    def asked():
        return [ask("hello" + "x" * number) for number in range(5)]

    engine, expected = fresh(), drive(fresh(), *asked())
    with pytest.raises(KeyboardInterrupt):
        drive(engine, *(ask(text) for text in ("cc", "ddd", "ddd")), raising_after(replies), ask("last"))
    assert drive(engine, *asked()) == expected
    assert len({*expected}) == 5
    engine.load(params, 2)  # refused while calls are in flight


def test_a_late_answer_of_a_server_is_not_the_next_runs():
    aborted, server = threading.Event(), Server()

    def answer(handler, posted):
        text = posted["messages"][0]["content"]
        if text in "abc":
            aborted.wait(5)
        say(handler, text.upper())

    server.answer = answer
    sampler = Remote("executor", ServerOptions(url=server.url, model="m"), Spelled(), capacity=64)
    with pytest.raises(KeyboardInterrupt):
        drive(sampler, raising_after(1), *map(ask, "abc"))
    aborted.set()
    assert drive(sampler, *map(ask, "efgh")) == tuple(f"{ord(letter)},{EOS}" for letter in "EFGH")
    server.close()
