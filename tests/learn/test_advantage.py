"""Claims about the advantage kernel, against loops in NumPy."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.learn.advantage import FOLLOW, LEAD, Counts, Samples, advantages
from metaagentx.learn.options import CreditOptions
from metaagentx.mesh import make_mesh, sharding

COUNTS = Counts(questions=4, designs=4, executions=4, agents=4, turns=4)
GROUPINGS = ("metaagent_x", "per_design", "at_grpo", "per_agent", "m_grpo")
ROWS = 64  # one compilation per option
AXES = ("reward", "question", "design", "execution", "role", "agent", "turn", "mask")
TYPES = dict(zip(AXES, (np.float32, *(np.int32,) * 6, np.bool_), strict=True))
PADDING = (9.0, 0, 0, 0, FOLLOW, 0, 0, False)
property_test = settings(max_examples=20, deadline=None, derandomize=True)


def samples(rows: list[tuple]) -> Samples:
    rows = rows + [PADDING] * (ROWS - len(rows))
    return Samples(
        **{name: np.array(column, TYPES[name]) for name, column in zip(AXES, zip(*rows, strict=True), strict=True)}
    )


def run(rows: list[tuple], options: CreditOptions) -> np.ndarray:
    return np.asarray(advantages(samples(rows), COUNTS, options).advantage)[: len(rows)]


def oracle(rows: list[tuple], options: CreditOptions) -> np.ndarray:
    """Groups as dictionaries of units, straight from the definitions."""
    groups: dict[tuple, dict[tuple, float]] = {}
    keys = []
    for i, (reward, q, d, e, role, agent, turn, mask) in enumerate(rows):
        if role == LEAD:
            group, unit = ("lead", q), (d,)
        else:
            extra = {"at_grpo": (agent, turn), "per_agent": (agent,)}.get(options.grouping, ())
            group, unit = ("follow", q, *extra, *((d,) if options.grouping == "per_design" else ())), (d, e)
        if options.grouping == "m_grpo":
            unit = (i,)
        keys.append(group)
        if mask:
            groups.setdefault(group, {})[unit] = reward

    found = []
    for row, key in zip(rows, keys, strict=True):
        reward, values = row[0], np.array(list(groups.get(key, {}).values()), np.float64)
        settled = len(values) < 2 or values.max() - values.min() <= 1e-6 * max(1, np.abs(values).max())
        if not row[7] or settled:
            found.append(0.0)
        elif options.normaliser == "mean_std":
            found.append((reward - values.mean()) / (max(values.std(ddof=options.ddof), options.std_floor) + 1e-6))
        elif options.normaliser == "mean":
            found.append(reward - values.mean())
        else:
            found.append(reward - (values.sum() - reward) / (len(values) - 1))
    return np.array(found)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple]:
    """Ragged trees: designs with 0 to 3 executions of 1 to 3 calls; some runs are masked."""
    reward = st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.1])
    rows = []
    for q in range(draw(st.integers(1, 2))):
        for d in range(draw(st.integers(1, 3))):
            rows.append((draw(reward), q, d, -1, LEAD, 0, 0, draw(st.integers(0, 4)) > 0))
            for e in range(draw(st.integers(0, 3))):
                r, mask = draw(reward), draw(st.integers(0, 4)) > 0
                calls = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=3))
                rows += [(r, q, d, e, FOLLOW, agent, turn, mask) for agent, turn in calls]
    return rows[:ROWS]


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize(
    "options",
    [
        CreditOptions(),
        CreditOptions(normaliser="mean"),
        CreditOptions(normaliser="loo"),
        CreditOptions(std_floor=0.3, ddof=0),
    ],
    ids=["mean_std", "mean", "loo", "floor"],
)
def test_kernel_equals_loops(grouping: str, options: CreditOptions) -> None:
    options = replace(options, grouping=grouping)

    @property_test
    @given(trees())
    def check(rows: list[tuple]) -> None:
        np.testing.assert_allclose(run(rows, options), oracle(rows, options), atol=2e-5)

    check()


@pytest.mark.parametrize("grouping", GROUPINGS)
@property_test
@given(data=st.data())
def test_advantage_does_not_depend_on_row_order(grouping: str, data: st.DataObject) -> None:
    rows, options = data.draw(trees()), CreditOptions(grouping=grouping)
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = run([rows[i] for i in order], options)
    np.testing.assert_allclose(shuffled, run(rows, options)[list(order)], atol=2e-5)


@property_test
@given(rows=trees(), wild=st.tuples(*[st.sampled_from([-7, -1, 4, 1000, 2**31 - 1])] * 6))
def test_padding_contributes_nothing_whatever_it_holds(rows: list[tuple], wild: tuple) -> None:
    plain = samples(rows)
    padding = np.arange(ROWS) >= len(rows)
    # Ids out of range are padding even where the mask forgot them.
    dirty = Samples(
        **{
            name: np.where(padding, value, getattr(plain, name)).astype(TYPES[name])
            for name, value in zip(AXES, (5.0, *wild, True), strict=True)
        }
    )
    clean, found = (advantages(s, COUNTS, CreditOptions(grouping="at_grpo")) for s in (plain, dirty))
    np.testing.assert_array_equal(clean.advantage, found.advantage)
    assert int(clean.groups) == int(found.groups)


@pytest.mark.parametrize("grouping", GROUPINGS[:-1])
@property_test
@given(rows=trees(), copies=st.integers(2, 3))
def test_an_execution_counts_once_however_many_calls_it_made(grouping: str, rows: list[tuple], copies: int) -> None:
    rows, options = rows[:20], CreditOptions(grouping=grouping)
    again = [row for row in rows if row[4] == FOLLOW][: (ROWS - len(rows)) // copies] * (copies - 1)
    np.testing.assert_allclose(run(rows + again, options)[: len(rows)], run(rows, options), atol=2e-5)


@property_test
@given(rows=trees(), shift=st.sampled_from([-2.0, 0.5, 3.0]), scale=st.sampled_from([0.5, 3.0, 20.0]))
def test_advantage_ignores_shift_and_scale_of_rewards(rows: list[tuple], shift: float, scale: float) -> None:
    moved = [(row[0] + shift, *row[1:]) for row in rows]
    for normaliser in ("mean_std", "mean", "loo"):
        options = CreditOptions(normaliser=normaliser)
        np.testing.assert_allclose(run(moved, options), run(rows, options), atol=5e-5)
    stretched = [(row[0] * scale, *row[1:]) for row in rows]
    np.testing.assert_allclose(run(stretched, CreditOptions()), run(rows, CreditOptions()), atol=1e-4)


@pytest.mark.parametrize("normaliser", ["mean_std", "mean", "loo"])
@property_test
@given(rows=trees())
def test_advantages_of_a_group_sum_to_zero_over_executions(normaliser: str, rows: list[tuple]) -> None:
    advantage = run(rows, CreditOptions(normaliser=normaliser))
    sums: dict[tuple, dict[tuple, float]] = {}
    for row, a in zip(rows, advantage, strict=True):
        sums.setdefault((row[4], row[1]), {})[row[2:4]] = float(a)
    for units in sums.values():
        assert abs(sum(units.values())) < 1e-4


def test_groups_that_settle_nothing_get_exactly_zero_and_are_counted() -> None:
    third = 1 / 3
    rows = [(third, 0, 0, e, FOLLOW, 0, turn, True) for e in range(3) for turn in range(3)]  # all equal
    rows += [(0.7, 1, 0, 0, FOLLOW, 0, 0, True)]  # a singleton
    rows += [(0.0, 2, 0, 0, FOLLOW, 0, 0, True), (1.0, 2, 0, 1, FOLLOW, 0, 0, True)]
    credit = advantages(samples(rows), COUNTS, CreditOptions())
    assert np.all(np.asarray(credit.advantage)[:10] == 0)
    np.testing.assert_allclose(credit.advantage[10:12], [-(0.5**0.5), 0.5**0.5], rtol=1e-5)
    assert (int(credit.groups), int(credit.singletons), int(credit.equal)) == (3, 1, 1)


def test_sharded_rows_get_what_one_device_gives() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (float(rng.random()), q, d, e, LEAD if e < 0 else FOLLOW, int(rng.integers(3)), int(rng.integers(2)), True)
        for q in range(4)
        for d in range(3)
        for e in range(-1, 4)
    ]
    mesh = make_mesh(2, 2, 2)
    for grouping in GROUPINGS:
        options = CreditOptions(grouping=grouping)
        with jax.set_mesh(mesh):
            placed = jax.tree.map(lambda x: jax.device_put(x, sharding(("batch",), x.shape, mesh)), samples(rows))
            spread = np.asarray(advantages(placed, COUNTS, options).advantage)
        np.testing.assert_allclose(spread[: len(rows)], run(rows, options), atol=1e-6)


def test_too_many_segments_is_an_error_that_names_the_sizes() -> None:
    with pytest.raises(ValueError, match="segments"):
        advantages(samples([]), Counts(2**12, 2**12, 2**12, 1, 1), CreditOptions())
