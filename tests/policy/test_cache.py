"""Every layout of the cache against the plain one, and the kernels on them against plain attention."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ref_ragged_paged_attention

from metaagentx.mesh import make_mesh, place
from metaagentx.policy import cache, cache_cudnn, cache_dense, cache_paged, params
from metaagentx.policy.decode import decode_step
from tests.policy import tiny

SLOTS, CAPACITY, WIDTH = 8, 300, 290  # three pages
POSITIONS = np.int32([0, 1, 127, 128, 129, 200, 255, 289])


def model(kv_heads=2, group=2, head_dim=16, dtype="float32"):
    config = tiny.config(dtype=dtype)
    return dataclasses.replace(config, kv_heads=kv_heads, heads=kv_heads * group, head_dim=head_dim)


def rows(config, count, length, seed=0):
    shape = (count, config.kv_heads, length, config.head_dim)
    k, v = jax.random.normal(jax.random.key(seed), (2, *shape), config.dtype)
    return k, v


def token(config, seed=1):
    shape = (SLOTS, config.heads, 1, config.head_dim)
    return (jax.random.normal(jax.random.key(seed), shape, config.dtype), *rows(config, SLOTS, 1, seed + 1))


def full(config, kernel):
    """A layer all of whose slots hold `CAPACITY` tokens."""
    layer = cache.empty_cache(config, kernel, SLOTS, CAPACITY)[0]
    return cache.put(kernel, layer, jnp.arange(SLOTS), rows(config, SLOTS, CAPACITY))


def anywhere(q, pages, lengths, table, starts, count, *, sm_scale, **_):
    """The paged kernel's arithmetic in XLA, of one query of each slot."""
    kept = pages[table].reshape(table.shape[0], -1, *pages.shape[2:])
    k, v = kept[:, :, 0::2].swapaxes(1, 2), kept[:, :, 1::2].swapaxes(1, 2)
    grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[2])
    scores = jnp.einsum("skgh,skch->skgc", grouped, k, preferred_element_type=jnp.float32) * sm_scale
    seen = (jnp.arange(kept.shape[1])[None] < lengths[:, None])[:, None, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1).astype(v.dtype)
    return jnp.einsum("skgc,skch->skgh", weights, v).reshape(q.shape)


def referred(q, pages, lengths, table, starts, count, *, sm_scale, num_kv_pages_per_block, **limits):
    """The package's own reference, which wants to know how many sequences there are, and checks all arguments."""
    assert 0 < num_kv_pages_per_block <= table.shape[1]
    assert limits.keys() == {"num_queries_per_block", "vmem_limit_bytes"}
    return ref_ragged_paged_attention(q, pages, lengths, table, starts, np.asarray(count), sm_scale=sm_scale)


dense = jax.jit(cache_dense.attend, static_argnums=2)
paged = jax.jit(functools.partial(cache_paged.attend_by, anywhere), static_argnums=2)


def by_xla(layer, positions, width, q, k, v):
    """What cuDNN is asked for, computed by XLA."""
    return cache_cudnn.attend_by("xla", layer, positions, width, q, k, v)


cudnn = jax.jit(by_xla, static_argnums=2)
ATTEND = {"paged": paged, "cudnn": cudnn}


@pytest.mark.parametrize("kernel", ["dense", "paged", "cudnn"])
def test_what_is_put_is_read_again_and_other_slots_keep_theirs(kernel):
    config = model(kv_heads=3)
    before, new = full(config, kernel), rows(config, 3, 50, seed=5)
    layer = cache.put(kernel, before, jnp.int32([6, SLOTS, 2]), new)
    everything = cache.read(kernel, layer, jnp.arange(SLOTS), CAPACITY)
    expected = cache.read(kernel, before, jnp.arange(SLOTS), CAPACITY)
    for got, kept, put in zip(everything, expected, new, strict=True):
        kept = kept.at[6, :, :50].set(put[0]).at[2, :, :50].set(put[2])
        np.testing.assert_array_equal(got, kept)


@pytest.mark.parametrize(
    ("kernel", "kv_heads", "group", "head_dim"),
    [("paged", 3, 3, 64), ("paged", 8, 4, 128), ("cudnn", 3, 3, 64)],
)
def test_attention_over_every_layout_is_dense_attention(kernel, kv_heads, group, head_dim):
    config = model(kv_heads, group, head_dim)
    q, k, v = token(config)
    expected, _ = dense(full(config, "dense"), POSITIONS, WIDTH, q, k, v)
    got, layer = ATTEND[kernel](full(config, kernel), POSITIONS, WIDTH, q, k, v)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_array_equal(cache.read(kernel, layer, jnp.arange(SLOTS), WIDTH)[1][3, :, 128], v[3, :, 0])


def test_the_packages_reference_reads_the_paged_layout_as_the_kernel_of_these_tests_does():
    config = model(3, 3, 64)
    some = jnp.int32([3, 7])
    layer, operands = full(config, "paged"), [x[some] for x in token(config)]
    layer = layer.replace(tokens=layer.tokens[some])
    expected, _ = paged(layer, POSITIONS[some], WIDTH, *operands)
    got, _ = cache_paged.attend_by(referred, layer, POSITIONS[some], WIDTH, *operands)
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.slow
def test_the_packages_reference_in_bfloat16_is_nearly_as_near_to_float32_as_dense_attention_is():
    narrow = model(3, 3, 64, "bfloat16")
    some = jnp.int32([3, 7])
    positions, operands = POSITIONS[some], [x[some] for x in token(narrow)]
    layer = jax.tree.map(lambda x: x[some], full(narrow, "dense"))
    exact, _ = dense(wide(layer), positions, WIDTH, *wide(operands))
    plain, _ = dense(layer, positions, WIDTH, *operands)
    pages = full(narrow, "paged")
    got, _ = cache_paged.attend_by(referred, pages.replace(tokens=pages.tokens[some]), positions, WIDTH, *operands)
    assert got.dtype == jnp.bfloat16
    assert deviation(got, exact) <= 1.25 * deviation(plain, exact)


def wide(arrays):
    return jax.tree.map(lambda x: x.astype(jnp.float32), arrays)


def deviation(narrow, exact):
    return np.sqrt(np.mean(np.square(np.float32(narrow) - np.float32(exact))))


@pytest.mark.parametrize("kernel", ATTEND)
def test_what_lies_beyond_a_slots_position_is_never_read(kernel):
    config = model()
    q, k, v = token(config)

    def disturb(kept):
        beyond = np.arange(kept.shape[1])[None] > POSITIONS[:, None]
        return jnp.where(beyond[:, :, None, None], 1e4, kept)

    layer = full(config, kernel)
    one, _ = ATTEND[kernel](layer, POSITIONS, WIDTH, q, k, v)
    two, _ = ATTEND[kernel](jax.tree.map(disturb, layer), POSITIONS, WIDTH, q, k, v)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kernel", ["dense", *ATTEND])
def test_a_slot_beyond_the_width_is_written_all_the_same_and_changes_nothing_for_others(kernel):
    config = model()
    q, k, v = token(config)
    attend, inside = {"dense": dense, **ATTEND}[kernel], POSITIONS < 200
    narrow, layer = attend(full(config, kernel), POSITIONS, 200, q, k, v)
    wide, expected = attend(full(config, kernel), POSITIONS, WIDTH, q, k, v)
    np.testing.assert_allclose(narrow[inside], wide[inside], atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, layer, expected)


@pytest.mark.parametrize("kernel", ATTEND)
def test_every_layout_on_a_mesh_is_that_of_one_device(kernel):
    config = model(kv_heads=4)
    q, k, v = token(config)

    @jax.jit
    def study(q, k, v):
        q, k, v = place(q, "batch", "heads", None, None), *(place(x, "batch", "kv_heads", None, None) for x in (k, v))
        y, layer = ATTEND[kernel](full(config, kernel), place(jnp.asarray(POSITIONS), "batch"), WIDTH, q, k, v)
        return y, layer, cache.read(kernel, layer, jnp.int32([7, 3]), WIDTH)

    alone = study(q, k, v)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        together = study(q, k, v)
        specs = {leaf.sharding.spec for leaf in jax.tree.leaves(together[1])}
        assert specs == {jax.P(("data", "fsdp"), None, "tensor", None)}
        together = jax.device_get(together)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), together, jax.device_get(alone))


@pytest.mark.parametrize("kernel", ATTEND)
def test_a_model_decodes_alike_with_every_layout(kernel, monkeypatch):
    monkeypatch.setattr(cache_paged, "attend", functools.partial(cache_paged.attend_by, anywhere))
    monkeypatch.setattr(cache_cudnn, "attend", by_xla)
    config = dataclasses.replace(tiny.config(), heads=6, kv_heads=3)
    weights = params.initialise(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (3, SLOTS)).astype(np.int32)
    step = jax.jit(decode_step, static_argnums=(1, 2, 6))

    def replies(kernel):
        kept, logits = cache.empty_cache(config, kernel, SLOTS, CAPACITY), []
        for at, drawn in enumerate(tokens):
            found, kept = step(weights, config, kernel, kept, drawn, np.full(SLOTS, at, np.int32), WIDTH)
            logits.append(found)
        return np.stack(logits)

    np.testing.assert_allclose(replies(kernel), replies("dense"), atol=1e-5)


def test_decoding_by_cudnn_lowers_for_a_gpu():
    config = model(3, 3, 64, "bfloat16")
    traced = jax.jit(cache_cudnn.attend, static_argnums=2)
    try:
        lowered = traced.trace(full(config, "cudnn"), POSITIONS, WIDTH, *token(config)).lower(
            lowering_platforms=("cuda",)
        )
    except RuntimeError as error:
        pytest.skip(f"jax wants cuDNN installed: {error}")
    assert "cudnn" in lowered.as_text()


@pytest.mark.parametrize(("config", "tensor"), [(model(3, 3), 1), (model(8, 4), 4), (model(8, 1, 16, "bfloat16"), 1)])
def test_heads_that_can_be_padded_are_served(config, tensor):
    assert cache_paged.refusal(config, tensor) is None
