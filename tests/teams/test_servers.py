"""Servers of one policy each, without a model: what they promise when all goes well, and when it does not."""

from __future__ import annotations

import threading

import pytest

from tests.teams import pretend


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
