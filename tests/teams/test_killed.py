"""Servers that are killed, whose run loses nothing, repeats nothing and mixes nothing up."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import replace

import pytest

from metaagentx.teams.store import Store
from tests.teams import pretend
from tests.teams.test_servers import PROCESSES, Thread, audited, wait_for


def killed_again_and_again(url, name, tmp_path, kills, steps, seed):
    """All servers as processes, of which one is killed every now and then and started again."""
    draw, running, done = random.Random(seed), {}, 0
    arguments = {policy: (policy, url, name, tmp_path / policy, steps, 0.01) for policy in pretend.ROLES}

    def start(policy):
        running[policy] = PROCESSES.Process(target=pretend.process, args=arguments[policy], daemon=True)
        running[policy].start()

    for policy in pretend.ROLES:
        start(policy)
    deadline = time.monotonic() + 300
    while any(process.exitcode is None for process in running.values()):
        assert time.monotonic() < deadline, "the run does not complete"
        time.sleep(draw.uniform(0.02, 0.5))
        policy = draw.choice(pretend.ROLES)
        if done < kills and running[policy].exitcode is None:
            running[policy].kill()
            running[policy].join()
            done += 1
            start(policy)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert [process.exitcode for process in running.values()] == [0, 0, 0], logs
    assert done == kills, "the run was over before all kills"


def check_killed(url, name, tmp_path, kills, steps, seed):
    killed_again_and_again(url, name, tmp_path, kills, steps, seed)
    found = audited(url, name, tmp_path)
    assert found.problems == []
    assert (found.steps, found.rollouts) == (steps, steps * 6)
    assert found.done > steps
    last = {policy: pretend.Pretend(policy, tmp_path / policy, steps).weights for policy in pretend.ROLES}
    assert last == pretend.alone(steps), "not what the same run learns when nobody is killed"


@pytest.mark.parametrize("seed", [0])  # of who is killed, and when
def test_servers_that_are_killed_lose_repeat_and_mix_up_nothing(url, name, tmp_path, seed):
    check_killed(url, name, tmp_path, kills=4, steps=12, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_servers_that_are_killed_twenty_times_lose_repeat_and_mix_up_nothing(url, name, tmp_path, seed):
    check_killed(url, name, tmp_path, kills=20, steps=40, seed=seed)


class Waiting(pretend.Pretend):
    """A servant whose sub-tasks take as long as nobody says that they may end."""

    def sampler(self):
        dice = super().sampler()
        dice.may_go_on = (self._folder.parent / "go on").exists
        return dice


class Mortal(pretend.Pretend):
    """A servant that dies of anything with a 7 in it."""

    def errand(self, order):
        if "7" in order.task:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().errand(order)


def leased_as_often_as(url, name, times):
    """Whether some sub-task of policy "sub" was leased that often."""
    store = Store(url, name)
    try:
        fences = store._ask("SELECT max(fence) FROM team_tasks WHERE run = :run AND policy = 'sub'")
        return (fences[0][0] or 0) >= times
    finally:
        store.close()


def test_a_server_that_is_killed_again_and_again_in_one_sub_task_makes_no_dead_letter(url, name, tmp_path):
    kills, one = pretend.TEAM.exchange.attempts + 1, replace(pretend.TEAM.exchange, depth=1)
    others = [Thread(policy, url, name, tmp_path, 2, exchange=one) for policy in ("main", "guess")]
    for number in range(1, kills + 2):
        arguments = ("sub", url, name, tmp_path / "sub", 2, 0.0, Waiting, one)
        sub = PROCESSES.Process(target=pretend.process, args=arguments, daemon=True)
        sub.start()
        wait_for(lambda n=number: leased_as_often_as(url, name, n))
        if number <= kills:
            sub.kill()
            sub.join()
    (tmp_path / "go on").touch()
    sub.join(60)
    ended = [thread.end() for thread in others]
    assert (sub.exitcode, audited(url, name, tmp_path).problems) == (0, [])
    assert audited(url, name, tmp_path).dead == 0
    assert [*ended, pretend.Pretend("sub", tmp_path / "sub", 2).weights] == list(pretend.alone(2).values())


def test_a_sub_task_that_kills_its_server_each_time_is_a_dead_letter_at_last(url, name, tmp_path):
    few = replace(pretend.TEAM.exchange, losses=3)
    others = [Thread(policy, url, name, tmp_path, 2, exchange=few) for policy in ("main", "guess")]
    deaths, deadline = 0, time.monotonic() + 120
    while True:
        arguments = ("sub", url, name, tmp_path / "sub", 2, 0.0, Mortal, few)
        sub = PROCESSES.Process(target=pretend.process, args=arguments, daemon=True)
        sub.start()
        sub.join()
        if sub.exitcode != -signal.SIGKILL:
            break
        deaths += 1
        assert time.monotonic() < deadline
    for thread in others:
        thread.end()
    found = audited(url, name, tmp_path, replace(pretend.TEAM, exchange=few))
    assert (sub.exitcode, found.problems) == (0, [])
    assert deaths >= 3
    assert found.dead >= 1
    store = Store(url, name)
    tasks = [each for step in range(2) for each in store.tasks(step, "sub")]
    assert all(report.text is None for task, report in tasks if "7" in json.loads(task.body)["task"])
    assert any(report.text is not None for _, report in tasks)
    store.close()
