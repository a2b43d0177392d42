"""What is lowered ahead of time has the shapes and layouts of what a run really holds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from configs import qwen3_30b_a3b_mgrpo
from metaagentx.ahead import estimate, programs
from metaagentx.ahead.hlo import Program
from metaagentx.learn.options import PackOptions
from metaagentx.learn.pack import blank
from metaagentx.learn.state import create
from metaagentx.learn.update import split
from metaagentx.memory import held
from metaagentx.mesh import make_mesh
from metaagentx.options import PretrainedOptions
from metaagentx.policy import params
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, ServerOptions
from metaagentx.rollout.state import empty_state
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings, read
from tests.policy import tiny

MODEL = tiny.config(dtype="bfloat16", tied=False)
SETTINGS = Settings(
    model=MODEL,
    engine=EngineOptions(slots=8, capacity=16, prompt_buckets=(8,), admit_buckets=(4,), chunk=2, layers="stacked"),
    pack=PackOptions(row_length=16, row_buckets=(16,), micro_rows=8, chunk=8, remat="full"),
)


def layout(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding.spec), tree)


@pytest.fixture(scope="module")
def eight():
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        yield mesh


def test_the_training_state_is_laid_out_as_the_real_one(eight):
    weights = params.initialise(MODEL, jax.random.key(0), eight)
    real = create(weights, SETTINGS.roles, "per_role", master=True)
    assert layout(programs.train_state(SETTINGS, eight)) == layout(real)


def test_the_slots_are_laid_out_as_the_real_ones(eight):
    real = jax.jit(empty_state, static_argnums=(0, 1, 2, 3, 4))(MODEL, "dense", 8, 16, False)
    mine, theirs = layout(programs.engine_state(SETTINGS, eight)), layout(real)
    assert mine.cache == theirs.cache
    assert jax.tree.map(lambda x: x[:2], mine, is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.map(
        lambda x: x[:2], theirs, is_leaf=lambda x: isinstance(x, tuple)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", programs.NAMES)
def test_every_program_compiles_for_a_mesh_and_multiplies_what_the_model_asks_for(eight, name):
    cost = Program(programs.lower(name, SETTINGS, eight).compile().as_text()).cost()
    assert (cost.products > 0) == (name != "fork")
    assert bool(cost.collectives) == (name != "fork")


@pytest.mark.parametrize("change", [{"attention": "dense"}, {"attention": "blocked", "layers": "separate"}])
def test_prompts_and_replies_are_lowered_as_an_engine_lowers_them(eight, change):
    settings = replace(SETTINGS, engine=replace(SETTINGS.engine, share_unit=4, **change))
    engine = Engine(MODEL, settings.engine, (1,))
    engine.load(params.initialise(MODEL, jax.random.key(0), eight), 0)
    calls, has = engine._programs.calls, (engine._weights, engine._programs.state)
    expected = {
        "prefill": next(calls.prompts(*has)),
        "fork": calls.fork(has[1], 4, 8, ()),
        "refill": calls.refill(*has, calls.blocks[-1], 8, ()),
        "decode": next(calls.replies(*has)),
    }
    for name, (program, arguments) in expected.items():
        assert programs.lower(name, settings, eight).as_text() == program.lower(*arguments).as_text()


@pytest.mark.parametrize(("share", "without"), [("prefix", []), ("prompt", ["refill"]), ("none", ["fork", "refill"])])
def test_an_engine_that_shares_less_has_fewer_programs(share, without):
    settings = replace(SETTINGS, engine=replace(SETTINGS.engine, share=share))
    assert [name for name in programs.NAMES if name not in programs.compiled_at_start(settings)] == without


def test_rows_of_shared_prompts_are_lowered_as_they_are_packed(eight):
    settings = replace(SETTINGS, pack=replace(SETTINGS.pack, prompt_length=8, sample_rows=2, attention="auto"))
    packed = blank(settings.pack, settings.loss, settings.reshaped, settings.pack.row_buckets[-1])
    for batch in programs.batches(settings, eight)[0].values():
        assert shapes(batch) == shapes(split(packed, settings.pack.micro_rows))


def shapes(batch):
    return jax.tree.map(lambda x: (x.shape, x.dtype), batch)


def test_a_team_of_two_policies_is_one_of_them_and_the_other_waits(eight):
    """The judge's weights are on a server: they take no room."""
    settings = replace(read(qwen3_30b_a3b_mgrpo.get_config()), policies=replace(SETTINGS.policies, layout="split"))
    served = replace(settings.policies, servers={"judge": ServerOptions(url="http://localhost/v1", model="m")})
    settings = replace(settings, policies=served, model=MODEL, pretrained=PretrainedOptions(), engine=SETTINGS.engine)
    assert list(programs.roles_of(settings)) == ["sub"]
    assert programs.training(settings) == ["main", "sub"]
    batches, scales = programs.batches(settings, eight)
    assert list(batches) == list(scales) == ["sub"]
    state, slots = programs.train_state(settings, eight), programs.engine_state(settings, eight)
    assert programs.waiting("update", settings, eight) == 2 * held(slots) + held(state)


def test_what_waits_is_what_a_chip_holds_besides(eight):
    state, slots = programs.train_state(SETTINGS, eight), programs.engine_state(SETTINGS, eight)
    split = replace(SETTINGS, policies=replace(SETTINGS.policies, layout="split"))
    assert programs.waiting("update", SETTINGS, eight) == held(slots)
    assert programs.waiting("decode", SETTINGS, eight) == held(state) - held(state.params)
    assert programs.waiting("update", split, eight) > programs.waiting("update", SETTINGS, eight)


def test_held_is_one_chip_s_share(eight):
    placed = jax.device_put(jnp.zeros((4, 8)), jax.NamedSharding(eight, jax.P("fsdp", "tensor")))
    assert held(placed) == 4 * 4 * 8 / 4


def test_adapters_are_refused_by_name(eight):
    adapters = replace(SETTINGS, policies=replace(SETTINGS.policies, layout="adapters"))
    with pytest.raises(SettingsError, match=r"policies\.layout"):
        programs.lower("update", adapters, eight)


def test_a_weight_costs_six_flops_a_token_and_attention_twelve_a_pair():
    model = tiny.config(tied=True)
    weights = params.count(model)
    norms = model.layers * (2 * model.d_model + 2 * model.head_dim) + model.d_model
    pairs = 10 * 10 / 2 * model.layers * model.heads * model.head_dim
    assert estimate.training_flops(model, 3, 10) == 3 * (6 * (weights - norms) * 10 + 12 * pairs)
