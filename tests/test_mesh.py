import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from metaagentx import mesh
from metaagentx.policy import decode, logprobs, model, params
from tests.policy import tiny

CONFIG = tiny.config(layers=1)
LAYOUTS = [(1, 1, 8), (2, 2, 2)]  # one that not everything divides over, and every kind of cut at once
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (8, 10)).astype(np.int32)
SEGMENTS = np.where(np.arange(10) < 8, np.arange(10) // 4 + 1, 0).astype(np.int32) * np.ones((8, 1), np.int32)
POSITIONS = np.broadcast_to(np.arange(10, dtype=np.int32) % 4, TOKENS.shape)


def loss(weights):
    hidden = model.forward(weights, CONFIG, TOKENS, POSITIONS, SEGMENTS)
    logprob, entropy = logprobs.token_logprobs(weights, CONFIG, hidden, TOKENS, chunk=4, with_entropy=True)
    return jnp.mean((logprob + 0.1 * entropy) * (SEGMENTS > 0)), (hidden, logprob, entropy)


def sample(weights):
    first, _ = decode.prefill(weights, CONFIG, TOKENS, np.full(8, 5, np.int32), "dense")
    cache = decode.empty_cache(CONFIG, slots=8, capacity=6)
    second, cache = decode.decode_step(weights, CONFIG, cache, TOKENS[:, 0], np.zeros(8, np.int32))
    return first, second, cache


def result(study, layout=None):
    """What `study` computes from weights, on one device without a mesh or on eight under one."""
    if layout is None:
        return jax.device_get(jax.jit(study)(params.initialise(CONFIG, jax.random.key(0))))
    eight = mesh.make_mesh(*layout)
    with jax.set_mesh(eight):
        weights = params.initialise(CONFIG, jax.random.key(0), eight)
        assert jax.tree.map(lambda w: w.sharding, weights) == params.shardings(CONFIG, eight)
        return jax.device_get(jax.jit(study)(weights))


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


learn = jax.value_and_grad(loss, has_aux=True)


@pytest.fixture(scope="module")
def learnt_alone():
    return result(learn)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "x".join(map(str, layout)))
def test_eight_devices_learn_what_one_does(learnt_alone, layout):
    assert_close(result(learn, layout), learnt_alone)


def test_eight_devices_sample_what_one_does():
    assert_close(result(sample, (2, 2, 2)), result(sample))


def test_weights_are_cut_as_the_table_says():
    eight = mesh.make_mesh(2, 2, 2)
    where = params.shardings(CONFIG, eight)
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
