"""Role-grouped advantages as one pure function over flat arrays (MetaAgent-X, arXiv 2605.14212).

Every row is a trajectory. Rows are grouped, and statistics are taken over *units*: an executor's unit is its execution
(however many calls that made, it counts once), a designer's its design, and under `m_grpo` the trajectory itself.

| grouping    | group of a designer's row | group of an executor's row    | source                       |
| ----------- | ------------------------- | ----------------------------- | ---------------------------- |
| metaagent_x | question                  | question                      | arXiv 2605.14212             |
| per_design  | question                  | question, design              | GRPO within each design      |
| at_grpo     | question                  | question, agent, turn         | AT-GRPO, arXiv 2510.11062    |
| per_agent   | question                  | question, agent               | Dr. MAS, arXiv 2602.08847    |
| m_grpo      | question (main agent)     | question (all sub-agents)     | M-GRPO, arXiv 2511.13288     |
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

from metaagentx.learn.options import CreditOptions
from metaagentx.mesh import place

LEAD, FOLLOW = 0, 1  # `Samples.role`: designer or main agent; executor or sub-agent

Array: TypeAlias = Any  # of NumPy outside of jit

_EPS = 1e-6


@flax.struct.dataclass
class Samples:
    """One row a trajectory; every array is [n]. A row whose ids lie outside `Counts` or with mask False is padding."""

    reward: Array  # float32; all rows of one unit carry the same
    question: Array  # int32
    design: Array  # int32
    execution: Array  # int32, -1 for a designer
    role: Array  # int32, LEAD or FOLLOW
    agent: Array  # int32, number of the agent's name
    turn: Array  # int32, the agent's n-th conversation in its execution
    mask: Array  # bool, False: no member of any group


class Counts(NamedTuple):
    """Upper bounds of the ids, static. Those that a grouping does not read may be 1."""

    questions: int
    designs: int
    executions: int
    agents: int
    turns: int


@flax.struct.dataclass
class Credit:
    """Advantages and what became of the groups."""

    advantage: jax.Array  # [n] float32, 0 for padding
    groups: jax.Array  # int32, groups with a member
    singletons: jax.Array  # int32, groups with one unit
    equal: jax.Array  # int32, groups of several units that all got the same reward


def _flat(*axes: tuple[jax.Array, int]) -> tuple[jax.Array, int]:
    """Row-major index of several (ids, size) axes, and its size; any id out of range makes the index that size."""
    total, index, inside = 1, jnp.int32(0), jnp.bool_(True)
    for ids, size in axes:
        index, inside, total = index * size + ids, inside & (ids >= 0) & (ids < size), total * size
    if total >= 2**30:
        raise ValueError(f"sizes {[size for _, size in axes]} make {total} segments, too many for 32-bit ids")
    return jnp.where(inside, index, total), total


def _unit_and_group(s: Samples, c: Counts, grouping: str) -> tuple[jax.Array, int, jax.Array, int]:
    """Per row its unit and its group, each with the static number of segments (which is also the id of padding)."""
    question, design = (s.question, c.questions), (s.design, c.designs)
    execution, agent, turn = (s.execution, c.executions), (s.agent, c.agents), (s.turn, c.turns)
    # What splits a question's executor rows into groups, and an execution's rows into units.
    split = {"per_design": (design,), "at_grpo": (agent, turn), "per_agent": (agent,)}.get(grouping, ())
    inner = split if grouping in ("at_grpo", "per_agent") else ()

    lead_group, lead_groups = _flat(question)
    follow_group, follow_groups = _flat(question, *split)
    lead_unit, lead_units = _flat(question, design)
    follow_unit, follow_units = _flat(question, design, execution, *inner)
    if grouping == "m_grpo":
        rows = s.reward.shape[0]
        lead_unit = follow_unit = jnp.arange(rows)
        lead_units = follow_units = rows

    def join(lead: jax.Array, leads: int, follow: jax.Array, follows: int) -> tuple[jax.Array, int]:
        total = leads + follows
        lead, follow = jnp.where(lead < leads, lead, total), follow + leads
        index = jnp.where(s.role == LEAD, lead, jnp.where(s.role == FOLLOW, follow, total))
        return jnp.where(s.mask, index, total), total

    unit, units = join(lead_unit, lead_units, follow_unit, follow_units)
    group, groups = join(lead_group, lead_groups, follow_group, follow_groups)
    padding = (unit == units) | (group == groups)  # padding in one is padding in both
    return jnp.where(padding, units, unit), units, jnp.where(padding, groups, group), groups


@partial(jax.jit, static_argnames=("counts", "options"))
def advantages(samples: Samples, counts: Counts, options: CreditOptions) -> Credit:
    """`A = (R - mean) / (max(std, floor) + 1e-6)` within each group, exactly 0 where a group settles nothing.

    A group settles nothing if it has one unit or if its rewards differ by at most 1e-6 * max(1, |R|). `mean` leaves
    out the division (Dr. GRPO, arXiv 2503.20783); `loo` subtracts the mean of the *other* units (RLOO).
    """
    samples = jax.tree.map(lambda x: place(x, None), samples)  # small: whole on every device of a mesh
    reward = samples.reward.astype(jnp.float32)
    unit, units, group, groups = _unit_and_group(samples, counts, options.grouping)

    def total(values: jax.Array, ids: jax.Array, size: int) -> jax.Array:
        return jax.ops.segment_sum(values, ids, size)  # ids out of range are dropped, never clamped

    def spread(values: jax.Array, ids: jax.Array) -> jax.Array:
        return values.at[ids].get(mode="fill", fill_value=0)

    # A row weighs one over the rows of its unit, so that a unit weighs 1.
    rows = total(jnp.ones_like(reward), unit, units)
    weight = jnp.where(unit < units, 1 / jnp.maximum(spread(rows, unit), 1), 0.0)
    size = jnp.round(total(weight, group, groups))  # [groups] units

    mean = total(weight * reward, group, groups) / jnp.maximum(size, 1)
    centred = reward - spread(mean, group)
    low = jax.ops.segment_min(reward, group, groups)
    high = jax.ops.segment_max(reward, group, groups)
    equal = high - low <= 1e-6 * jnp.maximum(1, jnp.maximum(jnp.abs(low), jnp.abs(high)))

    if options.normaliser == "mean_std":
        variance = total(weight * centred**2, group, groups) / jnp.maximum(size - options.ddof, 1)
        scale = 1 / (jnp.maximum(jnp.sqrt(variance), options.std_floor) + _EPS)
    elif options.normaliser == "loo":
        scale = size / jnp.maximum(size - 1, 1)
    else:
        scale = jnp.ones_like(size)
    scale = jnp.where(equal | (size <= 1), 0.0, scale)

    advantage = jnp.where(spread(scale, group) > 0, centred * spread(scale, group), 0.0)
    return Credit(
        advantage=advantage,
        groups=jnp.sum(size > 0, dtype=jnp.int32),
        singletons=jnp.sum(size == 1, dtype=jnp.int32),
        equal=jnp.sum((size > 1) & equal, dtype=jnp.int32),
    )
