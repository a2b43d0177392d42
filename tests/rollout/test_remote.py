"""A server of somebody else answers as an engine does, whatever it does; and what it cannot answer is masked."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from metaagentx.rollout import remote as remote_module
from metaagentx.rollout.options import SamplingOptions, ServerOptions, TreeOptions
from metaagentx.rollout.remote import Remote, spoken
from metaagentx.rollout.sample import attach, prompt_room
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.scheduler import run
from metaagentx.rollout.tree import forest
from metaagentx.workflow.protocol import Message, Outcome
from tests.rollout.arithmetic import LANGUAGE, Sums
from tests.rollout.scripted import END, Adder, Letters, Scripted
from tests.servers import Handler, Server, say, send

KEY = "k3y-5ecret/+="
VARIABLE = "METAAGENTX_TEST_KEY"


class Spelled(Letters):
    end = END

    def encode(self, text: str) -> list[int]:
        return [*map(ord, text)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(remote_module, "PAUSE", 0.01)
    server = Server()
    yield server
    server.close()


def remote(server: Server, **changes: Any) -> Remote:
    given = {"url": server.url, "model": "org/some-7b", "key_variable": VARIABLE, "seconds": 2.0, "retries": 1}
    return Remote("executor", ServerOptions(**(given | changes)), Spelled(), capacity=64)


def ask(text: str, ticket: int = 0, prompt: int = 4, **sampling: Any) -> Ask:
    options = SamplingOptions(**({"max_tokens": 8} | sampling))
    messages = (Message("system", "S"), Message("user", text))
    return Ask(ticket, np.ones(prompt, np.int32), (1, 2, 3, -1, -1, ticket), options, "executor", messages=messages)


def answers(sampler: Remote, *asks: Ask) -> dict[int, Sampled]:
    """The replies by ticket; each must come within a few seconds."""
    for each in asks:
        sampler.submit(each)
    found: dict[int, Sampled] = {}
    begun = time.monotonic()
    while len(found) < len(asks):
        assert time.monotonic() - begun < 10, f"no answer for {[a.ticket for a in asks if a.ticket not in found]}"
        for ticket, sampled in sampler.step():
            assert ticket not in found
            found[ticket] = sampled
    assert sampler.step() == []
    return found


def test_a_call_is_posted_as_openai_describes_it(server: Server) -> None:
    sampler = remote(server)
    (reply,) = answers(sampler, ask("1+2?", temperature=0.5, top_p=0.9, stop=("\n", "7"))).values()
    assert bytes(reply.tokens[:-1].tolist()) == b"yes"
    assert reply.tokens[-1] == END
    assert reply.outcome is Outcome.OK
    assert reply.logprobs.tolist() == [0.0] * 4
    (posted,) = server.posted
    seed = posted.pop("seed")
    assert posted == {
        "model": "org/some-7b",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "1+2?"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n", "7"],
        "max_tokens": 8,
    }
    assert 0 <= seed < 2**31
    (headers,) = server.headers
    assert headers["path"] == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    work = sampler.take_work()
    assert (work.calls, work.generated_tokens) == (1, 4)


def test_a_seed_is_a_function_of_the_calls_ids(server: Server) -> None:
    answers(remote(server), ask("a", 0), ask("a", 1))
    answers(remote(server), ask("b", 0), ask("b", 1))
    seeds = {(each["messages"][1]["content"], each["seed"]) for each in server.posted}
    assert {seed for text, seed in seeds if text == "a"} == {seed for text, seed in seeds if text == "b"}
    assert len({seed for _, seed in seeds}) == 2


def test_other_words_for_the_bound(server: Server) -> None:
    answers(remote(server, length_key="max_completion_tokens"), ask("a"))
    assert server.posted[0]["max_completion_tokens"] == 8
    assert "max_tokens" not in server.posted[0]


def test_several_calls_are_under_way_and_no_more_than_allowed(server: Server) -> None:
    both = threading.Barrier(3)

    def answer(handler: Handler, posted: dict[str, Any]) -> None:
        both.wait(5)
        say(handler, posted["messages"][1]["content"])

    server.answer = answer
    found = answers(remote(server, in_flight=3), *(ask(str(number), number) for number in range(9)))
    assert {ticket: chr(reply.tokens[0]) for ticket, reply in found.items()} == {n: str(n) for n in range(9)}
    assert server.most_inside == 3


def test_a_reply_that_a_server_cut_at_a_stop_string_lacks_it_and_ends_as_any_other(server: Server) -> None:
    def answer(handler: Handler, posted: dict[str, Any]) -> None:
        (stop,) = posted["stop"]
        say(handler, "ab#c".partition(stop)[0], "stop")

    server.answer = answer
    (reply,) = answers(remote(server), ask("a", stop=("#",))).values()
    assert (reply.tokens.tolist(), reply.outcome) == ([97, 98, END], Outcome.OK)


@pytest.mark.parametrize(
    ("text", "reason", "prompt", "tokens", "outcome"),
    [
        ("abc", "stop", 4, [97, 98, 99, END], Outcome.OK),
        ("abc", "length", 4, [97, 98, 99], Outcome.CUT),
        ("", "stop", 4, [END], Outcome.EMPTY),
        (None, "content_filter", 4, [END], Outcome.EMPTY),
        ("", "length", 4, [END], Outcome.EMPTY),  # all of the bound went into thoughts that are not shown
        ("abcdefgh", "stop", 61, [97, 98, 99], Outcome.CUT),  # more than was asked for, and than there is room for
    ],
)
def test_how_a_reply_ended(server: Server, text, reason, prompt, tokens, outcome) -> None:
    server.answer = lambda handler, posted: say(handler, text, reason)
    (reply,) = answers(remote(server), ask("a", prompt=prompt)).values()
    assert (reply.tokens.tolist(), reply.outcome) == (tokens, outcome)
    assert len(reply.logprobs) == len(tokens)
    assert server.posted[0]["max_tokens"] == min(8, 64 - prompt)


def test_a_prompt_without_room_for_a_reply_is_not_sent(server: Server) -> None:
    (reply,) = answers(remote(server), ask("a", prompt=64)).values()
    assert (len(reply.tokens), reply.outcome) == (0, Outcome.TOO_LONG)
    assert server.posted == []
    assert len(answers(remote(server, context=65), ask("a", prompt=64))[0].tokens)


def drip(handler: Handler, into: str) -> None:
    if into == "body":
        handler.send_response(200)
        handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" " if into == "body" else b"X")
        handler.wfile.flush()
        time.sleep(0.05)


def broken(value: Any) -> Callable[[Handler, dict[str, Any]], None]:
    return lambda handler, posted: send(handler, json.dumps(value).encode())


WITHOUT = "sent an answer without the text choices[0].message.content"
FAILURES: dict[str, tuple[Callable[[Handler, dict[str, Any]], None], str, int]] = {
    "refused": (
        lambda h, _: send(h, b'{"error": {"message": "no such\\nmodel"}}', 404),
        "status 404: no such model",
        1,
    ),
    "echo": (lambda h, _: send(h, json.dumps({"message": f"key {KEY}?"}).encode(), 401), "401: key [key]?", 1),
    "limited": (lambda h, _: send(h, b"", 429), "answered with status 429", 2),
    "overloaded": (lambda h, _: send(h, b"<html>", 503), "answered with status 503", 2),
    "patience": (lambda h, _: send(h, b"", 429, Retry_After="3"), "answered with status 429", 1),
    "elsewhere": (lambda h, _: send(h, b"", 302, Location="http://localhost:1/"), "answered with status 302", 1),
    "page": (lambda h, _: send(h, b"<html>"), "sent an answer that is not JSON", 1),
    "deep": (lambda h, _: send(h, b"[" * 100_000), "sent an answer that is not JSON", 1),
    "not a number": (lambda h, _: send(h, b'{"choices": NaN}'), "sent an answer that is not JSON", 1),
    "list": (broken([]), WITHOUT, 1),
    "no choices": (broken({"choices": []}), WITHOUT, 1),
    "choices": (broken({"choices": {"0": 1}}), WITHOUT, 1),
    "message": (broken({"choices": [{"message": "yes"}]}), WITHOUT, 1),
    "no content": (broken({"choices": [{"message": {}}]}), WITHOUT, 1),
    "content": (broken({"choices": [{"message": {"content": 3}}]}), WITHOUT, 1),
    "large": (lambda h, _: send(h, b" " * (8192 * 1024 + 1)), "sent more than 8192 kB", 1),
    "silent": (lambda h, _: time.sleep(0.6), "took longer than 0.3 seconds", 2),
    "slow": (lambda h, _: drip(h, "body"), "took longer than 0.3 seconds", 2),
    "slow to begin": (lambda h, _: drip(h, "headers"), "took longer than 0.3 seconds", 2),
    "hang up": (lambda h, _: h.connection.close(), "could not be reached", 2),
    "half": (lambda h, _: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "could not be reached", 2),
    "nonsense": (lambda h, _: h.wfile.write(f"{KEY}\r\n\r\n".encode()), "could not be reached", 2),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_call_that_fails_for_good_is_our_own_fault_and_said_once(server: Server, case: str, caplog) -> None:
    server.answer, words, attempts = FAILURES[case]
    sampler, begun = remote(server, seconds=0.3 if "took" in words else 2.0), time.monotonic()
    with caplog.at_level(logging.WARNING):
        (reply,) = answers(sampler, ask("a")).values()
    assert (len(reply.tokens), reply.outcome) == (0, Outcome.FAILED)
    assert time.monotonic() - begun < 3
    assert len(server.posted) == attempts
    assert words in caplog.text
    assert KEY not in caplog.text
    with pytest.raises(ValueError, match=r"policies\.servers\.executor: the server") as error:
        sampler.check()
    assert words in str(error.value)
    server.answer = lambda handler, posted: say(handler, "yes")
    sampler.check()
    assert answers(sampler, ask("a", 1))[1].outcome is Outcome.OK


def test_a_server_that_is_not_there(server: Server) -> None:
    sampler = remote(server)
    server.close()
    assert answers(sampler, ask("a"))[0].outcome is Outcome.FAILED


def test_an_attempt_that_fails_is_made_again_and_later_each_time(server: Server) -> None:
    times: list[float] = []

    def answer(handler: Handler, posted: dict[str, Any]) -> None:
        times.append(time.monotonic())
        say(handler, "yes") if len(times) == 4 else send(handler, b"", 500)

    server.answer = answer
    assert answers(remote(server, retries=3), ask("a"))[0].outcome is Outcome.OK
    pauses = np.diff(times)
    assert all(pause > 0.5 * 0.01 * 2**attempt for attempt, pause in enumerate(pauses))
    assert len({json.dumps(posted) for posted in server.posted}) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_wants_to_be_left_alone_is(server: Server, form: str) -> None:
    times: list[float] = []

    def answer(handler: Handler, posted: dict[str, Any]) -> None:
        times.append(time.time())
        date = handler.date_time_string(int(time.time()) + 2)
        say(handler, "yes") if len(times) == 2 else send(
            handler, b"", 429, Retry_After="1" if form == "seconds" else date
        )

    server.answer = answer
    assert answers(remote(server), ask("a"))[0].outcome is Outcome.OK
    assert times[1] - times[0] > 0.9


def test_the_same_troubles_are_not_said_again_and_again(server: Server, caplog) -> None:
    server.answer = lambda handler, posted: send(handler, b"", 400)
    with caplog.at_level(logging.WARNING):
        answers(remote(server, in_flight=1), *(ask("a", number) for number in range(9)))
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["1)", "2)", "4)", "8)"]


def test_an_error_of_ours_ends_the_run_and_not_just_the_call(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(remote_module, "read_reply", lambda body: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answers(remote(server), ask("a"))


def test_what_tools_gave_is_text_that_any_server_takes() -> None:
    assert spoken(Message("tool", "3\ud800")) == {"role": "user", "content": "<tool_response>\n3?\n</tool_response>"}


@pytest.mark.parametrize("key", [None, "", "a\nb", "schlüssel"])
def test_a_key_that_is_missing_or_cannot_be_sent_is_an_error_at_start(server: Server, monkeypatch, key) -> None:
    monkeypatch.delenv(VARIABLE)
    if key is not None:
        monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(ValueError, match=rf"{VARIABLE} \(policies.servers.executor.key_variable\) must be set"):
        remote(server)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://example.org/v1"}, "url must begin with https:// or http://"),
        ({"url": "http://example.org/v1", "key_variable": "KEY"}, "url must begin with https:// (http:// is for local"),
        ({"url": "https://user:pass@example.org/v1"}, "url may hold no user, password or fragment"),
        ({"url": "https://example.org/v1?a=b"}, "url may hold no query"),
        ({"url": "https://exa mple.org/"}, "url is not a URL"),
        ({"url": "https://[::1/v1"}, "url is not a URL"),
        ({"url": ""}, "url and model must both be given"),
        ({"model": ""}, "url and model must both be given"),
        ({"key_variable": "sk-aBcD1234"}, "key_variable must be the NAME of a variable"),
        ({"in_flight": 0}, "in_flight must be at least 1"),
        ({"seconds": 0.0}, "seconds in (0, 3600]"),
        ({"retries": 11}, "retries from 0 to 10"),
        ({"context": -1}, "context 0 or above"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        ServerOptions(**({"url": "https://example.org/v1", "model": "m"} | changes))
    assert message in str(error.value)
    assert "aBcD1234" not in str(error.value), "a key where its name belongs is not repeated"


def test_a_tree_grows_with_a_server_in_one_role_and_a_script_in_the_other(server: Server) -> None:
    """What the server could not answer is masked, and is no member of any group."""

    def answer(handler: Handler, posted: dict[str, Any]) -> None:
        question = posted["messages"][-1]["content"]
        say(handler, f"={int(question[0]) + 2}") if question.startswith("0") else send(handler, b"", 400)

    server.answer = answer
    engines = {"designer": Scripted(lambda prompt: "a=solve()"), "executor": remote(server)}
    sampling, task = dict.fromkeys(engines, SamplingOptions(max_tokens=16)), Sums()
    questions = [task.question("train", index) for index in range(2)]
    room = prompt_room(engines["executor"], Spelled(), 0, 16)
    assert room.longest == 48
    process = forest(questions, task, TreeOptions(designs=2, executions=2), LANGUAGE, room=room)
    trees, trajectories, spent = run(process, engines, Spelled(), Adder(), sampling, seed=0, step=0)
    attach(trees, trajectories)
    right, lost = ([e for design in tree.designs for e in design.executions] for tree in trees)
    assert [(e.correct, e.masked, len(e.trajectories)) for e in right] == [(1.0, False, 1)] * 4
    assert [(e.masked, e.result.outcome, len(e.trajectories)) for e in lost] == [(True, Outcome.FAILED, 0)] * 4
    assert (spent.failed, spent.refused, spent.calls) == (4, 0, 12)


def test_a_share_gives_every_process_the_same_replies_and_one_asks(server: Server) -> None:
    told: list[str] = []

    def primary(find):
        told.append(json.dumps(find()))
        return json.loads(told[-1])

    first, other = remote(server), remote(server)
    first.share, other.share = primary, lambda find: json.loads(told[-1])
    asks = [dataclasses.replace(ask("a", number)) for number in range(3)]
    for each in asks:
        first.submit(each)
        other.submit(each)
    ours, theirs = {}, {}
    begun = time.monotonic()
    while len(ours) < len(asks):
        assert time.monotonic() - begun < 10
        ours |= dict(first.step())
        theirs |= dict(other.step())
    assert [r.tokens.tolist() for r in ours.values()] == [r.tokens.tolist() for r in theirs.values()]
    assert len(server.posted) == 3
