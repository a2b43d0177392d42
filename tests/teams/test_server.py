"""Servers with a model: what they learn is what one process learns; what cannot work is said at once."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from metaagentx import policies
from metaagentx.checkpoint import CheckpointError, Checkpoints, claim, digest
from metaagentx.sections import SettingsError, differences, plain
from metaagentx.settings import read
from metaagentx.step import Place
from metaagentx.teams import database, server
from metaagentx.teams.audit import audit
from metaagentx.teams.gather import gather
from metaagentx.teams.joined import agree, joined, unlike
from metaagentx.teams.journal import Journal
from metaagentx.teams.learner import publish
from metaagentx.teams.options import ExchangeOptions
from metaagentx.teams.outbox import Stopped
from metaagentx.teams.records import Pointer
from metaagentx.teams.server import checked, kept, own, run_server, taken
from metaagentx.teams.store import Store
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.flags import flags
from tests.teams.twins import made
from tests.test_team_train import small

SLOW = ("adapters", "three")  # variants of the twins


@pytest.mark.parametrize("variant", ["split", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_servers_learn_what_one_process_learns_bit_for_bit_where_each_policy_has_its_own_weights(variant, tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    command = [sys.executable, "-m", "tests.teams.twins", str(tmp_path), url, variant]
    done = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags(1)}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for policy, both in found.items():
        assert len(both["one"]) > 20
        assert both["two"] == both["gathered"], policy
        assert both["one"] == both["two"] or variant == "adapters", policy
        steps = [line for line in both["metrics"] if "time/idle_share" in line]
        assert [line["step"] for line in steps] == [1, 2, 3]
        for name in (f"train/{policy}/gradient_norm", f"credit/{policy}/reward"):
            assert [line[name] for line in steps] == pytest.approx([line[name] for line in both["alone"]], rel=1e-5)
        assert all(0 <= line["time/idle_share"] < 1 for line in steps)
        assert all(line["train/staleness_max"] == 0 for line in steps)
        team = "team/replies" in steps[0]  # a main agent's tokens are the whole team's
        assert team or steps[-1]["train/tokens"] == sum(line.get(f"rollout/{policy}/tokens", 0) for line in steps)

    store, journals = Store(url, "twins"), [Journal(path) for path in tmp_path.glob("*/journal.db")]
    result = audit(store, journals, made(variant).team, small().train.questions)
    assert result.problems == []
    assert result.rollouts == 18
    assert result.done > 0, "nobody delegated anything"
    assert store.pointer("sub").version == 3
    for each in (store, *journals):
        each.close()


@pytest.mark.parametrize(
    ("policy", "more", "complaint"),
    [
        ("subs", {}, "--policy must be one of main, sub, as config.team has it, not 'subs'"),
        ("sub", {"policies__layout": "shared"}, "config.policies.layout must be 'split' or 'adapters'"),
        ("main", {"team": None}, "config.team is missing"),
        ("main", {"team__exchange__staleness": 1, "loss__importance_cap": 0.0}, "wants loss.importance_cap above 0"),
        ("main", {"generation__devices": 1, "generation__staleness": 1}, "generation.staleness 0"),
        ("main", {"judge": True}, "config.policies.servers.judge must be given"),
    ],
)
def test_a_policy_that_cannot_have_a_server_is_refused_in_words(policy, more, complaint):
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        checked(settings(**more), policy)


def settings(team="as it is", judge=False, **more):
    config = plain(small(**more))
    if team is None:
        config["team"] = None
        for section in (config["sampling"], config["roles"], config["policies"]["servers"]):
            for old, new in (("main", "designer"), ("sub", "executor")):
                section[new] = section.pop(old)
    if judge:
        config["team"]["local"] = "judge"
        for section in (config["sampling"], config["roles"]):
            section["judge"] = section["sub"]
    return read(config)


@pytest.mark.parametrize("url", ["mysql://here", "sqlite://x", "postgresql://team@127.0.0.1:1/postgres", "sqlite:///"])
def test_a_store_that_cannot_be_used_is_refused_in_words(url, tmp_path):
    with pytest.raises(SettingsError, match="--store: "):
        run_server(small(), tmp_path, "main", url, "team", threading.Event())


def test_a_server_with_another_config_is_refused_and_one_on_another_machine_is_not(url, name):
    def join(**more):
        ours = small(**more)
        with joined(ours, ours.team, url, name, "a test") as store:
            agree(ours, store)
            return store.about()

    join()
    assert join(engine__slots=32, data__directory="/elsewhere", pack__micro_rows=8) == join()
    with pytest.raises(SettingsError, match=r"another config; .*\n  config.train.questions: 5 asked for, 2 in"):
        join(train__questions=5)
    with pytest.raises(SettingsError, match=r"config.team.errands: 2 asked for, 8 in"):
        join(team__errands=2)


OPERATION = {"depth": 9, "workers": 2, "lease_seconds": 5.0, "attempts": 1, "losses": 2, "beat_seconds": 1.0}


def test_how_servers_work_together_may_change_while_a_run_goes_on(name, tmp_path, monkeypatch):
    url, workdir, began = f"sqlite:///{tmp_path}/team.db", tmp_path / "sub", []

    def work(settings, team, workdir, policy, server, store, *_):
        agree(settings, store)
        own(workdir, policy, server, store)
        (workdir / "cold_start").mkdir(exist_ok=True)  # something is saved: the work directory is bound
        began.append(team.exchange)

    def serve(**changed):
        changes = {f"team__exchange__{key}": value for key, value in changed.items()}
        run_server(small(**changes, loss__importance_cap=2.0), workdir, "sub", url, name, threading.Event())

    monkeypatch.setattr(server, "_work", work)
    serve()
    serve(**OPERATION)
    assert [began[1]] == [ExchangeOptions(**OPERATION)] != [began[0]]
    with pytest.raises(CheckpointError, match=r"another config; .*\n  config.team.exchange.staleness: 1 asked for, 0"):
        serve(staleness=1)


def test_a_first_try_that_fails_binds_no_run(name, tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    wrong = small(team__tools=("calculater",), train__questions=5)
    with pytest.raises(SettingsError, match=r"team.tools: there is no tool 'calculater'"):
        run_server(wrong, tmp_path / "main", "main", url, name, threading.Event())
    ours = small()
    with claim(tmp_path / "main", plain(ours), unlike), joined(ours, ours.team, url, name, "a test") as store:
        agree(ours, store)
        own(tmp_path / "elsewhere", "main", "another", store)


def test_a_work_directory_of_another_policy_is_refused_in_words(tmp_path):
    for policy, complaint in (("main", "--store: "), ("sub", "belongs to the server of policy 'main'")):
        with pytest.raises(SettingsError, match=complaint):
            run_server(small(), tmp_path, policy, "nowhere", "team", threading.Event())


def test_a_work_directory_in_which_somebody_trains_is_refused_to_servers_and_to_one_process(tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    stories = [
        lambda folder: train(small(), folder),
        lambda folder: run_server(small(), folder, "main", url, "team", threading.Event()),
        lambda folder: gather(small(), folder, url, "team"),
    ]
    store = Store(url, "team")
    for policy in ("main", "sub"):
        publish(store, Pointer(policy, 3, "/nowhere/checkpoints/3", "bits"))
    with claim(tmp_path / "run", {}, differences):
        for story in stories:
            with pytest.raises(CheckpointError, match=r"run is in use by process .* or give another --workdir"):
                story(tmp_path / "run")
    store.close()


def test_a_policy_is_trained_in_one_work_directory_and_a_work_directory_is_of_one_run(url, name, tmp_path):
    store, policies = Store(url, name), ("main", "sub")
    homes = {folder: {policy: tmp_path / folder / policy for policy in policies} for folder in ("ours", "theirs")}
    for home in (home for folder in homes.values() for home in folder.values()):
        home.mkdir(parents=True)
    servers = {policy: taken(home, policy) for policy, home in homes["ours"].items()}
    for policy, home in homes["ours"].items():
        for _ in range(2):
            assert taken(home, policy) == servers[policy]
            own(home, policy, servers[policy], store)
    home = homes["theirs"]["sub"]
    with pytest.raises(SettingsError, match="'sub' is trained in another work directory"):
        own(home, "sub", taken(home, "sub"), store)

    checkpoints = Checkpoints(homes["ours"]["main"] / "checkpoints", keep=1)
    checkpoints.save(3, {"w": jnp.ones(2)}, {})
    checkpoints.close()
    other = Store(url, f"{name} again")
    with pytest.raises(SettingsError, match="is of another --run or --store, and 3 steps on"):
        own(homes["ours"]["main"], "main", servers["main"], other)
    for each in (store, other):
        each.close()


@pytest.mark.parametrize("policy", ["main", "sub"])
def test_what_a_server_keeps_is_closed_when_it_is_told_to_stop(policy, tmp_path):
    with pytest.raises(Stopped), kept(tmp_path, policy) as own_file:
        raise Stopped
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        own_file.forget(0)


def mounted(monkeypatch, folder, kind):
    """A file system of this kind at `folder`."""
    monkeypatch.setattr(database, "file_system", lambda path: kind if folder in path.parents else "ext4")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.gcsfuse", "fuse"])
def test_a_store_on_a_network_file_system_is_refused_before_anything_is_done(kind, tmp_path, monkeypatch):
    mounted(monkeypatch, tmp_path, kind)
    monkeypatch.setattr(server, "_work", None)
    with pytest.raises(SettingsError, match=rf"--store: .* locks do not hold on {kind}; use a local disk or postgres"):
        run_server(small(), tmp_path / "sub", "sub", f"sqlite:///{tmp_path}/team.db", "team", threading.Event())


def test_a_journal_in_a_mounted_bucket_is_refused_before_anything_is_done_and_may_be_elsewhere(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket"
    mounted(monkeypatch, bucket, "fuse.gcsfuse")
    monkeypatch.setattr(server, "_work", lambda *_: began.append(True))
    run, began = (f"sqlite:///{tmp_path}/team.db", "team", threading.Event()), []
    with pytest.raises(SettingsError, match=r"on fuse.gcsfuse, a mounted bucket, .*; --journal=DIRECTORY, on a disk"):
        run_server(small(), bucket / "sub", "sub", *run)
    assert began == []
    for policy in ("main", "sub"):
        run_server(small(), bucket / policy, policy, *run, tmp_path / "disk")
    assert began == [True, True]
    assert sorted(path.name for path in tmp_path.glob("disk/*/*.db")) == ["answers.db", "journal.db"]


def test_policies_that_have_not_ended_are_not_gathered(tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    store = Store(url, "team")
    publish(store, Pointer("main", 3, "/nowhere/checkpoints/3", "bits"))
    with pytest.raises(SettingsError, match=r"different steps \(main at 3, sub at none\): wait until all have ended"):
        gather(small(), tmp_path / "all", url, "team")
    publish(store, Pointer("sub", 3, "/nowhere/checkpoints/3", "bits"))
    with pytest.raises(CheckpointError, match="/nowhere/checkpoints holds no checkpoint of step 3"):
        gather(small(cold_start__steps=0), tmp_path / "all", url, "team")
    store.close()


@pytest.mark.parametrize("shift", [0, 1])
def test_adapters_are_gathered_over_the_base_that_all_were_trained_over(shift, tmp_path):
    settings, url = small(policies__layout="adapters", cold_start__steps=0), f"sqlite:///{tmp_path}/team.db"
    store = Store(url, "team")
    with open_workbench(settings) as bench:
        fresh = bench.fresh_weights()
        states = policies.states(fresh, settings)
        for policy, add in (("main", 0), ("sub", shift)):
            own, base = {policy: states[policy]}, jax.tree.map(lambda x, add=add: x + add, fresh.base)
            checkpoints = Checkpoints(tmp_path / policy / "checkpoints", keep=1)
            checkpoints.save(3, own, {"place": dataclasses.asdict(Place(3)), "seed": 0, "history": []})
            checkpoints.close()
            bits = digest(policies.acting(own, base).parts)
            publish(store, Pointer(policy, 3, f"{tmp_path}/{policy}/checkpoints/3", bits))
    store.close()
    if shift:
        with pytest.raises(CheckpointError, match=r"sub/checkpoints/3 is not .*, or its base is not the one here"):
            gather(settings, tmp_path / "all", url, "team")
    else:
        gather(settings, tmp_path / "all", url, "team")
        assert Checkpoints(tmp_path / "all" / "checkpoints", keep=1).latest() == 3


def test_a_database_of_another_schema_is_refused_in_words(tmp_path):
    url = f"sqlite:///{tmp_path}/team.db"
    store = Store(url, "team")
    store._database.run(lambda execute: execute("UPDATE team_schema SET version = 1", {}))
    store.close()
    with pytest.raises(SettingsError, match="--store: the store has schema 1, this program writes 3"):
        run_server(small(), tmp_path / "main", "main", url, "team", threading.Event())
