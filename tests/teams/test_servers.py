"""Servers of one policy each, without a model: what they promise when all goes well, and when it does not."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from metaagentx.teams import database, pulse
from metaagentx.teams.audit import audit
from metaagentx.teams.errands import Order, errand_key, rollout_key
from metaagentx.teams.journal import Entry, Journal
from metaagentx.teams.outbox import Stopped
from metaagentx.teams.records import Outcome, Report, SubTask
from metaagentx.teams.store import Store
from metaagentx.teams.team import Errand
from metaagentx.workflow.context import Said
from metaagentx.workflow.protocol import Outcome as ReplyOutcome
from tests.teams import pretend

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.teams.pretend"])


def together(url, name, tmp_path, steps, **more):
    """All servers, each on a thread of its own, to the end."""
    ended, errors, stop = {}, [], threading.Event()

    def one(policy):
        try:
            ended[policy] = pretend.server(policy, url, name, tmp_path / policy, steps, stop=stop, **more)
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=one, args=(policy,), daemon=True) for policy in pretend.ROLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return ended


def test_servers_learn_what_one_process_learns(url, name, tmp_path):
    ended = together(url, name, tmp_path, 6)
    assert {policy: learner.weights for policy, learner in ended.items()} == pretend.alone(6)


def audited(url, name, tmp_path, options=pretend.TEAM):
    store, journals = Store(url, name), [Journal(path) for path in tmp_path.glob("*/journal.db")]
    found = audit(store, journals, options, pretend.QUESTIONS)
    for each in (store, *journals):
        each.close()
    return found


def test_an_audit_finds_what_is_lost_twice_or_mixed_up(name, tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    together(url, name, tmp_path, 3)
    assert audited(url, name, tmp_path).problems == []

    def wrong(statement, values):
        """The problems after one change of the store, which is undone."""
        store = Store(url, name)
        store._database._connection.execute("SAVEPOINT before")
        assert store._database._execute(statement, values).changed == 1
        journals = [Journal(path) for path in tmp_path.glob("*/journal.db")]
        found = audit(store, journals, pretend.TEAM, pretend.QUESTIONS)
        store._database._connection.execute("ROLLBACK TO before")
        for each in (store, *journals):
            each.close()
        return found.problems

    store = Store(url, name)
    task = store.tasks(1, "sub")[0][0]
    key, number = task.key, json.loads(task.body)["question"]
    store.close()
    of_sub = "WHERE run = :run AND key = :key AND policy = 'sub'"
    sample = {"run": name, "key": key}
    (lost,) = wrong(f"DELETE FROM team_trained {of_sub}", sample)
    assert lost == f"{key} is lost: policy 'sub' did not train on it in step 1"
    twice = wrong("INSERT INTO team_trained VALUES (:run, 'sub', 2, :key, 0, 0)", sample)
    assert f"{key} is a sample of 2 steps of policy 'sub'" in twice
    (mixed,) = wrong(f"UPDATE team_trained SET reward = 17 {of_sub}", sample)
    assert f"{key} was trained on with reward 17.0" in mixed
    (others,) = wrong(f"UPDATE team_trained SET digest = digest + 1 {of_sub}", sample)
    assert f"{key} was trained on with other tokens than those that earned" in others
    of_main = "WHERE run = :run AND key = :key AND policy = 'main'"
    (others,) = wrong(f"UPDATE team_trained SET digest = digest + 1 {of_main}", {"run": name, "key": key[:18]})
    assert f"{key[:18]} was trained on with other tokens" in others
    changed = wrong(f"UPDATE team_tasks SET version = 0 {of_sub}", sample)
    assert any("another task, reply or version" in problem for problem in changed)
    assert any("weights of version 0, in step 1" in problem for problem in changed)
    unsealed = wrong("INSERT INTO team_trained VALUES (:run, 'sub', 3, 'x', 0, 0)", sample)
    assert unsealed == ["policy 'sub' trained step 3, which was not sealed"]
    dead, *_ = wrong(f"UPDATE team_tasks SET status = 'dead' {of_sub}", sample)
    assert "a dead letter, but its rollout" in dead
    assert any(
        "is another's order" in problem for problem in wrong(f"UPDATE team_tasks SET key = 'x' {of_sub}", sample)
    )
    body = {"body": json.dumps(json.loads(task.body) | {"question": number + 1})}
    (question, _) = wrong(f"UPDATE team_tasks SET body = :body {of_sub}", sample | body)
    assert question == f"{key} is of question {number + 1} of the run, but its rollout of {number}"
    (question,) = wrong(
        "UPDATE team_outcomes SET question = 'x' WHERE run = :run AND rollout = :key",
        {"run": name, "key": "0000001/00000/0001"},
    )
    assert question == f"0000001/00000/0001 is of question 'x', others beside it of '{pretend.QUESTIONS}'"
    (waits, _) = wrong(f"UPDATE team_tasks SET status = 'leased' {of_sub}", sample)
    assert "nobody ended it" in waits


def test_an_audit_is_a_command_whose_exit_code_tells(name, tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    together(url, name, tmp_path, 2)
    command = [sys.executable, "-m", "metaagentx.teams.audit", f"--store={url}", f"--run={name}"]
    journals = "--journals=" + ",".join(map(str, tmp_path.glob("*/journal.db")))
    good = subprocess.run([*command, journals], capture_output=True, text=True, check=True)
    assert good.stdout.splitlines()[0].startswith("2 steps, 12 rollouts, sub-tasks: ")
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "done, but in no journal" in bad.stdout


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Thread(threading.Thread):
    """A server on a thread of its own, which may be told to stop."""

    def __init__(self, policy, url, name, tmp_path, steps, **more):
        super().__init__(daemon=True)
        self.stop, self.error, self.learner = threading.Event(), None, None
        self.run = lambda: self._serve(policy, url, name, tmp_path / policy, steps, **more)
        self.start()

    def _serve(self, *arguments, **more):
        try:
            self.learner = pretend.server(*arguments, stop=self.stop, **more)
        except BaseException as error:
            self.error = error

    def end(self):
        self.join(60)
        assert self.error is None, self.error
        return self.learner.weights


def test_a_server_whose_partner_is_gone_waits_says_so_and_goes_on(url, name, tmp_path, caplog):
    quick = replace(pretend.TEAM.exchange, beat_seconds=0.1)
    given = (url, name, tmp_path, 8)
    main, guess = (Thread(policy, *given, exchange=quick) for policy in ("main", "guess"))
    wait_for(lambda: "main waits: no server of policy 'sub' has come yet" in caplog.text)

    sub = Thread("sub", *given, exchange=quick, pause=0.02)
    store = Store(url, name)
    wait_for(lambda: len(store.steps()) >= 2)
    sub.stop.set()
    sub.join(20)
    assert isinstance(sub.error, Stopped)
    wait_for(lambda: "main waits: the server of policy 'sub' is gone, its last sign of life came" in caplog.text)
    assert main.is_alive()

    sub = Thread("sub", *given, exchange=quick, pause=0.02)
    wait_for(lambda: "main: the server of policy 'sub' is back" in caplog.text)
    main.stop.set()
    main.join(20)
    assert isinstance(main.error, Stopped)
    wait_for(lambda: "sub waits: the server of policy 'main' is gone" in caplog.text)

    main = Thread("main", *given, exchange=quick)
    assert {"main": main.end(), "guess": guess.end(), "sub": sub.end()} == pretend.alone(8)
    assert audited(url, name, tmp_path).problems == []
    store.close()


class Stuck(pretend.Pretend):
    """A policy whose engine hangs in the second step until it is freed. Its threads go on."""

    freed = threading.Event()

    def sampler(self):
        dice = super().sampler()
        dice.may_go_on = lambda: self.step != 1 or self.freed.is_set()
        return dice


@pytest.mark.parametrize(("hung", "waits"), [("sub", "main"), ("main", "guess")])
def test_a_server_that_lives_but_hangs_is_told_of_by_who_waits_for_it(hung, waits, name, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pulse, "IDLE", 5)
    Stuck.freed.clear()
    quick = replace(pretend.TEAM.exchange, beat_seconds=0.1, lease_seconds=0.6)
    url = f"sqlite:///{tmp_path}/team.db"
    servers = {
        policy: Thread(
            policy, url, name, tmp_path, 3, exchange=quick, made=Stuck if policy == hung else pretend.Pretend
        )
        for policy in pretend.ROLES
    }
    doing = {"main": "playing step 1", "sub": "serving step 1"}[hung]
    told = f"{waits} waits: the server of policy {hung!r} lives ({doing}), but nothing came of it for "
    wait_for(lambda: caplog.text.count(told) >= 3, 20)
    Stuck.freed.set()
    assert {policy: server.end() for policy, server in servers.items()} == pretend.alone(3)
    seconds = [record.args[-1] for record in caplog.records if record.getMessage().startswith(told)]
    assert seconds[0] >= 0.5
    assert all(later >= 2 * sooner for sooner, later in pairwise(seconds)), "at doubling intervals"


def test_a_partner_that_never_came_is_missed_at_doubling_intervals(monkeypatch, caplog):
    now, said = [0.0], []
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watch = pulse.Watch(SimpleNamespace(beats=list), "main", replace(pretend.TEAM.exchange, beat_seconds=1))
    for second in range(1, 60):
        now[0], before = second, len(caplog.messages)
        watch.look({"sub"})
        said += [second] * (len(caplog.messages) - before)
    assert said == [1, 4, 7, 13, 25, 49]
    assert set(caplog.messages) == {"main waits: no server of policy 'sub' has come yet"}


def test_a_run_whose_store_is_held_by_another_program_for_a_while_waits_and_goes_on(
    name, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(database, "TOLD", 0.5)
    url = f"sqlite:///{tmp_path}/team.db"
    servers = [Thread(policy, url, name, tmp_path, 4, pause=0.02) for policy in pretend.ROLES]
    store = Store(url, name)
    wait_for(store.steps)
    store._database.run(lambda execute: wait_for(lambda: "another program holds it" in caplog.text))
    assert {role: server.end() for role, server in zip(pretend.ROLES, servers, strict=True)} == pretend.alone(4)
    assert audited(url, name, tmp_path).problems == []
    store.close()


def test_no_more_sub_tasks_than_fit_are_open_and_none_is_lost(url, name, tmp_path):
    tight = replace(pretend.TEAM.exchange, depth=2)
    main, guess = (Thread(policy, url, name, tmp_path, 3, exchange=tight) for policy in ("main", "guess"))
    store = Store(url, name)

    def open_now():
        return sum(report is None for step in range(3) for _, report in store.tasks(step, "sub"))

    wait_for(lambda: open_now() == 2)
    time.sleep(0.3)
    assert open_now() == 2, "nobody works, so nothing more was put"
    sub = Thread("sub", url, name, tmp_path, 3, exchange=tight)
    most = 0
    while main.is_alive():
        most = max(most, open_now())
    assert most == 2
    assert {"main": main.end(), "guess": guess.end(), "sub": sub.end()} == pretend.alone(3)
    store.close()


def order(step, number):
    path = (("question", 0), ("design", 0), ("member", number))
    text, key = Order("adder", f"{number}+2", 0, path, number, 0).text(), rollout_key(step, 0, 0)
    return SubTask(errand_key(key, number), "sub", step, key, text)


def test_an_order_comes_back_and_one_that_is_forged_is_refused():
    sound = order(3, 2)
    assert Order.of(sound) == Order("adder", "2+2", 0, (("question", 0), ("design", 0), ("member", 2)), 2, 0)
    text = json.loads(sound.body)
    forged = [
        replace(sound, key="0000003/00000/0001/002"),
        replace(sound, rollout="0000003/00001/0000"),
        replace(sound, step=4),
        *(replace(sound, body=body) for body in ("", "7", "[]", "{}", '"path"')),
        *(
            replace(sound, body=json.dumps(text | change))
            for change in (
                {"number": 1},
                {"number": "2"},
                {"question": -1},
                {"task": ["2+2"]},
                {"more": 0},
                {"path": []},
                {"path": [["question", 0], ["design", 0], ["member", -1]]},
                {"path": [["question", 0], ["design", 0], ["member", 0.5]]},
                {"path": [["question", 0], ["execution", 0], ["member", 2]]},
                {"path": [["question", 1], ["design", 0], ["member", 2]]},
                {"path": [["question", 0], ["design", 0], ["member", 2], ["member", 2]]},
            )
        ),
    ]
    for each in forged:
        with pytest.raises(ValueError, match=r"is (no|another's) order"):
            Order.of(each)


def test_a_forged_order_ends_its_server_but_not_for_ever(url, name, tmp_path):
    store, forged = Store(url, name), replace(order(0, 0), body=order(0, 1).body)
    store.put([forged], depth=9)
    for _ in range(pretend.TEAM.exchange.attempts):
        assert store.tasks(0, "sub")[0][1] is None
        sub = Thread("sub", url, name, tmp_path, 1)
        sub.join(60)
        assert "is another's order" in str(sub.error)
    assert store.tasks(0, "sub")[0][1] == Report(forged.key, None, -1)
    sub = Thread("sub", url, name, tmp_path, 1)
    sub.join(0.5)
    assert sub.is_alive()
    sub.stop.set()
    sub.join(60)
    store.close()


@pytest.mark.parametrize("staleness", [0, 1])
def test_weights_that_are_too_old_get_no_sub_tasks_and_how_old_they_are_is_recorded(url, name, tmp_path, staleness):
    store = Store(url, name)
    store.put([order(step, number) for step in range(3) for number in range(3)], depth=99)
    store.put_outcomes([Outcome(rollout_key(0, 0, 0), 0, "q", {"correct": 1.0, "answered": 1.0, "masked": 0.0})])
    store.seal(0, 1)
    lenient = replace(pretend.TEAM.exchange, staleness=staleness, workers=2)
    sub = Thread("sub", url, name, tmp_path, 3, exchange=lenient)
    wait_for(lambda: all(report for _, report in store.tasks(1, "sub")))
    time.sleep(0.2)
    versions = [[report and report.version for _, report in store.tasks(step, "sub")] for step in range(3)]
    assert versions[0] == [0, 0, 0]
    assert versions[1] == [1 - staleness] * 3
    assert versions[2] == [None] * 3 if not staleness else [1] * 3
    sub.stop.set()
    sub.join(20)
    store.close()


def test_a_run_of_stale_weights_keeps_its_bound(name, tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    lenient = replace(pretend.TEAM.exchange, staleness=2)
    together(url, name, tmp_path, 6, exchange=lenient)
    found = audited(url, name, tmp_path, replace(pretend.TEAM, exchange=lenient))
    assert found.problems == []
    assert found.staleness <= 2


class Clumsy(pretend.Pretend):
    """A servant that cannot do anything with a 7 in it."""

    def errand(self, order):
        if self.policy == "sub" and "7" in order.task:
            yield from ()
            return Errand(order.sub, order.task, Said(order.sub, "", None, ReplyOutcome.FAILED))
        return (yield from super().errand(order))


def test_what_was_recorded_of_a_rollout_first_is_what_all_train_on(tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    together(url, "first", tmp_path / "first", 1)
    store = Store(url, "first")
    first = store.outcomes(0)[0]
    store.close()

    def again(name, **values):
        """A run of whose first rollout something is known already: its server was killed, and is back."""
        store = Store(url, name)
        store.put_outcomes([replace(first, values={**first.values, **values})])
        together(url, name, tmp_path / name, 2)
        rewards = {key: told.reward for policy in pretend.ROLES for _, key, told in store.samples(policy)}
        store.close()
        assert audited(url, name, tmp_path / name).problems == []
        return {reward for key, reward in rewards.items() if key.startswith(first.rollout)}

    assert again("lost", masked=1.0) == {None}
    assert None not in again("other grade", correct=1 - first.values["correct"])
    with pytest.raises(ValueError, match="was played before, and came out otherwise"):
        again("other words", answered=1 - first.values["answered"])


class Moody(pretend.Pretend):
    """A main agent whose answers are others than those that `Pretend` gives."""

    def sampler(self):
        dice = super().sampler()
        usual = dice.reply

        def reply(ask):
            said = usual(ask)
            return pretend.spoken("=999", random.Random(0)) if said.tokens[0] == ord("=") else said

        dice.reply = reply
        return dice


class Killed(Exception):
    pass


class Doomed(pretend.Pretend):
    """Dies when what its rollouts earned is in the store, and nothing else of the step."""

    def learn(self, samples, lost, idle):
        raise Killed


@pytest.mark.parametrize("answers", ["kept", "lost"])
def test_a_reply_is_never_trained_on_with_what_another_one_earned(url, name, tmp_path, answers):
    subs = [Thread(policy, url, name, tmp_path, 1) for policy in ("guess", "sub")]
    main = Thread("main", url, name, tmp_path, 1, made=Doomed)
    main.join(60)
    assert isinstance(main.error, Killed)
    if answers == "lost":
        (tmp_path / "main" / "answers.db").unlink()
    again = Thread("main", url, name, tmp_path, 1, made=Moody)
    if answers == "kept":
        assert [again.end(), *(sub.end() for sub in subs)] == list(pretend.alone(1).values())
    else:
        again.join(60)
        assert re.search("was played before, and came out otherwise: .*'digest': ", str(again.error))
        store = Store(url, name)
        assert store.samples("main") == []
        store.close()
    for sub in subs:
        sub.stop.set()
        sub.join(60)


def test_a_journal_of_another_run_is_noticed_before_anything_of_it_is_handed_in(url, name, tmp_path):
    journal = Journal(tmp_path / "sub" / "journal.db")
    journal.put(Entry(replace(order(0, 0), policy="other"), "{}", 0, None))
    journal.close()
    store = Store(url, name)
    store.put([order(0, 0)], depth=9)
    sub = Thread("sub", url, name, tmp_path, 1)
    sub.join(20)
    assert "it is of another run" in str(sub.error)
    assert store.tasks(0, "sub")[0][1] is None
    store.close()


def test_a_server_without_its_checkpoints_does_not_train_on_tokens_that_were_let_go(url, name, tmp_path):
    together(url, name, tmp_path, 3)
    with closing(Journal(tmp_path / "sub" / "journal.db")) as journal:
        journal.forget(2)
    for checkpoint in (tmp_path / "sub").glob("*.json"):
        checkpoint.unlink()
    sub = Thread("sub", url, name, tmp_path, 3)
    sub.join(20)
    assert "the tokens of step 0 were let go" in str(sub.error)
    assert "restore a checkpoint of step 1 or later" in str(sub.error)


def test_what_nobody_can_do_is_a_failed_tool_and_a_masked_sample_and_is_counted(url, name, tmp_path):
    twice = replace(pretend.TEAM.exchange, attempts=2)
    together(url, name, tmp_path, 4, exchange=twice, made=Clumsy)
    found = audited(url, name, tmp_path)
    assert found.problems == []
    store = Store(url, name)
    tasks = [each for step in range(4) for each in store.tasks(step, "sub")]
    dead = [task for task, report in tasks if report.text is None]
    assert found.dead == len(dead) > 0
    assert all("7" in json.loads(task.body)["task"] for task in dead)
    lost = {task.rollout for task in dead}
    rewards = {key: told.reward for policy in pretend.ROLES for _, key, told in store.samples(policy)}
    assert {task.key for task in dead}.isdisjoint(rewards)
    assert all((reward is None) == (key[:18] in lost) for key, reward in rewards.items())
    store.close()
