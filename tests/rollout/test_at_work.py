"""Tools run beside each other and beside the engines, and when they end changes no token that is trained on."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
import pytest

from metaagentx.policy.chat import Chat
from metaagentx.policy.params import initialise
from metaagentx.policy.tokenizer import build
from metaagentx.rollout.at_work import AtWork, alone
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions, TreeOptions
from metaagentx.rollout.sample import prompt_room, sample
from metaagentx.rollout.scheduler import run
from metaagentx.tasks.pieces import tiny_pieces
from metaagentx.workflow.protocol import Call, Fork, Message, Outcome, Reply, ToolCall, ToolCalls, ToolResult
from tests.rollout.arithmetic import LANGUAGE, Sums
from tests.rollout.scripted import Letters, Scripted, user

SAMPLING = {"designer": SamplingOptions(), "executor": SamplingOptions()}


def tool(name: str) -> ToolCall:
    return ToolCall(name, {}, "a")


class Told:
    """Tools that end when the test says so."""

    def __init__(self) -> None:
        self.futures: dict[str, Future[ToolResult]] = {}

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        self.futures[call.name] = Future()
        return self.futures[call.name]

    def end(self, name: str, ok: bool = True) -> None:
        self.futures[name].set_result(ToolResult(f"{name} ended", ok))


class Napping:
    """Tools that take a random time, in threads; with `most` 0 they end at once. Each tells what it was asked."""

    def __init__(self, most: float) -> None:
        self.most, self.draw = most, random.Random()
        self.pool = ThreadPoolExecutor(8)

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        result = ToolResult(str(len(str(call.arguments))), ok="1" in str(call.arguments))
        if not self.most:
            future: Future[ToolResult] = Future()
            future.set_result(result)
            return future
        seconds = self.draw.random() * self.most
        return self.pool.submit(lambda: time.sleep(seconds) or result)


def drive(process, engine, tools, **more):
    return run(process, {"designer": engine, "executor": engine}, Letters(), tools, SAMPLING, seed=0, step=0, **more)


def test_engines_go_on_while_a_tool_works_and_only_its_branch_waits():
    tools, asked = Told(), []

    def patient():
        (result,) = yield ToolCalls((tool("t"),))
        return result.text

    def busy():
        for turn in range(5):
            if turn == 3:
                tools.end("t")
            asked.append(turn)
            yield Call("executor", "a", user(f"{turn}"), turn=turn)
        return "busy"

    def root():
        return (yield Fork((patient(), busy())))

    value, _, spent = drive(root(), Scripted(lambda prompt: "ok"), tools)
    assert value == ("t ended", "busy")
    assert asked == [0, 1, 2, 3, 4]
    assert spent.idle_seconds == 0


def test_results_are_told_in_the_order_of_the_calls_and_failures_are_counted():
    tools = Told()

    def process():
        return (yield ToolCalls((tool("first"), tool("second"))))

    ender = threading.Timer(0.05, lambda: (tools.end("second", ok=False), time.sleep(0.05), tools.end("first")))
    ender.start()
    value, _, spent = drive(process(), Scripted(str), tools)
    assert [result.text for result in value] == ["first ended", "second ended"]
    assert (spent.tool_calls, spent.tool_failures) == (2, 1)
    assert spent.idle_seconds >= 0.1
    assert 0.1 < spent.tool_seconds <= 2 * spent.idle_seconds


def test_waiting_for_tools_alone_takes_no_processor_time():
    def process():
        return (yield ToolCalls((tool("nap"),)))

    class Nap:
        def submit(self, call):
            future = Future()
            threading.Timer(0.5, lambda: future.set_result(ToolResult("rested"))).start()
            return future

    begun = time.thread_time()
    value, _, spent = drive(process(), Scripted(str), Nap())
    assert value == (ToolResult("rested"),)
    assert spent.idle_seconds > 0.4
    assert time.thread_time() - begun < 0.1


def test_no_tools_are_no_wait():
    def process():
        return (yield ToolCalls(()))

    assert drive(process(), Scripted(str), Told())[0] == ()


def test_a_process_that_runs_no_tools_sees_them_end_as_the_first_does():
    """Two processes in threads: what the first finds is handed to the second, which has no tools at all."""
    found: list[list] = []

    def first(find):
        found.append(find())
        return found[-1]

    told = iter(found)

    def process():
        def branch(n):
            (result,) = yield ToolCalls((tool(str(n)),))
            return result

        return (yield Fork(tuple(branch(n) for n in range(20))))

    here = drive(process(), Scripted(str), Napping(0.01), share=first)
    there = drive(process(), Scripted(str), None, share=lambda find: next(told))
    assert here[0] == there[0]
    assert there[2].tool_calls == 20
    assert next(told, None) is None


def test_at_work_forgets_what_has_ended():
    tools = Told()
    at_work = AtWork(tools, alone)
    numbers = [at_work.begin(tool(name)) for name in "ab"]
    assert at_work.take(patient=False) == []
    tools.end("b")
    ((number, result, seconds),) = at_work.take(patient=True)
    assert (number, result.text, at_work.underway) == (numbers[1], "b ended", 1)
    assert seconds >= 0
    tools.end("a")
    assert [number for number, _, _ in at_work.take(patient=False)] == numbers[:1]
    assert at_work.underway == 0
    assert at_work.running == at_work.times == {}


class Caller:
    """A chat in which replies call a tool none to two times, a function of their tokens."""

    def __init__(self, chat: Chat) -> None:
        self.begin, self.extend, self.chat = chat.begin, chat.extend, chat

    def decode(self, ids):
        call = f'<tool_call>{{"name":"add","arguments":{{"expression":"{sum(ids)}"}}}}</tool_call>'
        return self.chat.decode(ids) + call * (sum(ids) % 3)


@pytest.mark.parametrize("admit_buckets", [(16,), (4, 16)])
def test_a_rollouts_content_does_not_depend_on_when_tools_end(config, admit_buckets):
    """With one bucket not a bit does; with two, log-probabilities do in the last bits (the sums of other programs)."""
    chat = Chat(build(tiny_pieces(), "", 64))
    config = dataclasses.replace(config, vocab_size=len(chat.tokenizer))
    engine = Engine(config, EngineOptions(16, 64, (64,), admit_buckets, 4), (chat.end,))
    weights = initialise(config, jax.random.key(0))
    task = Sums()
    sampling = {role: SamplingOptions(max_tokens=5) for role in SAMPLING}
    options = TreeOptions(designs=2, executions=2, tool_calls=9, fixed_design="a=tool()x2;b=tool({a}+1)")

    def roll(most: float):
        engine.load(weights, 0)
        questions = [task.question("train", index) for index in range(3)]
        engines = {"designer": engine, "executor": engine}
        return sample(
            task, questions, engines, Caller(chat), Napping(most), LANGUAGE, options, sampling, seed=0, step=0
        )

    calm = roll(0)
    assert calm.metrics["tools/calls"] > 20
    assert 0 < calm.metrics["tools/failures"] < calm.metrics["tools/calls"]
    for most in (0.003, 0.03):
        late = roll(most)
        if len(admit_buckets) == 1:
            assert late.digest() == calm.digest()
        _assert_same(late.trajectories, calm.trajectories)
        assert _results(late) == _results(calm)
        assert late.metrics["tools/seconds"] > calm.metrics["tools/seconds"]
        for name in ("tools/calls", "tools/failures", "rollout/refused_tool_calls", "rollout/generated_tokens"):
            assert late.metrics[name] == calm.metrics[name]


def _assert_same(late, calm):
    """The same rows with the same tokens, and log-probabilities but for rounding."""
    assert len(late) == len(calm)
    for one, other in zip(late, calm, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.loss_mask, other.loss_mask)
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
        place = [(row.question, row.design, row.execution, row.agent, row.turn, row.outcome) for row in (one, other)]
        assert place[0] == place[1]


def _results(rollout):
    return [execution.result for tree in rollout.trees for design in tree.designs for execution in design.executions]


@pytest.mark.parametrize(("longest", "reply", "room"), [(0, 5, 40), (0, 30, 34), (0, 60, 32), (20, 5, 20), (99, 5, 40)])
def test_prompts_have_room_beside_a_reply(config, longest, reply, room):
    engine = Engine(config, EngineOptions(8, 64, (40,), (8,), 4), (1,))
    assert prompt_room(engine, Letters(), longest, reply).longest == room


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CUT])
def test_room_counts_the_tokens_that_the_engine_will_be_given(config, outcome):
    engine = Engine(config, EngineOptions(8, 64, (40,), (8,), 4), (1,))
    chat = Chat(build(["hello "], "0123456789abc ", 64))
    room = prompt_room(engine, chat, 0, 5)
    first, more = (Message("system", "a"), Message("user", "1b")), (Message("tool", "22"), Message("user", "c"))
    ids = [*chat.begin([{"role": m.role, "content": m.content} for m in first])]
    assert room.begin(first) == len(ids)
    said = [*chat.encode("hello a"), *([chat.end] if outcome == Outcome.OK else [])]
    ids += said
    after = chat.extend(ids, [{"role": m.role, "content": m.content} for m in more], outcome == Outcome.OK)
    assert room.begin(first) + room.extend(Reply("hello a", outcome, len(said)), more) == len(after)
    np.testing.assert_array_equal(after[: len(ids)], ids)
