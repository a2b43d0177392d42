import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx import mesh
from metaagentx.policy import decode, experts, model, params, spec
from metaagentx.policy.cache import empty_cache
from metaagentx.policy.config import Experts
from tests.policy import reference, tiny

ROWS, LENGTH, D, F = 8, 4, 12, 8
AXES = {name: s.axes[1:] for name, s in spec.table(tiny.QWEN3_MOE)["layers"].items()}
LAYOUTS = [(1, 1, 8), (2, 2, 2), *(pytest.param(each, marks=pytest.mark.slow) for each in ((8, 1, 1), (1, 8, 1)))]


def layer(count, seed=0):
    draw = np.random.default_rng(seed).normal
    shapes = {"router": (count, D), "gate": (count, F, D), "up": (count, F, D), "down": (count, D, F)}
    return {name: (draw(size=shape) * shape[-1] ** -0.5).astype(np.float32) for name, shape in shapes.items()}


def tokens(rows=ROWS, length=LENGTH):
    return np.random.default_rng(1).normal(size=(rows, length, D)).astype(np.float32)


def dense(weights, options, x):
    """All experts of all tokens, in float64."""
    weights = {name: w.astype(np.float64) for name, w in weights.items()}
    flat = reference.mixture(weights, options, x.reshape(-1, D).astype(np.float64))
    return flat.reshape(x.shape)


mixture = jax.jit(experts.mixture, static_argnums=1)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("count", "active"), [(1, 1), (8, 1), (8, 3), (8, 8)])
def test_a_mixture_is_the_weighted_sum_of_its_active_experts(count, active, normalise):
    options = Experts(count, active, F, normalise)
    expected = dense(layer(count), options, tokens())
    np.testing.assert_allclose(mixture(layer(count), options, tokens()), expected, atol=1e-5)


def test_no_token_is_dropped_when_all_choose_the_same_experts():
    options, weights, x = Experts(8, 2, F, True), layer(8), np.abs(tokens())
    weights["router"] = np.full_like(weights["router"], -1.0)
    weights["router"][[3, 6]] = [[1.0], [2.0]]
    np.testing.assert_allclose(mixture(weights, options, x), dense(weights, options, x), atol=1e-5)


def test_a_tokens_answer_does_not_depend_on_the_others():
    options, x = Experts(8, 2, F, True), tokens()
    alone = mixture(layer(8), options, x[3:4, 2:3])
    np.testing.assert_allclose(mixture(layer(8), options, x)[3:4, 2:3], alone, atol=1e-5)


def test_weights_sum_to_one_only_if_normalised():
    x = tokens()
    for normalise in (True, False):
        weights, chosen = experts.route(layer(8)["router"], Experts(8, 3, F, normalise), x)
        assert weights.dtype == jnp.float32
        assert all(len(set(each)) == 3 for each in np.asarray(chosen).reshape(-1, 3).tolist())
        assert bool(jnp.allclose(weights.sum(-1), 1)) is normalise


def loss(weights, options, x, each=experts.EACH):
    y = experts.mixture(weights, options, x, each)
    return jnp.sum(jnp.sin(y)), y


learn = jax.jit(jax.value_and_grad(loss, argnums=(0, 2), has_aux=True), static_argnums=(1, 3))


def on_mesh(layout, options, x, each=experts.EACH):
    eight = mesh.make_mesh(*layout)
    with jax.set_mesh(eight):
        weights = {
            name: jax.device_put(w, mesh.sharding(AXES[name], w.shape, eight))
            for name, w in layer(options.count).items()
        }
        x = jax.device_put(x, mesh.sharding(("batch", None, None), x.shape, eight))
        return jax.device_get(learn(weights, options, x, each))


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "x".join(map(str, layout)))
def test_eight_devices_answer_and_learn_as_one(layout):
    options = Experts(8, 3, F, True)
    assert_close(on_mesh(layout, options, tokens()), learn(layer(8), options, tokens()))


def test_tokens_in_portions_answer_and_learn_as_all_at_once():
    options = Experts(8, 2, F, True)
    whole = learn(layer(8), options, tokens())
    assert_close(learn(layer(8), options, tokens(), 2), whole)  # 8 of 32 tokens at a time
    assert_close(on_mesh((2, 2, 2), options, tokens(), 1), whole)  # 2 of 8


def test_experts_and_rows_that_do_not_divide_over_the_mesh_are_computed_everywhere():
    options = Experts(3, 2, F, False)
    assert_close(on_mesh((2, 2, 2), options, tokens(rows=3)), learn(layer(3), options, tokens(rows=3)))


def test_one_row_of_one_token_is_decoded_on_eight_devices():
    options = Experts(8, 3, F, True)
    assert_close(on_mesh((1, 1, 8), options, tokens(1, 1)), learn(layer(8), options, tokens(1, 1)))


def test_gradients_are_those_of_all_experts_computed():
    options, x = Experts(8, 3, F, True), tokens()

    def plain(weights, options, x):
        chosen = experts.route(weights["router"], options, x)
        every = (
            jnp.zeros((*x.shape[:2], 8))
            .at[jnp.arange(ROWS)[:, None, None], jnp.arange(LENGTH)[None, :, None], chosen[1]]
            .set(chosen[0])
        )
        hidden = jax.nn.silu(jnp.einsum("btd,efd->btef", x, weights["gate"]))
        hidden = hidden * jnp.einsum("btd,efd->btef", x, weights["up"])
        y = jnp.einsum("btef,edf,bte->btd", hidden, weights["down"], every)
        return jnp.sum(jnp.sin(y)), y

    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 2), has_aux=True), static_argnums=1)
    assert_close(learn(layer(8), options, x), expected(layer(8), options, x))


def test_for_tpus_no_array_is_larger_than_a_row_for_each_pair():
    """Read from the program itself, gradients included; every expert for every pair would be 32 times as much."""
    count, active, length, width, d_ff = 32, 4, 512, 256, 128
    options = Experts(count, active, d_ff, True)
    shapes = {"router": (count, width), "gate": (count, d_ff, width), "up": (count, d_ff, width)}
    shapes["down"] = (count, width, d_ff)
    weights = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in shapes.items()}
    x = jax.ShapeDtypeStruct((1, length, width), jnp.bfloat16)
    program = learn.trace(weights, options, x).lower(lowering_platforms=("tpu",)).as_text()
    sizes = [np.prod([int(n) for n in dims.split("x") if n]) for dims in re.findall(r"tensor<((?:\d+x)+)", program)]
    assert "tpu_custom_call" in program
    assert max(sizes) == max(length * active * width, count * d_ff * width)


def test_experts_are_cut_over_tensor_and_their_width_over_fsdp():
    where = params.shardings(tiny.QWEN3_MOE, mesh.make_mesh(2, 2, 2))["layers"]
    assert where["gate"].spec == jax.P(None, "tensor", None, "fsdp")
    assert where["down"].spec == jax.P(None, "tensor", "fsdp", None)
    assert where["router"].spec == jax.P(None, None, "fsdp")


@pytest.mark.parametrize(("count", "active", "d_ff"), [(0, 1, 8), (4, 0, 8), (4, 1, 0), (4, 5, 8)])
def test_impossible_experts_are_refused(count, active, d_ff):
    with pytest.raises(ValueError, match=r"model\.experts"):
        Experts(count, active, d_ff, normalise=True)


@pytest.mark.slow
def test_a_whole_model_with_experts_and_biases_learns_and_samples_on_eight_devices_as_on_one():
    config = dataclasses.replace(tiny.QWEN3_MOE, layers=1, qkv_bias=True)
    ids = np.random.default_rng(2).integers(0, config.vocab_size, (8, 6)).astype(np.int32)
    positions, segments = np.broadcast_to(np.arange(6, dtype=np.int32), ids.shape), np.ones_like(ids)

    def loss(weights):
        hidden = model.forward(weights, config, ids, positions, segments)
        return jnp.mean(model.unembed(weights, config, hidden) ** 2)

    def study(weights):
        cache = empty_cache(config, "dense", slots=8, capacity=6)
        sampled, _ = decode.decode_step(weights, config, "dense", cache, ids[:, 0], np.zeros(8, np.int32), 6)
        return jax.value_and_grad(loss)(weights), sampled

    alone = jax.jit(study)(params.initialise(config, jax.random.key(0)))
    eight = mesh.make_mesh(2, 2, 2)
    with jax.set_mesh(eight):
        together = jax.device_get(jax.jit(study)(params.initialise(config, jax.random.key(0), eight)))
    assert_close(together, alone)
