"""What is planned is what is held, byte for byte; what does not fit is refused with what takes how much."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import jax
import pytest

from metaagentx import memory, policies, sft
from metaagentx.memory import Plan, held, measured, plans
from metaagentx.mesh import make_mesh
from metaagentx.metrics import MetricWriter
from metaagentx.policy import params
from metaagentx.rollout.compilation import compile_all
from metaagentx.rollout.engine import Engine
from metaagentx.sections import SettingsError
from metaagentx.settings import ROLES, Settings
from metaagentx.transfer import own_part, regroup
from metaagentx.workbench import open_workbench
from tests.policy import tiny
from tests.test_train import small

MODEL = tiny.config(dtype="bfloat16", tied=False)


def settings(**more) -> Settings:
    # A capacity that is no whole number of blocks: rows of the cache are.
    given = {"engine__capacity": 40, "engine__prompt_buckets": (16,), "roles__executor__kl": 0.1}
    return dataclasses.replace(small(**(given | more)), model=MODEL)


@pytest.mark.parametrize("layout", ["shared", "split", "adapters"])
@pytest.mark.parametrize("cut", [False, True])
def test_what_is_planned_is_what_is_held(layout: str, cut: bool) -> None:
    options = settings(policies__layout=layout, policies__lora__rank=2, engine__whole=True)
    mesh = make_mesh(2, 2, 2) if cut else None
    (plan,) = plans(options, MODEL, ROLES, mesh)
    with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
        key = jax.random.key(0)
        weights = policies.around(params.initialise(MODEL, key, mesh), options, ROLES, MODEL, key, mesh)
        states = policies.states(weights, options)
        lora = options.policies.lora if layout == "adapters" else None
        engines = [Engine(MODEL, options.engine, (1,), lora) for _ in weights.full]
        copies = [jax.jit(params.whole, static_argnums=0)(MODEL, full) for full in weights.full.values()]
    each = list(states.values())
    assert plan.items["weights"] == held([weights.full, weights.adapters])
    assert plan.items["masters"] == held([state.master for state in each])
    assert (plan.items["masters"] > 0) == (layout != "adapters")  # those are float32 themselves
    assert plan.items["moments"] == held([state.opt_states for state in each])
    assert plan.items["reference"] == held([state.reference for state in each]) > 0
    assert plan.items["slots"] == held([engine._programs.state for engine in engines])
    layers = [copy["layers"] for copy in copies]  # on a CPU engines copy them apart
    assert plan.items["copies"] == held([copies, layers, weights.adapters])
    assert plan.total == sum(plan.items.values())


@pytest.mark.parametrize(("layout", "into"), [("shared", "weights"), ("adapters", "weights"), ("adapters", "adapters")])
def test_the_cold_start_is_planned_as_it_is(layout: str, into: str) -> None:
    """Before adapters there may be all that training full weights takes: more than reinforcement, then."""
    options = settings(policies__layout=layout, cold_start__into=into)
    model = dataclasses.replace(MODEL, vocab_size=small().model.vocab_size)  # what its tokenizer knows
    with open_workbench(dataclasses.replace(options, model=model)) as bench:
        plan = memory.cold_start(bench.settings, bench.model, bench.roles, bench.mesh)
        states, base = sft._begin(bench)
    assert plan.items["weights"] == held([base, *(state.params for state in states.values())])
    assert plan.items["masters"] == held([state.master for state in states.values()])
    assert plan.items["moments"] == held([state.opt_states for state in states.values()]) > 0
    (trained,) = {held(state.params) for state in states.values()}
    assert plan.items["gradients"] == 2 * trained * (2 if into == "weights" else 1)  # bfloat16, adapters float32
    assert plan.items["masters"] > 0 or into == "adapters"


def test_every_batch_of_a_cold_start_has_its_program_ahead() -> None:
    """However badly its demonstrations fill rows."""
    options = small(cold_start__batch=20, pack__row_buckets=(8,), pack__micro_rows=4)
    with open_workbench(options) as bench:
        states, base = sft._begin(bench)
        ahead = [arguments[2].tokens.shape[:2] for _, arguments in sft._programs(bench, states, base)]
    assert ahead == [(8, 4), (4, 4), (2, 4)]


def test_a_cold_start_that_does_not_fit_is_refused_before_its_first_step(tmp_path, monkeypatch) -> None:
    """Its shapes fit, but not what its program needs besides."""
    monkeypatch.setattr(sft, "imitate", lambda *_: pytest.fail("a step was made"))
    with open_workbench(small()) as bench, MetricWriter(tmp_path, active=False) as writer:
        plan = memory.cold_start(bench.settings, bench.model, bench.roles, bench.mesh)
        monkeypatch.setattr(memory, "limit", lambda mesh: plan.total)
        with pytest.raises(SettingsError, match=r"the cold start needs .*: update .* \(see config\.pack\.micro_rows"):
            sft.cold_start(bench, tmp_path, writer, stop=None)


def test_devices_set_apart_have_plans_of_their_own() -> None:
    options = settings(generation__devices=4, generation__staleness=2, loss__importance_cap=2.0)
    devices = jax.devices()
    mesh, target = make_mesh(1, 4, 1, devices[:4]), make_mesh(4, 1, 1, devices[4:])
    trains, samples = plans(options, MODEL, ROLES, mesh, target)
    assert set(samples.items) == {"slots", "copies"}
    assert not set(trains.items) & set(samples.items)
    full = params.abstract(MODEL)
    assert samples.items["copies"] == held([full] * 3 + [full["layers"]])
    assert trains.items["moving"] == held(full)  # whole on each device that trains, before it leaves


def test_devices_that_train_and_sample_copies_of_their_own_hold_both() -> None:
    options = settings(generation__per_host=True, generation__tensor=2)
    mesh = make_mesh(2, 4, 1)
    target = own_part(regroup(mesh, 2), process=0)
    (plan,) = plans(options, MODEL, ROLES, mesh, target)
    (trains,) = plans(options, MODEL, ROLES, mesh)
    assert {name: plan.items[name] for name in ("weights", "masters", "moments", "gradients")} == {
        name: trains.items[name] for name in ("weights", "masters", "moments", "gradients")
    }
    assert plan.items["slots"] > 0
    full = jax.tree.map(lambda x, cut: x.update(sharding=cut), params.abstract(MODEL), params.shardings(MODEL, target))
    assert plan.items["copies"] == held([full, full["layers"]])


def test_a_role_with_a_server_holds_nothing() -> None:
    given = {"stages__mode": "none", "cold_start__steps": 0}
    for role in ("designer", "executor"):
        given |= {f"policies__servers__{role}__url": "http://localhost/v1", f"policies__servers__{role}__model": "m"}
    (none,) = plans(settings(**given), MODEL, (), None)
    assert none.total == 0
    del given["policies__servers__executor__url"], given["policies__servers__executor__model"]
    here = ("executor",)
    (split,) = plans(settings(**given, policies__layout="split"), MODEL, here, None)
    (shared,) = plans(settings(**given, policies__layout="shared"), MODEL, here, None)
    assert split.items["slots"] == shared.items["slots"] > 0
    assert split.items["weights"] == shared.items["weights"] > 0


def test_what_does_not_fit_is_refused_by_what_takes_most() -> None:
    (plan,) = plans(settings(engine__slots=4096), MODEL, ROLES, None)
    assert plan.check() is plan
    tight = dataclasses.replace(plan, limit=plan.total - 1)
    with pytest.raises(SettingsError) as error:
        tight.check()
    parts = str(error.value).partition(": ")[2].split("; ")
    assert parts[0].startswith("slots ")
    assert "(see config.engine.slots, config.engine.capacity)" in parts[0]
    assert str(plan).startswith("memory of a device in this run: ")
    assert str(error.value).startswith("this run needs ")


def test_compiled_programs_say_what_they_need(monkeypatch) -> None:
    def program(size: int) -> jax.stages.Compiled:
        def make(x):
            return (x[:, None] * x[None, :]).sort(axis=0).sum(0)

        return compile_all([(jax.jit(make), (jax.numpy.ones(size),))])[0]

    assert memory.temporary(program(256)) >= 256 * 256 * 4
    plan = Plan({"weights": 100, "gradients": 50, "slots": 10}, math.inf)
    found = measured(plan, update=[program(8), program(256)], sampling=[program(16)])
    assert found.items == {"weights": 100, "slots": 10, "update": memory.temporary(program(256))}
    assert measured(plan, update=[program(8)], sampling=[program(64)]).items["sampling"] >= 64 * 64 * 4
    assert "memory/limit" not in found.metrics()
    assert found.metrics()["memory/total"] == found.total


def test_a_program_that_the_compiler_refuses_is_an_error_that_names_what_to_change() -> None:
    refusal = "RESOURCE_EXHAUSTED: XLA ran out of memory: used 110.58G of 95.74G hbm"
    named = r"engine\.share, config\.engine\.slots.*110\.58G of 95\.74G"
    with pytest.raises(SettingsError, match=named), memory.compiling("sampling", "slots"):
        raise jax.errors.JaxRuntimeError(refusal)
    with pytest.raises(jax.errors.JaxRuntimeError), memory.compiling("sampling"):
        raise jax.errors.JaxRuntimeError("INTERNAL: another trouble")


def test_simulated_devices_share_the_machine() -> None:
    assert 0 < memory.limit(None) * jax.local_device_count() < 1e15
    assert memory.limit(make_mesh(2, 2, 2)) == memory.limit(None)
