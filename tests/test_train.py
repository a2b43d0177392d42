"""The whole road on a very small run: it learns from its own rollouts, resumes bit for bit, compiles once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tiny
from metaagentx import evaluate, policies, sft, solve
from metaagentx.checkpoint import CheckpointError, Checkpoints, claimed
from metaagentx.command_line import Preempted
from metaagentx.preemption import notice
from metaagentx.sections import plain
from metaagentx.settings import Settings, read
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.changed import changed
from tests.flags import flags

ROOT = Path(__file__).parent.parent
STEPS = 4
MODEL = {
    "model.layers": 1,
    "model.d_model": 32,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.head_dim": 16,
    "model.d_ff": 32,
}
OVERRIDES = MODEL | {
    "data.directory": tempfile.mkdtemp(prefix="metaagentx-tests-"),
    "task.tiny.train": 40,
    "task.tiny.validation": 4,
    "task.tiny.test": 4,
    "engine.slots": 16,
    "engine.prompt_buckets": (48,),
    "engine.admit_buckets": (16,),
    "tree.designs": 2,
    "tree.executions": 2,
    "pack.row_buckets": (32,),
    "pack.micro_rows": 16,
    "cold_start.steps": 32,
    "cold_start.batch": 32,
    "cold_start.demonstrations": 400,
    "cold_start.checkpoint_every": 8,
    "cold_start.log_every": 8,
    "cold_start.optimizer.warmup_steps": 0,
    "cold_start.optimizer.decay_steps": 0,
    "stages.length": 1,
    "train.steps": STEPS,
    "train.questions": 4,
    "train.evaluate_every": 2,
    "train.checkpoint_every": 1,
    "train.episodes_every": 2,
    "evaluate.questions": 8,
    "evaluate.validation_questions": 4,
}


def small(**more) -> Settings:
    return changed(read(tiny.get_config()), OVERRIDES | {key.replace("__", "."): value for key, value in more.items()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run, in a process of its own as the interrupted one is."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert finish(workdir) == 0
    return workdir


def finish(workdir: Path, *, kill_when=None, sent=signal.SIGKILL) -> int:
    """Run training in a process; `kill_when()` true: send the signal."""
    config = workdir.parent / "small_config.json"
    config.write_text(json.dumps(plain(small())))
    program = (
        "import json, sys; from pathlib import Path\n"
        "from metaagentx import command_line\n"
        "from metaagentx.settings import read\n"
        "from metaagentx.train import train\n"
        "try:\n"
        f"    train(read(json.loads(Path({str(config)!r}).read_text())), Path({str(workdir)!r}))\n"
        "except command_line.Preempted: sys.exit(75)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": flags(devices=1),
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if kill_when is not None and kill_when():
            process.send_signal(sent)
            process.wait(timeout=60)
        time.sleep(0.02)
    return process.returncode


def lines(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def saved(folder: Path) -> list[int]:
    """The steps of its checkpoints."""
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []


@pytest.fixture(scope="module")
def preempted(tmp_path_factory):
    """A run that was told to stop in its cold start, its exit code, and the steps that it had saved."""
    workdir = tmp_path_factory.mktemp("preempted")
    code = finish(workdir, kill_when=lambda: 8 in saved(workdir / "cold_start"), sent=signal.SIGTERM)
    return workdir, code, saved(workdir / "cold_start")


def test_a_preempted_run_saves_and_says_so(preempted):
    _, code, steps = preempted
    assert code == 75
    assert steps
    assert max(steps) < OVERRIDES["cold_start.steps"]


def test_preempted_or_killed_anywhere_and_started_again_a_run_ends_with_the_same_bits(finished, preempted):
    workdir, _, steps = preempted
    cold, trained = workdir / "cold_start", workdir / "checkpoints"
    deaths = [
        lambda: max(saved(cold), default=0) > max(steps),  # in the cold start
        lambda: trained.exists() and any("tmp" in path.name for path in trained.iterdir()),  # saving between two phases
    ]
    for death in deaths:
        assert finish(workdir, kill_when=death) in (-signal.SIGKILL, 0)
    assert finish(workdir) == 0

    with open_workbench(small()) as bench:
        ours, theirs = (evaluate.newest(bench, folder) for folder in (workdir, finished))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))

    def record(folder: Path) -> list[dict]:
        clocks = ("time", "second")
        return [{k: v for k, v in line.items() if not any(c in k for c in clocks)} for line in lines(folder)]

    ignored = {"rollout/compilations", "update/compilations"}  # a fresh process compiles again
    assert [{k: v for k, v in line.items() if k not in ignored} for line in record(workdir)] == [
        {k: v for k, v in line.items() if k not in ignored} for line in record(finished)
    ]
    assert (workdir / "episodes.jsonl").read_text() == (finished / "episodes.jsonl").read_text()
    table = [json.loads((folder / "results.json").read_text())["table"] for folder in (workdir, finished)]
    assert table[0] == table[1]


def test_every_step_reports_what_researchers_ask_for(finished):
    steps = [line for line in lines(finished) if line["phase"] in ("executor", "designer")]
    assert [line["phase"] for line in steps] == ["executor", "designer"] * 2
    for line in steps:
        role = line["phase"]
        expected = [f"train/{role}/{name}" for name in ("loss", "gradient_norm", "entropy", "clip_share", "gap_mean")]
        expected += [f"train/{role}/{name}" for name in ("gap_max", "gap_k3", "ratio_p01", "ratio_p99", "tokens")]
        expected += [
            "engine/occupancy",
            "engine/forked_tokens",
            "rollout/tokens_per_second",
            "rollout/valid",
            "rollout/leaks",
        ]
        expected += ["time/rollout", "time/update", "credit/advantage_nonzero", "train/tokens"]
        assert not [name for name in expected if name not in line]
        assert line[f"train/{role}/gap_mean"] < 1e-4
        other = "designer" if role == "executor" else "executor"
        assert not [name for name in line if name.startswith(f"train/{other}/")]


def test_the_run_leaves_a_table_a_report_and_episodes(finished):
    results = json.loads((finished / "results.json").read_text())
    arms = {row["arm"]: row for row in results["table"]}
    assert set(arms) == {
        "single/cold",
        "single/trained",
        "vote/cold",
        "vote/trained",
        "cold/cold",
        "trained/trained",
    }
    for row in arms.values():
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["questions"] == 8
    assert arms["vote/cold"]["tokens_per_question"] >= 0.8 * arms["trained/trained"]["tokens_per_question"]
    assert results["crossplay"]["trained/trained"] == arms["trained/trained"]["accuracy"]
    assert results["train_steps"] == STEPS
    assert "<svg" in (finished / "report.html").read_text()
    episodes = [json.loads(line) for line in (finished / "episodes.jsonl").read_text().splitlines()]
    assert [(episode["step"], episode["phase"]) for episode in episodes] == [
        (1, "executor"),
        (2, "designer"),
        (4, "designer"),
    ]


def test_eight_devices_train_as_one_does(finished, tmp_path):
    """Tests have eight simulated devices, the finished run had one; both start from its cold start."""
    assert jax.device_count() == 8
    train(small(cold_start__weights_from=str(finished), train__steps=2, evaluate__final=False), tmp_path)
    ours, theirs = ([x for x in lines(run) if x["phase"] in ("executor", "designer")] for run in (tmp_path, finished))
    for a, b in zip(ours, theirs[:2], strict=True):
        role = a["phase"]
        for name in ("rollout/generated_tokens", "rollout/accuracy", "rollout/reward", f"train/{role}/tokens"):
            assert a[name] == b[name]
        for name in ("loss", "gradient_norm", "entropy"):
            assert a[f"train/{role}/{name}"] == pytest.approx(b[f"train/{role}/{name}"], rel=1e-3, abs=1e-5)


def test_several_updates_on_a_batch_leave_the_sampled_policy(finished, tmp_path):
    settings = small(cold_start__weights_from=str(finished), train__steps=2, train__updates=3, evaluate__final=False)
    train(settings, tmp_path)
    steps = [line for line in lines(tmp_path) if line["phase"] in ("executor", "designer")]
    assert all(line[f"train/{line['phase']}/gap_mean"] < 1e-4 for line in steps)  # as the first update saw it
    assert any(abs(line[f"train/{line['phase']}/ratio_p99"] - 1) > 1e-3 for line in steps)  # as the third did


def test_only_the_role_in_its_phase_moves_its_optimiser(tmp_path):
    given = {"tree__fixed_design": "a=solve()", "tree__w_format": 1.0, "tree__executions": 8}  # so that rewards differ
    settings = small(train__steps=1, evaluate__final=False, **given)
    train(settings, tmp_path)
    with open_workbench(settings) as bench:
        fresh, like = (policies.states(sft.finished(bench, tmp_path), settings) for _ in range(2))
        states, record = Checkpoints(tmp_path / "checkpoints", keep=2).restore(like)
    assert record["place"]["step"] == record["place"]["cursor"] // 4 == 1

    def same(a, b) -> bool:
        return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    moments, untouched = states["shared"].opt_states, fresh["shared"].opt_states
    assert same(moments["designer"], untouched["designer"])
    assert not same(moments["executor"], untouched["executor"])


def test_a_token_budget_ends_training(tmp_path):
    settings = small(train__steps=50, train__token_budget=300, evaluate__final=False)
    results = train(settings, tmp_path)
    assert 300 <= results["train_tokens"] < 1200
    assert results["train_steps"] < 50


def test_the_work_directory_of_another_config_is_refused(finished):
    with pytest.raises(CheckpointError, match=r"config.seed: 5 asked for, 0 in the directory"):
        train(small(seed=5), finished)


def test_a_cold_start_that_is_not_there_or_not_finished_is_refused(tmp_path, finished):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        train(small(cold_start__weights_from=str(tmp_path / "nowhere")), tmp_path / "a")
    with pytest.raises(CheckpointError, match="stands at step 32 of 40"):
        train(small(cold_start__weights_from=str(finished), cold_start__steps=40), tmp_path / "b")


def test_solve_prints_an_episode(finished):
    settings = read(claimed(finished))
    text = solve.solve(settings, finished, index=3)
    assert "Spell this word backward" in text
    own = solve.solve(settings, finished, "Spell this word backward (example: sun -> nus): zzzyx")
    assert "zzzyx" in own
    designed = small(tree__fixed_design="a=solve()")  # a design that runs: there is an answer, and no verdict on it
    unknown = solve.solve(designed, finished, "What is 3 + 4?")
    assert "What is 3 + 4?" in unknown
    assert "a=solve()" in unknown
    with pytest.raises(CheckpointError, match="no work directory of a run"):
        claimed(finished / "nowhere")


def test_the_first_interrupt_finishes_the_step_and_the_second_stops():
    with notice() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_preemption_is_an_exception_of_its_own():
    assert issubclass(Preempted, Exception)
