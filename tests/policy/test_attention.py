"""Every way to compute attention against the dense one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.mesh import make_mesh, place
from metaagentx.policy import attention, attention_blocked, attention_kernels, attention_strips
from metaagentx.policy.attend import within

LENGTH = 37  # no multiple of any block
# Three packed segments, then padding; the second row is full, the third is empty.
SEGMENTS = np.zeros((4, LENGTH), np.int32)
SEGMENTS[0, :30] = np.repeat([1, 2, 3], [11, 7, 12])
SEGMENTS[1] = 1
SEGMENTS[3, :20] = 1
POSITIONS = np.zeros_like(SEGMENTS)
for row, segments in enumerate(SEGMENTS):
    for segment in (1, 2, 3):
        POSITIONS[row, segments == segment] = np.arange((segments == segment).sum())
REAL = (SEGMENTS > 0)[:, None, :, None]


def inputs(width=16, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(4, 4, LENGTH, width), (4, 2, LENGTH, width), (4, 2, LENGTH, width), (4, 4, LENGTH, width)]
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def outcome(attend, q, k, v, weights):
    """What real tokens get, and the gradients of a weighted sum of it."""

    def loss(q, k, v):
        y = jnp.where(REAL, attend(q, k, v), 0)
        return jnp.sum(weights * y.astype(jnp.float32)), y

    gradients, y = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return jax.device_get((y, *gradients))


def dense(q, k, v):
    return within("dense", POSITIONS, SEGMENTS)(q, k, v)[0]


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), **tolerance), one, other)


def deviation(narrow, exact):
    return np.sqrt(np.mean(np.square(np.float32(narrow) - exact)))


@pytest.mark.parametrize("by_blocks", [attention_blocked.blocked, attention_strips.strips])
@pytest.mark.parametrize("size", [8, LENGTH, 512])
def test_blocked_attention_is_dense_attention_and_so_are_its_gradients(by_blocks, size):
    attend = functools.partial(by_blocks, jnp.asarray(SEGMENTS), size=size)
    assert_close(outcome(attend, *inputs()), outcome(dense, *inputs()), atol=2e-6)


@pytest.mark.parametrize("by_blocks", [attention_blocked.blocked, attention_strips.strips])
def test_blocked_attention_in_bfloat16_is_as_near_to_float32_as_dense_attention_is(by_blocks):
    narrow = inputs(dtype=jnp.bfloat16)
    exact = outcome(dense, *(x.astype(jnp.float32) for x in narrow))
    attend = functools.partial(by_blocks, jnp.asarray(SEGMENTS), size=8)
    for mine, theirs, right in zip(outcome(attend, *narrow), outcome(dense, *narrow), exact, strict=True):
        assert mine.dtype == jnp.bfloat16
        assert deviation(mine, right) <= 1.1 * deviation(theirs, right)


def test_what_padding_holds_reaches_no_other_token():
    q, k, v, _ = inputs()
    attend = jax.jit(functools.partial(attention_blocked.blocked, jnp.asarray(SEGMENTS), size=8))
    disturbed = (jnp.where(REAL, x, 7.0) for x in (q, k, v))
    np.testing.assert_array_equal(np.where(REAL, attend(q, k, v), 0), np.where(REAL, attend(*disturbed), 0))


def test_blocked_attention_never_holds_the_scores_of_a_row():
    q = jax.ShapeDtypeStruct((1, 2, 4096, 8), jnp.float32)
    segments = jnp.ones((1, 4096), jnp.int32)

    def loss(q, k, v):
        return jnp.sum(attention_blocked.blocked(segments, q, k, v, size=256))

    memory = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, q, q).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4096 * 4096 / 4  # a quarter of one head's scores


@pytest.mark.parametrize(
    "layout",
    [(2, 2, 2), *(pytest.param(layout, marks=pytest.mark.slow) for layout in ((1, 1, 2), (2, 2, 1), (1, 1, 8)))],
    ids=lambda layout: "x".join(map(str, layout)),
)
@pytest.mark.parametrize("by_blocks", [attention_blocked.blocked, attention_strips.strips])
def test_blocked_attention_on_a_mesh_is_that_of_one_device(by_blocks, layout):
    alone = outcome(functools.partial(by_blocks, jnp.asarray(SEGMENTS), size=16), *inputs())
    count = int(np.prod(layout))
    with jax.set_mesh(make_mesh(*layout, devices=jax.devices()[:count])):
        assert_close(outcome(functools.partial(laid_out, by_blocks, 16), *inputs()), alone, atol=2e-6)


def laid_out(attend, size, q, k, v):
    q = place(q, "batch", "heads", None, None)
    k, v = (place(x, "batch", "kv_heads", None, None) for x in (k, v))
    y = attend(jnp.asarray(SEGMENTS), q, k, v, size)
    return place(y, None, None, None, None)


def test_the_splash_kernel_is_dense_attention_and_so_are_its_gradients():
    attend = functools.partial(attention_kernels.splash, jnp.asarray(SEGMENTS), interpret=True)
    assert_close(outcome(attend, *inputs(width=128)), outcome(dense, *inputs(width=128)), atol=2e-5)


def alone():
    """The segments without what is packed: one in each row."""
    return jnp.asarray(np.where(SEGMENTS > 0, 1, 0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_cudnn_is_asked_for_is_dense_attention_and_so_are_its_gradients(dtype):
    attend = functools.partial(attention_kernels.fused, jnp.asarray(SEGMENTS), implementation="xla")
    operands = inputs(dtype=dtype)
    exact = outcome(dense, *(x.astype(jnp.float32) for x in operands))
    mine, theirs = outcome(attend, *operands), outcome(dense, *operands)
    for got, plain, right in zip(mine, theirs, exact, strict=True):
        assert deviation(got, right) <= 1.25 * deviation(plain, right) + 1e-6


def test_rows_of_one_segment_need_no_mask():
    def plain(q, k, v):
        return within("dense", jnp.broadcast_to(jnp.arange(LENGTH)[None], SEGMENTS.shape), alone())(q, k, v)[0]

    attend = functools.partial(attention_kernels.fused, alone(), alone=True, implementation="xla")
    assert_close(outcome(attend, *inputs()), outcome(plain, *inputs()), atol=2e-6)


def test_the_triton_kernel_is_dense_attention_and_so_are_its_gradients():
    attend = functools.partial(attention_kernels.triton, jnp.asarray(SEGMENTS), interpret=True)
    assert_close(outcome(attend, *inputs()), outcome(dense, *inputs()), atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_triton_kernel_lowers_for_a_gpu(dtype):
    def loss(*operands):
        return jnp.sum(attention_kernels.triton(jnp.asarray(SEGMENTS), *operands).astype(jnp.float32))

    *operands, _ = inputs(width=64, dtype=dtype)
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*operands).lower(lowering_platforms=("cuda",))
    assert "triton" in lowered.as_text()


@pytest.mark.parametrize("packed", [True, False])
def test_the_cudnn_kernel_lowers_for_a_gpu(packed):
    def loss(*operands):
        segments = jnp.asarray(SEGMENTS) if packed else alone()
        return jnp.sum(attention_kernels.fused(segments, *operands, alone=not packed).astype(jnp.float32))

    *operands, _ = inputs(width=64, dtype=jnp.bfloat16)
    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    try:
        lowered = traced.trace(*operands).lower(lowering_platforms=("cuda",))
    except RuntimeError as error:
        pytest.skip(f"jax wants cuDNN installed: {error}")
    assert "cudnn" in lowered.as_text()


@pytest.mark.parametrize("name", ["fused", "triton"])
def test_kernels_of_gpus_on_a_mesh_are_those_of_one_device(name):
    options = {"fused": {"implementation": "xla"}, "triton": {"interpret": True}}[name]
    attend = functools.partial(getattr(attention_kernels, name), **options)

    def forward(q, k, v):
        return jnp.where(REAL, attend(jnp.asarray(SEGMENTS), q, k, v), 0)

    *operands, _ = inputs()
    alone = jax.jit(forward)(*operands)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        together = jax.device_get(
            jax.jit(functools.partial(laid_out, lambda s, q, k, v, _: attend(s, q, k, v), 0))(*operands)
        )
    np.testing.assert_allclose(np.where(REAL, together, 0), alone, atol=2e-6)


@pytest.mark.parametrize("by_blocks", [attention_blocked.blocked, attention_strips.strips])
@pytest.mark.parametrize(("trunk", "branch", "size"), [(9, 14, 4), (9, 14, 16), (13, 8, 8), (21, 4, 6)])
def test_blocks_of_a_tree_are_dense_attention_and_so_are_its_gradients(by_blocks, trunk, branch, size):
    """Two stems side by side in the trunk, one of which segments of every branch continue."""
    index = np.arange(LENGTH)
    branches = (index - trunk) // branch
    segments = np.where(index < trunk, 1 + (index > trunk // 2), 3 + branches)
    of = np.where(index < trunk, 0, 1 + branches % 2)
    segments, of = (np.broadcast_to(x.astype(np.int32), SEGMENTS.shape) for x in (segments, of))
    positions = np.broadcast_to(index.astype(np.int32), SEGMENTS.shape)
    stems = attention.Stems(jnp.asarray(of), trunk, branch)

    def reference(q, k, v):
        return within("dense", positions, segments, stems=stems)(q, k, v)[0]

    attend = functools.partial(by_blocks, jnp.asarray(segments), size=size, stems=stems)
    assert_close(outcome(attend, *inputs()), outcome(reference, *inputs()), atol=2e-6)
