"""Real servers, killed twenty times in whatever they are at, train the bits that a run without a failure trains."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from metaagentx.teams.audit import audit
from metaagentx.teams.journal import Journal
from metaagentx.teams.store import Store
from tests.flags import flags
from tests.teams.twins import bits
from tests.test_team_train import OVERRIDES, small, steps

POLICIES = ("main", "sub")
PHASES = ("starting", "sampling", "waiting", "learning", "saving")
STEPS = 40
CHANGED = OVERRIDES | {
    "task.compound.train": 30,
    "team.rollouts": 4,
    "team.exchange.beat_seconds": 0.1,  # how exactly a server's phase is known from outside
    "cold_start.checkpoint_every": 20,
    "train.steps": STEPS,
    "train.questions": 3,
    "train.checkpoint_every": 2,  # so that steps are made again
    "train.evaluate_every": STEPS,
    "evaluate.final": False,
}
LONGEST_START = 8.0  # seconds after which a server that is to be killed while it starts is killed


def started(story: str, workdir: Path, *more: str) -> subprocess.Popen:
    options = [f"--config.{key}={value}" for key, value in CHANGED.items()]
    command = [sys.executable, "-m", story, "--config=configs/tiny_team.py", f"--workdir={workdir}", *more, *options]
    with open(workdir.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, env=os.environ | {"XLA_FLAGS": flags(1)}, stderr=log)


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    """The work directory of one process that has both policies, and that nobody kills."""
    workdir = tmp_path_factory.mktemp("unkilled") / "one"
    with started("metaagentx.train", workdir) as training:
        assert training.wait(600) == 0, workdir.with_suffix(".log").read_text()[-4000:]
    return workdir


def planned(draw: random.Random) -> list[tuple[str, str]]:
    """Who is killed, and in which phase: of both servers two in each. One that starts was killed just before."""
    plan = [(policy, phase) for policy in POLICIES for phase in PHASES[1:] for _ in range(2)]
    draw.shuffle(plan)
    for policy in POLICIES:
        again = draw.choice([place for place, (killed, _) in enumerate(plan) if killed == policy])
        plan.insert(again + 1, (policy, "starting"))
        plan.insert(0, (policy, "starting"))
    return plan


class Servers:
    """Both servers of a run, each a process of its own."""

    def __init__(self, url: str, run: str, folder: Path) -> None:
        self._store, self._folder = Store(url, run), folder
        self._options = (f"--store={url}", f"--run={run}")
        self._since, self.running = dict.fromkeys(POLICIES, 0.0), {}
        for policy in POLICIES:
            self.start(policy)

    def start(self, policy: str) -> None:
        options = (*self._options, f"--policy={policy}")
        self.running[policy] = started("metaagentx.teams.server", self._folder / policy, *options)
        self._since[policy] = time.monotonic()

    def kill(self, policy: str) -> None:
        self.running[policy].kill()
        self.running[policy].wait()

    def phase(self, policy: str) -> str:
        """What a server is at, or was when it was killed: by its last sign of life, its files and the store."""
        beat = next((beat for beat in self._store.beats() if beat.server == policy), None)
        if beat is None or beat.age > time.monotonic() - self._since[policy] or beat.text == "starting":
            return "starting"
        if list(self._folder.glob(f"{policy}/checkpoints/*tmp*")):
            return "saving"
        doing, _, step = beat.text.rpartition(" step ")
        if doing == "training":
            return "learning"
        delegated = any(report is None for _, report in self._store.tasks(int(step), "sub"))
        return "waiting" if delegated == (policy == "main") else "sampling"

    def close(self) -> None:
        for policy in self.running:
            self.kill(policy)
        self._store.close()


def killed_again_and_again(servers: Servers, draw: random.Random) -> Counter[tuple[str, str]]:
    """Kill a server, start it again, and so on, until all ends; how often who was killed in which phase."""
    found, begun = Counter(), time.monotonic()

    def go_on() -> None:
        assert [server.poll() for server in servers.running.values()] == [None, None], "over before all kills"
        assert time.monotonic() - begun < 1500, f"the run does not go on; killed: {found}"
        time.sleep(0.005)

    for policy, phase in planned(draw):
        while servers.phase(policy) != phase:
            go_on()
        time.sleep(draw.uniform(0, LONGEST_START if phase == "starting" else 0.05))
        go_on()
        servers.kill(policy)
        hit = servers.phase(policy)
        found[policy, hit] += 1
        print(f"{time.monotonic() - begun:.1f} s: {policy} killed while {hit}", flush=True)
        servers.start(policy)
    assert [server.wait(300) for server in servers.running.values()] == [0, 0]
    print(f"{time.monotonic() - begun:.1f} s: the run ended")
    return found


def measured(workdir: Path, policy: str) -> list[dict[str, float]]:
    """What is written of a policy about each step."""
    return [{name: value for name, value in line.items() if f"/{policy}/" in name} for line in steps(workdir)]


@pytest.mark.slow
def test_servers_that_are_killed_twenty_times_train_the_bits_of_a_run_without_a_failure(url, name, tmp_path, unkilled):
    with contextlib.closing(Servers(url, name, tmp_path)) as servers:
        found = killed_again_and_again(servers, random.Random(0))
    assert found.total() == 20
    assert {phase for _, phase in found} == set(PHASES)

    with contextlib.closing(Store(url, name)) as store, contextlib.closing(Journal(tmp_path / "sub/journal.db")) as own:
        result = audit(store, [own], small().team, CHANGED["train.questions"])
    print(result)
    assert result.problems == []
    assert (result.steps, result.rollouts, result.dead, result.masked) == (STEPS, STEPS * 12, 0, 0)
    assert result.done > STEPS
    for policy in POLICIES:
        expected = bits(unkilled / "checkpoints" / str(STEPS), policy)
        assert len(expected) > 20
        assert bits(tmp_path / policy / "checkpoints" / str(STEPS), policy) == expected, policy
        assert measured(tmp_path / policy, policy) == measured(unkilled, policy)
    tokens = [line["rollout/sub/tokens"] for line in steps(unkilled)]
    assert steps(tmp_path / "sub")[-1]["train/tokens"] == sum(tokens)
