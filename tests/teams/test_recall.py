"""A main agent whose policy and tools never say a thing twice: a step that is played again is the same all the same."""

from __future__ import annotations

import json
import random
import re
import secrets
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import pytest

from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.teams.recall import ASK, Answers, Recalled, placed
from metaagentx.teams.repeat import Repeating
from metaagentx.workflow.protocol import Fork, Outcome, ToolCall, ToolCalls, ToolResult
from tests.teams import pretend
from tests.teams.test_servers import PROCESSES, audited, wait_for

COIN = ToolCall("coin", {"side": "é"}, "main")
STEPS = 7


class Coin:
    """A tool that says something else whenever it is asked."""

    def __init__(self):
        self.asked = 0

    def submit(self, call):
        assert call.name == "coin"
        self.asked += 1
        future = Future()
        answer = ToolResult(f"{secrets.randbelow(20)} of {secrets.token_hex(8)} \ud800", secrets.randbelow(5) > 0)
        threading.Timer(0.005, future.set_result, [answer]).start()
        return future


class Bound(pretend.Dice):
    """First throws the coin, then delegates what it said, and answers so; as if every draw were within rounding."""

    def reply(self, ask):
        if ask.role != "main":
            return super().reply(ask)
        said = [message.content for message in ask.messages if message.role == "tool"]
        draw = random.SystemRandom()
        thrown = [re.findall("([0-9]+) of", text)[0] for text in said if " of " in text]
        if not thrown:
            text = pretend.called("coin", "") * draw.choice((1, 2))
        elif len(said) == len(thrown):
            text = pretend.called("adder", f"{draw.choice(thrown)}+2")
        else:
            text = f"={thrown[0]}"
        return pretend.spoken(text, draw)


class Gambler(pretend.Pretend):
    """A main agent with a coin of its own, which writes down what it said and was told in every step played whole."""

    tools = Coin()
    scene = replace(
        pretend.SCENE, options=replace(pretend.TEAM, tools=("coin",)), tool_texts={"coin": '{"name": "coin"}'}
    )

    def sampler(self):
        return Bound(self.weights, self.step, self.pause)

    def play(self, tools, answers):
        step = self.step
        trees, idle = super().play(tools, answers)
        turns = [
            [[result.text for result in turn.tool_results] for turn in graded.rollout.turns]
            for tree in trees
            for graded in tree.rollouts
        ]
        rows = [graded.trajectory for tree in trees for graded in tree.rollouts]
        said = [[array.tolist() for array in (row.tokens, row.logprobs, row.loss_mask)] for row in rows]
        with open(self._folder / "played", "a") as file:
            file.write(json.dumps([step, turns, said]) + "\n")
        return trees, idle


def answers_in(folder):
    """Key -> result, as a server that was killed leaves them."""
    if not (folder / "answers.db").exists():
        return {}
    with closing(sqlite3.connect(folder / "answers.db", timeout=60)) as database:
        if not database.execute("SELECT name FROM sqlite_master").fetchall():
            return {}
        return dict(database.execute("SELECT key, result FROM answers"))


def test_a_step_is_the_same_again_though_its_policy_and_tools_would_answer_otherwise(name, tmp_path):
    """The main agent's server is killed again and again, between and within steps."""
    url, had, draw = f"sqlite:///{tmp_path}/team.db", {}, random.Random(3)
    main = tmp_path / "main"
    subs = [
        threading.Thread(target=pretend.server, args=(policy, url, name, tmp_path / policy, STEPS), daemon=True)
        for policy in pretend.TEAM.sub_roles
    ]
    for thread in subs:
        thread.start()
    arguments = ("main", url, name, main, STEPS, 0.005, Gambler)
    for kills in range(6):
        server = PROCESSES.Process(target=pretend.process, args=arguments, daemon=True)
        server.start()
        if kills < 5:
            wait_for(lambda now=server: answers_in(main).keys() - had.keys() or now.exitcode is not None)
            time.sleep(draw.uniform(0, 0.3))
            server.kill()
        server.join(120)
        for key, result in answers_in(main).items():
            assert had.setdefault(key, result) == result
    assert server.exitcode == 0, (tmp_path / "main.log").read_text()
    for thread in subs:
        thread.join(60)

    found = audited(url, name, tmp_path)
    assert found.problems == []
    assert (found.steps, found.rollouts) == (STEPS, STEPS * 6)
    assert found.done > STEPS

    played = [json.loads(line) for line in (main / "played").read_text().splitlines()]
    by_step = {}
    for step, *found in played:
        assert by_step.setdefault(step, found) == found, "played again, and came out otherwise"
    assert len(played) > len(by_step), "no step was played again"
    told = {text for turns, _ in by_step.values() for rollout in turns for turn in rollout for text in turn}
    tools = {json.loads(result)[0] for key, result in had.items() if "reply" not in key}
    assert tools
    assert tools <= told, "what it had was forgotten"
    assert all(key >= f"{STEPS // 3 * 3 - 3:07}" for key in answers_in(main)), "what is saved twice need not be known"


def test_calls_are_named_by_where_they_stand_and_by_nothing_else():
    def branch(number):
        for _ in range(number):
            yield ToolCalls((COIN, COIN))

    def root():
        yield ToolCalls((COIN,))
        yield Fork((branch(1), branch(2)), "question")

    def keys(process):
        found, value = [], None
        while True:
            try:
                request = process.send(value)
            except StopIteration:
                return found
            if isinstance(request, Fork):
                found += [key for each in reversed(request.branches) for key in keys(each)]
                value = ()
            else:
                assert all((call.name, call.arguments["call"]) == (ASK, COIN) for call in request.calls)
                found += [call.arguments["key"] for call in request.calls]
                value = tuple(ToolResult("") for _ in request.calls)

    twos = [f"0000007/question 1/{number}" for number in range(4)]
    assert keys(placed(root(), 7)) == ["0000007/0", *twos, "0000007/question 0/0", "0000007/question 0/1"]


@pytest.fixture
def answers(tmp_path):
    answers = Answers(tmp_path / "answers.db")
    yield answers
    answers.close()


def asked(key, step=0, call=COIN):
    return ToolCall(ASK, {"call": call, "step": step, "key": key}, "main")


def test_a_call_is_run_once_and_recalled_until_its_step_is_forgotten(answers, tmp_path):
    coin = Coin()
    first = [Recalled(coin, answers).submit(asked(key, step)).result() for step, key in enumerate("ab")]
    again = Answers(tmp_path / "answers.db")  # of the server that comes after
    assert [Recalled(coin, again).submit(asked(key, step)).result() for step, key in enumerate("ab")] == first
    assert coin.asked == 2
    again.forget(1)
    assert Recalled(coin, again).submit(asked("b", 1)).result() == first[1]
    assert Recalled(coin, again).submit(asked("a", 0)).result() != first[0]
    assert coin.asked == 3
    again.close()


class Restless:
    """A sampler that says something else whenever it is asked."""

    version = 3

    def __init__(self):
        self.queue = []

    def submit(self, ask):
        self.queue.append(ask.ticket)

    def step(self):
        now, self.queue = self.queue[:2], self.queue[2:]
        count = secrets.randbelow(9)
        floats = np.random.default_rng().standard_normal((2, count)).astype(np.float32)
        kept = floats[1] if count % 2 else None
        return [(ticket, Sampled(np.arange(count, dtype=np.int32), floats[0], Outcome.CUT, kept)) for ticket in now]

    def drop(self):
        self.queue.clear()


def asks(*numbers, step=0, prompt=(1, 2)):
    ids = [(7, step, number, 0, -1, 123) for number in numbers]
    return [Ask(place, np.array(prompt, np.int32), own, SamplingOptions(), "main") for place, own in enumerate(ids)]


def spoken(answers, *numbers, steps=9, **more):
    """What is replied to these calls, by number, of which `steps` are made."""
    sampler = Repeating(Restless(), answers)
    for ask in asks(*numbers, **more):
        sampler.submit(ask)
    return {numbers[ticket]: reply for _ in range(steps) for ticket, reply in sampler.step()}


def bits(replies):
    """Every bit of what was sampled."""
    found = {number: [getattr(reply, field.name) for field in fields(Sampled)] for number, reply in replies.items()}
    return {
        key: [(x.dtype, x.tobytes()) if isinstance(x, np.ndarray) else x for x in all] for key, all in found.items()
    }


def test_a_reply_is_what_it_was_bit_for_bit_until_its_step_is_forgotten(answers):
    first = bits(spoken(answers, *range(5), steps=2))
    assert sorted(first) == [0, 1, 2, 3], "two a step, and then the server was killed"
    again = bits(spoken(answers, *range(4, -1, -1)))
    assert {number: again[number] for number in first} == first
    assert bits(spoken(answers, *range(5))) == again
    assert bits(spoken(answers, *range(5), step=1)) != again
    answers.forget(1)
    assert bits(spoken(answers, *range(5))) != again


def test_a_reply_to_another_prompt_is_an_error(answers):
    spoken(answers, 0, 1)
    with pytest.raises(
        ValueError, match=r"call 0000000/reply 1 0 -1 123 was main \w+ when this step was played before"
    ):
        spoken(answers, 1, prompt=(1, 3))


def test_what_is_dropped_is_replied_to_no_more(answers):
    spoken(answers, 0)
    sampler = Repeating(Restless(), answers)
    for ask in asks(0, 1, 2, 3):
        sampler.submit(ask)
    sampler.drop()
    assert sampler.step() == []


def test_what_is_no_call_under_a_key_goes_to_the_tools(answers):
    coin = Coin()
    assert Recalled(coin, answers).submit(COIN).result() != Recalled(coin, answers).submit(COIN).result()


def test_another_call_under_the_same_key_is_an_error(answers):
    tools = Recalled(Coin(), answers)
    tools.submit(asked("a")).result()
    with pytest.raises(ValueError, match=r'call a was \["coin", {"side": .*"}, "main"\] when this step was played'):
        tools.submit(asked("a", call=replace(COIN, arguments={"side": "heads"})))
