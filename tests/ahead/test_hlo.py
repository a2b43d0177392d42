"""The cost of a scanned program is that of the unrolled one, which XLA counts itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from metaagentx.ahead.hlo import Program

WIDTH, ROWS, LAYERS, PARTS = 64, 32, 5, 3


def loss(unroll, weights, parts):
    """A scan over parts of a batch around a scan over layers."""

    def layer(x, w):
        return jnp.tanh(x @ w), None

    def part(total, x):
        return total + jnp.sum(jax.lax.scan(layer, x, weights, unroll=unroll)[0]), None

    return jax.lax.scan(part, jnp.float32(0), parts, unroll=unroll)[0]


def compiled(unroll):
    weights = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
    parts = jax.ShapeDtypeStruct((PARTS, ROWS, WIDTH), jnp.float32)
    return jax.jit(jax.grad(lambda w, x: loss(unroll, w, x), argnums=(0, 1))).lower(weights, parts).compile()


def test_a_loop_counts_as_often_as_it_runs():
    scanned, unrolled = Program(compiled(1).as_text()), compiled(True)
    by_hand = PARTS * LAYERS * 3 * 2 * ROWS * WIDTH * WIDTH
    assert scanned.cost().products == by_hand
    assert Program(unrolled.as_text()).cost().products == by_hand
    assert unrolled.cost_analysis()["flops"] == pytest.approx(by_hand, rel=0.05)  # XLA counts sums and tanh as well


def test_without_unrolling_every_loop_counts_once_as_in_xla():
    program = compiled(1)
    once = Program(program.as_text()).cost(unrolled=False).products
    assert once == 3 * 2 * ROWS * WIDTH * WIDTH
    assert program.cost_analysis()["flops"] == pytest.approx(once, rel=0.1)


def test_a_loop_that_stops_by_its_data_counts_once():
    def halve(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x @ x, x)

    program = jax.jit(halve).lower(jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)).compile()
    assert Program(program.as_text()).cost().products == 2 * WIDTH**3


def test_of_two_branches_the_dearer_counts():
    def either(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

    shapes = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)
    assert Program(jax.jit(either).lower(*shapes).compile().as_text()).cost().products == 2 * 2 * WIDTH**3


HEADER = "HloModule m, num_partitions=8\n\n"


@pytest.mark.parametrize(
    ("instruction", "size", "received"),
    [
        ("f32[80] all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}", 4, 320 * 3 / 4),
        ("f32[80] all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add", 2, 2 * 320 / 2),
        ("f32[10] reduce-scatter(%x), replica_groups={}, to_apply=%add", 8, 40 * 7),
        ("f32[80] collective-permute(%x), source_target_pairs={{0,1}}", 2, 320),
        ("f32[80] all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}", 4, 320 * 3 / 4),
    ],
    ids=lambda value: value.split("(")[0].split()[-1] if isinstance(value, str) else "",
)
def test_a_collective_is_what_its_chip_must_receive(instruction, size, received):
    text = (
        HEADER + f"ENTRY %main (x: f32[80]) -> f32[80] {{\n  %x = f32[80] parameter(0)\n  ROOT %y = {instruction}\n}}\n"
    )
    assert Program(text).cost().collectives == {size: received}


@pytest.mark.parametrize(
    ("window", "labels", "left", "right", "out", "flops"),
    [
        ("", "bf_io->bf", "4,8", "8,16", "4,16", 2 * 4 * 8 * 16),
        # A product batched over 3: a window that steps over a dilated input meets each element with its own weights.
        ("window={size=3 stride=2 pad=0_0 lhs_dilate=3}, ", "0bf_0io->0bf", "3,4,8", "3,8,16", "3,4,16", None),
    ],
)
def test_a_product_written_as_a_convolution(window, labels, left, right, out, flops):
    text = HEADER + (
        f"ENTRY %main (x: f32[{left}], w: f32[{right}]) -> f32[{out}] {{\n  %x = f32[{left}] parameter(0)\n"
        f"  %w = f32[{right}] parameter(1)\n"
        f"  ROOT %y = f32[{out}] convolution(%x, %w), {window}dim_labels={labels}\n}}\n"
    )
    found = Program(text).cost().products
    assert found == (2 * 3 * 4 * 8 * 16 if flops is None else flops)


def test_what_reads_an_array_that_it_has_just_updated_reads_all_of_it():
    text = HEADER + (
        "%fused (p: f32[100], u: f32[1], i: s32[]) -> f32[] {\n  %p = f32[100] parameter(0)\n"
        "  %u = f32[1] parameter(1)\n  %i = s32[] parameter(2)\n"
        "  %new = f32[100] dynamic-update-slice(%p, %u, %i)\n  ROOT %sum = f32[] custom(%new)\n}\n\n"
        "ENTRY %main (x: f32[100], y: f32[1], at: s32[]) -> f32[] {\n  %x = f32[100] parameter(0)\n"
        "  %y = f32[1] parameter(1)\n  %at = s32[] parameter(2)\n"
        "  ROOT %f = f32[] fusion(%x, %y, %at), kind=kLoop, calls=%fused\n}\n"
    )
    updated = 4  # written
    assert Program(text).cost().hbm == 400 + 4 + 4 + updated


def test_a_paged_kernel_reads_what_its_slots_may_hold_and_not_all_pages():
    slots, reached, owned, page, heads, kv_heads, width = 8, 3, 5, 128, 32, 8, 128
    pages = f"bf16[{slots * owned},{page},{2 * kv_heads},{width}]"
    text = HEADER + (
        f"ENTRY %main (pages: {pages}) -> bf16[{slots},{heads},{width}] {{\n  %pages = {pages} parameter(0)\n"
        f"  ROOT %ragged_paged_attention_kernel.1 = bf16[{slots},{heads},{width}] custom-call(%pages), "
        f'custom_call_target="tpu_custom_call", operand_layout_constraints={{s32[{slots}]{{0}}, '
        f"s32[{slots},{reached}]{{1,0}}, s32[{slots + 1}]{{0}}, s32[2]{{0}}, s32[1]{{0}}, "
        f"bf16[{slots},{heads},{width}]{{2,1,0}}, {pages}{{3,2,1,0}}}}, metadata={{}}\n}}\n"
    )
    cost = Program(text).cost()
    assert cost.cached == slots * reached * page * 2 * kv_heads * width * 2
    assert cost.attended == 2 * 2 * slots * reached * page * heads * width
    assert cost.hbm == slots * heads * width * 2  # the result
