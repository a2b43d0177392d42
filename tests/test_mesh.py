"""Claims about meshes: where the table puts things, and that eight devices train and sample what one does."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from metaagentx import mesh
from metaagentx.learn.options import LossOptions, OptimizerOptions, RoleOptions, StageOptions
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.update import update
from metaagentx.policy import adapters, params
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.sampled import Ask
from tests.learn.examples import LAYOUTS, RECIPE, some_batch
from tests.policy import tiny

UNEVEN = dataclasses.replace(tiny.QWEN3, heads=6, kv_heads=3)  # as SmolLM2's 9 and 3: fewer divide than their widths
# Tied, tied, with its own head, tied.
MODELS = {"dense": tiny.QWEN3, "biases": tiny.QWEN2, "experts": tiny.QWEN3_MOE, "uneven": UNEVEN}


def everywhere(*quick):
    """Every model on every layout; those not in `quick` are slow."""
    pairs = [(model, layout) for model in MODELS for layout in LAYOUTS]
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow, id=name(*pair)) for pair in pairs]


def name(model, layout):
    return f"{model}-{'x'.join(map(str, layout))}"


LORA = adapters.LoraOptions(rank=2, alpha=8.0, targets="q|k|v|o")

# Every term of the loss. Adam's first step is a sign but for a large epsilon, and so would hide or blow up differences.
ROLES = {"executor": RoleOptions(entropy=0.1, kl=0.2, optimizer=OptimizerOptions(learning_rate=1e-2, eps=1e-2))}
LOSS = LossOptions(ratio="sequence", aggregation="execution_mean", kl_estimator="k2")
EXECUTOR = phase(StageOptions(mode="executor_only"), tuple(ROLES), 0)


def on(layout, study, *arguments):
    """What `study` finds without a mesh (None), or on eight devices under one."""
    if layout is None:
        return study(None, *arguments)
    eight = mesh.make_mesh(*layout)
    with jax.set_mesh(eight):
        return study(eight, *arguments)


def test_gathered_weights_are_whole_but_over_tensor_and_get_the_gradients_of_all_rows():
    def gradient(eight):
        rows = mesh.place(jnp.linspace(0, 1, 48).reshape(8, 3, 2), "batch", None, None)

        def loss(weights):
            whole = mesh.gather(weights, rows)
            if eight is not None:
                assert jax.typeof(whole).sharding.spec == P("tensor", None, reduced=frozenset({"data", "fsdp"}))
            out = mesh.cut(("batch", None, "ff"), (8, 3, 4))
            return jnp.sum(jnp.sin(jnp.einsum("bti,oi->bto", rows, whole, out_sharding=out)))

        return jax.jit(jax.grad(loss))(mesh.place(jnp.arange(8.0).reshape(4, 2), "ff", "embed"))

    sharded = on((2, 2, 2), gradient)
    assert sharded.sharding.spec == P("tensor", "fsdp")
    np.testing.assert_allclose(jax.device_get(sharded), gradient(None), rtol=1e-5)


def train(eight, config, lora=None):
    """The state and metrics after two steps on two micro-batches, on the host."""
    base = jax.tree.map(lambda w: 2 * w, params.initialise(config, jax.random.key(0), eight))  # far from the uniform
    compute = dataclasses.replace(RECIPE.compute, config=config, micro_rows=16, chunk=4, remat="dots", lora=lora)
    recipe = dataclasses.replace(RECIPE, compute=compute, loss=LOSS, roles=tuple(ROLES.items()))
    trained = base if lora is None else adapters.initialise(config, lora, jax.random.key(1), eight)
    state = create(trained, ROLES, "per_role", master=True)
    where = jax.tree.map(lambda x: x.sharding, state)
    for seed in (0, 1):
        batch = some_batch(seed=seed, loss=LOSS)
        state, metrics = update(state, {"executor": batch}, EXECUTOR, recipe, None if lora is None else base)
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, where))
    return jax.device_get((state, metrics))


@functools.cache
def trained_alone(config, lora=None):
    return on(None, train, config, lora)


def sample(eight, config):
    """The replies to ten prompts, through eight slots."""
    weights = jax.tree.map(lambda w: 2 * w, params.initialise(config, jax.random.key(0), eight))
    engine = Engine(config, EngineOptions(8, 16, prompt_buckets=(8,), admit_buckets=(8,), chunk=4), (1,))
    engine.load(weights, 1)
    rng = np.random.default_rng(0)
    for number in range(10):
        prompt = rng.integers(2, config.vocab_size, rng.integers(1, 9)).astype(np.int32)
        engine.submit(Ask(number, prompt, (0, 0, 0, 0, -1, number), SamplingOptions(1.0, 8), "executor"))
    done = {}
    while len(done) < 10:
        done |= dict(engine.step())
    return done


@functools.cache
def sampled_alone(config):
    return on(None, sample, config)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), one, other)


@pytest.mark.parametrize(("model", "layout"), everywhere(("dense", (2, 2, 2))))
def test_eight_devices_learn_what_one_does(model, layout):
    """Losses, norms, gradients (as moments) and weights; and everything stays where it was."""
    found, expected = on(layout, train, MODELS[model]), trained_alone(MODELS[model])
    assert_close(found, expected)
    start = jax.device_get(params.initialise(MODELS[model], jax.random.key(0)))
    moved = jax.tree.map(lambda a, b: np.abs(a - 2 * b).max(), expected[0].params, start)
    assert min(jax.tree.leaves(moved)) > 1e-4  # far more than they may differ by


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: name("adapter", layout))
def test_eight_devices_teach_an_adapter_what_one_does(layout):
    assert_close(on(layout, train, MODELS["dense"], LORA), trained_alone(MODELS["dense"], LORA))


@pytest.mark.parametrize(("model", "layout"), everywhere(("dense", (1, 8, 1))))
def test_eight_devices_sample_what_one_does(model, layout):
    expected = sampled_alone(MODELS[model])
    assert len({tuple(reply.tokens) for reply in expected.values()}) > 8
    for number, reply in on(layout, sample, MODELS[model]).items():
        np.testing.assert_array_equal(reply.tokens, expected[number].tokens)
        np.testing.assert_allclose(reply.logprobs, expected[number].logprobs, atol=1e-4)


def test_weights_are_cut_as_the_table_says():
    eight = mesh.make_mesh(2, 2, 2)
    where = params.shardings(MODELS["dense"], eight)
    assert where["layers"]["q"].spec == P(None, "tensor", "fsdp")
    assert where["layers"]["down"].spec == P(None, "fsdp", "tensor")
    assert where["embed"].spec == P("tensor", "fsdp")
    assert where["final_norm"].spec == P(None)


def test_an_axis_that_does_not_divide_is_replicated_and_said_so(caplog):
    eight = mesh.make_mesh(1, 1, 8)
    with caplog.at_level(logging.INFO):
        assert mesh.sharding(("heads", None), (12, 4), eight).spec == P(None, None)
    assert "heads of 12" in caplog.text
    assert "tensor" in caplog.text


def test_part_of_a_cut_is_kept_where_only_part_divides():
    assert mesh.partition(("batch", None), (6, 4), mesh.make_mesh(2, 4, 1)) == P("data", None)


def test_a_mesh_axis_cuts_one_dimension_at_most():
    spec = mesh.partition(("heads", "ff", "batch", "embed"), (8, 8, 8, 8), mesh.make_mesh(2, 2, 2))
    assert spec == P("tensor", None, ("data", "fsdp"), None)


@pytest.mark.parametrize("sizes", [(2, 2, 1), (3, 1, 1), (8, 8, 1)])
def test_a_product_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(ValueError, match=r"number of devices \(8\)"):
        mesh.make_mesh(*sizes)


def test_a_size_below_one_is_refused_by_name():
    with pytest.raises(ValueError, match=r"mesh\.fsdp must be at least 1"):
        mesh.make_mesh(8, 0, 1)


def test_a_mesh_can_be_made_of_some_devices():
    assert mesh.make_mesh(1, 2, 1, devices=jax.devices()[:2]).devices.size == 2


def test_axes_that_do_not_fit_the_array_are_refused():
    one = mesh.make_mesh(8, 1, 1)
    with pytest.raises(ValueError, match="2 dimensions"):
        mesh.partition(("heads", "embed"), (4,), one)
    with pytest.raises(ValueError, match="'width' is not one of"):
        mesh.partition(("width",), (4,), one)


def test_without_a_mesh_nothing_is_added_to_the_program():
    x = jnp.ones((8, 4))
    assert mesh.place(x, "batch", None) is x
    assert mesh.cut(("batch", None), x.shape) is None


def test_whole_weights_are_the_same_and_cut_over_tensor_alone():
    config = tiny.config(layers=1)
    eight = mesh.make_mesh(2, 2, 2)
    with jax.set_mesh(eight):
        weights = params.initialise(config, jax.random.key(0), eight)
        whole = jax.jit(params.whole, static_argnums=0)(config, weights)
        assert whole["layers"]["q"].sharding.spec == P(None, "tensor", None)
        assert whole["layers"]["down"].sharding.spec == P(None, None, "tensor")
        jax.tree.map(np.testing.assert_array_equal, whole, weights)
