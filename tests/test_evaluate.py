"""Every arm of the final table has the weights that it is said to have, and devices hold what was planned for it."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from metaagentx import evaluate, policies
from metaagentx.checkpoint import Checkpoints
from metaagentx.command_line import Preempted
from metaagentx.memory import held
from metaagentx.policies import Weights
from metaagentx.rollout.engine import Engine
from metaagentx.score import Sample, Score
from metaagentx.settings import ROLES
from metaagentx.workbench import open_workbench
from tests.test_train import small

# By number: the weights of the designer and of the executor.
COLD, TRAINED = ("cold", "cold"), ("trained", "trained")
ARMS = {0: COLD, 1: TRAINED, 2: ("cold", "trained"), 3: ("trained", "cold")}
ARMS |= {4: COLD, 5: TRAINED, 6: COLD, 7: TRAINED}


def options(layout: str, **more):
    return small(policies__layout=layout, policies__lora__rank=2, cold_start__steps=0, **more)


def trained(cold: Weights) -> Weights:
    """Weights that nobody takes for those of the cold start, over the same base."""
    full, added = jax.tree.map(lambda x: x + 1000, (cold.full, cold.adapters))
    return Weights(cold.full, added) if cold.base is not None else Weights(full, {})


def weights_of(engine: Engine, role: str) -> str:
    acting = engine._weights
    own = acting.base["embed"] if acting.adapters is None else jax.tree.leaves(acting.adapters)[0]
    with jax.set_mesh(own.sharding.mesh):  # of the devices that sample
        own = own if acting.adapters is None else own[:, engine._adapters[role]]
        return "trained" if float(own.max()) > 500 else "cold"


def live() -> int:
    """Bytes on one device of everything there is."""
    gc.collect()
    return held(jax.live_arrays())


@pytest.mark.parametrize("layout", ["shared", "split", "adapters"])
def test_arms_have_their_weights_and_devices_hold_what_was_planned(layout: str, tmp_path: Path, monkeypatch) -> None:
    arms, sizes, before = {}, [], live()

    def play(bench, engines, split, count, *, step, system) -> Score:
        arms[step - evaluate.TEST_STEP] = tuple(weights_of(engines[role], role) for role in ROLES)
        sizes.append(live() - before)
        return Score.of(["sums"], [[Sample(1.0, 10.0, 2.0, "solve")]])

    monkeypatch.setattr(evaluate, "play", play)
    with open_workbench(options(layout)) as bench:
        plan = bench.table_memory()
        evaluate.compare(bench, tmp_path, trained(bench.fresh_weights()))
    assert arms == ARMS
    assert max(sizes) == pytest.approx(plan.total, rel=0.01)
    if layout == "shared":  # the second engine is of the arms that cross alone
        assert sizes[0] < max(sizes)
        assert sizes[-1] == sizes[0]


@pytest.mark.parametrize("layout", ["shared", "adapters"])
def test_arms_have_their_weights_where_devices_of_their_own_sample(layout: str, tmp_path: Path, monkeypatch) -> None:
    arms = {}

    def play(bench, engines, split, count, *, step, system) -> Score:
        arms[step - evaluate.TEST_STEP] = tuple(weights_of(engines[role], role) for role in ROLES)
        return Score.of(["sums"], [[Sample(1.0, 10.0, 2.0, "solve")]])

    monkeypatch.setattr(evaluate, "play", play)
    apart = {"mesh__data": 1, "mesh__fsdp": 4, "generation__devices": 4}
    with open_workbench(options(layout, **apart)) as bench:
        evaluate.compare(bench, tmp_path, trained(bench.fresh_weights()))
    assert arms == ARMS


@pytest.mark.parametrize("layout", ["shared", "split", "adapters"])
def test_weights_are_read_without_the_state_that_trained_them(layout: str, tmp_path: Path, monkeypatch) -> None:
    with open_workbench(options(layout)) as bench:
        wanted = trained(bench.fresh_weights())
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
        checkpoints.save(3, policies.states(wanted, bench.settings), {})
        monkeypatch.setattr(policies, "create", lambda *_, **__: pytest.fail("a state was made"))
        before = live()
        found = evaluate.newest(bench, tmp_path)
        assert live() - before < 1.1 * held(found)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, wanted))


def test_a_table_that_is_kept_replaces_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    def table(correct: float) -> tuple[dict, dict[str, Score]]:
        score = Score.of(["sums"], [[Sample(correct, 10.0, 2.0, "solve")]])
        return {"table": [score.row("trained")]}, {"trained": score}

    evaluate.save(tmp_path, {"seed": 7, **table(0.0)[0]}, table(0.0)[1])
    evaluate.save(tmp_path, *table(1.0))
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["seed"], found["table"][0]["accuracy"]) == (7, 1.0)
    assert np.load(tmp_path / "scores.npz")["trained:correct"].tolist() == [[1.0]]
    assert "<h2>Result</h2>" in (tmp_path / "report.html").read_text()
    (tmp_path / "results.json").write_text('{"seed": ')
    evaluate.save(tmp_path, {"seed": 8}, {})
    assert json.loads((tmp_path / "results.json").read_text()) == {"seed": 8}
    assert (tmp_path / "scores.npz").exists()


def test_a_run_that_is_told_to_stop_leaves_the_final_table_after_an_arm(tmp_path: Path, monkeypatch) -> None:
    stop, arms = threading.Event(), []

    def play(bench, engines, split, count, *, step, system) -> Score:
        stop.set()
        arms.append(step)
        return Score.of(["sums"], [[Sample(1.0, 10.0, 2.0, "solve")]])

    monkeypatch.setattr(evaluate, "play", play)
    with open_workbench(options("shared")) as bench, pytest.raises(Preempted, match="run the same command again"):
        evaluate.compare(bench, tmp_path, trained(bench.fresh_weights()), stop)
    assert len(arms) == 1
