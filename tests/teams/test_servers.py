"""Servers of one policy each, without a model: what they promise when all goes well, and when it does not."""

from __future__ import annotations

import json
import multiprocessing
import random
import subprocess
import sys
import threading
import time

import pytest

from metaagentx.teams.audit import audit
from metaagentx.teams.journal import Journal
from metaagentx.teams.store import Store
from tests.teams import pretend

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.teams.pretend"])


def both(url, name, tmp_path, steps, **more):
    """Both servers, each on a thread of its own, to the end."""
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


def test_two_servers_learn_what_one_process_learns(url, name, tmp_path):
    ended = both(url, name, tmp_path, 6)
    assert {policy: learner.weights for policy, learner in ended.items()} == pretend.alone(6)


def audited(url, name, tmp_path, options=pretend.TEAM):
    store, journal = Store(url, name), Journal(tmp_path / "sub" / "journal.db")
    found = audit(store, [journal], options)
    journal.close()
    store.close()
    return found


def killed_again_and_again(url, name, tmp_path, kills, steps):
    """Both servers as processes, of which one is killed every now and then and started again."""
    draw, running, done = random.Random(name), {}, 0
    arguments = {policy: (policy, url, name, tmp_path / policy, steps, 0.01) for policy in pretend.ROLES}

    def start(policy):
        running[policy] = PROCESSES.Process(target=pretend.process, args=arguments[policy], daemon=True)
        running[policy].start()

    for policy in pretend.ROLES:
        start(policy)
    deadline = time.monotonic() + 120
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
    assert [process.exitcode for process in running.values()] == [0, 0], logs
    assert done == kills, "the run was over before all kills"


def check_killed(url, name, tmp_path, kills, steps):
    killed_again_and_again(url, name, tmp_path, kills, steps)
    found = audited(url, name, tmp_path)
    assert found.problems == []
    assert (found.steps, found.rollouts) == (steps, steps * 6)
    assert found.done > steps
    last = {policy: pretend.Pretend(policy, tmp_path / policy, steps).weights for policy in pretend.ROLES}
    assert last == pretend.alone(steps), "not what the same run learns when nobody is killed"


def test_servers_that_are_killed_lose_repeat_and_mix_up_nothing(url, name, tmp_path):
    check_killed(url, name, tmp_path, kills=4, steps=12)


@pytest.mark.slow
def test_servers_that_are_killed_twenty_times_lose_repeat_and_mix_up_nothing(url, name, tmp_path):
    check_killed(url, name, tmp_path, kills=20, steps=40)
