"""Claims about the credit of a team's roles, against an oracle in NumPy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.learn.advantage import advantages
from metaagentx.learn.align import AlignOptions
from metaagentx.learn.credit import assign_role
from metaagentx.learn.options import CreditOptions, LossOptions
from metaagentx.learn.pack import pack
from metaagentx.learn.update import policy_loss
from metaagentx.policy import params
from tests.learn.examples import CONFIG, PACK, RECIPE, ROLE, trajectory

QUESTIONS, ROLLOUTS = 3, 4
ALL = AlignOptions(target=3, weighting="reweight", statistics="all")
AS_PUBLISHED = AlignOptions(target=3)
property_test = settings(max_examples=30, deadline=None, derandomize=True)


def ragged(sizes, seed=0, dtype=np.float32):
    """`sizes` [questions x rollouts] trajectories of a sub-agent, in an order that mixes them, and their rewards."""
    owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = [trajectory([1, 2, 3], 1, "sub", (o // ROLLOUTS, o % ROLLOUTS, i)) for i, o in enumerate(owners.tolist())]
    return rows, np.random.default_rng(seed + 1).choice([0.0, 0.1, 0.5, 1.0], len(rows)).astype(dtype)


def role(rows, rewards, lost=None, **options):
    lost = np.zeros((QUESTIONS, ROLLOUTS), bool) if lost is None else lost
    return assign_role(rows, rewards, lost, **{"options": CreditOptions(), **options})


def normalised(values):
    """The definition: exactly 0 where a group settles nothing."""
    if len(values) < 2 or np.ptp(values) <= 1e-6:
        return np.zeros(len(values))
    return (values - values.mean()) / (values.std(ddof=1) + 1e-6)


def by_number(found):
    return {t.execution: a for t, a in zip(found.trajectories, found.advantages.tolist(), strict=True)}


SIZES = st.lists(st.integers(0, 7), min_size=QUESTIONS * ROLLOUTS, max_size=QUESTIONS * ROLLOUTS)


@property_test
@given(SIZES, st.integers(0, 9))
def test_over_all_trajectories_advantages_are_those_of_each_question(sizes, seed):
    rows, rewards = ragged(sizes, seed)
    found = by_number(role(rows, rewards, alignment=ALL, seed=(seed,)))
    for q in range(QUESTIONS):
        members = [i for i, row in enumerate(rows) if row.question == q]
        expected = normalised(rewards[members])
        for i, value in zip(members, expected, strict=True):
            assert i not in found or found[i] == pytest.approx(value, abs=2e-4)


@property_test
@given(SIZES, st.integers(0, 9))
def test_over_the_aligned_set_copies_are_members_and_what_was_dropped_is_none(sizes, seed):
    rows, rewards = ragged(sizes, seed)
    found = role(rows, rewards, alignment=AS_PUBLISHED, seed=(seed,))
    copies = dict(zip((t.execution for t in found.trajectories), found.counts.astype(int), strict=True))
    for q in range(QUESTIONS):
        members = [i for i, row in enumerate(rows) if row.question == q for _ in range(copies.get(i, 0))]
        expected = dict(zip(members, normalised(rewards[members]), strict=True))
        assert {i: a for i, a in by_number(found).items() if rows[i].question == q} == pytest.approx(expected, abs=2e-4)


@property_test
@given(SIZES, st.integers(0, 9))
def test_every_rollout_with_a_sub_task_fills_its_places_and_one_without_counts_nowhere(sizes, seed):
    rows, rewards = ragged(sizes, seed)
    found = role(rows, rewards, alignment=AS_PUBLISHED, seed=(seed,))
    counts = np.zeros((QUESTIONS, ROLLOUTS))
    for row, count in zip(found.trajectories, found.counts, strict=True):
        counts[row.question, row.design] += count
    np.testing.assert_array_equal(counts.reshape(-1), [3 * (size > 0) for size in sizes])
    kept = {t.execution for t in found.trajectories}
    originals = {i for i, row in enumerate(rows) if sizes[row.question * ROLLOUTS + row.design] <= 3}
    assert originals <= kept
    assert found.metrics["empty"] == pytest.approx(np.mean(np.array(sizes) == 0))
    assert found.metrics["dropped"] == pytest.approx(1 - len(kept) / max(len(rows), 1) if rows else 0.0)


def test_any_ragged_input_runs_the_same_program():
    for statistics in ("aligned", "all"):
        advantages.clear_cache()
        for seed, sizes in enumerate([[0] * 12, [1] * 12, [7] * 12, [0, 5, 2] * 4]):
            rows, rewards = ragged(sizes, seed)
            role(rows, rewards, alignment=replace(AS_PUBLISHED, statistics=statistics))
        assert advantages._cache_size() == 1


@jax.jit
def gradient_of(batch):
    def objective(weights):
        return policy_loss(weights, batch, base=None, reference=None, role=ROLE, recipe=RECIPE)[0]

    leaves = jax.tree.leaves(jax.grad(objective)(params.initialise(CONFIG, jax.random.key(0), None)))
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])


def gradient(rows, advantage, times, aggregation):
    loss = LossOptions(aggregation=aggregation, constant_length=5)
    return gradient_of(pack(rows, advantage, PACK, loss, False, times))


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "execution_mean", "constant"])
def test_a_trajectory_that_counts_twice_has_the_gradient_of_one_that_is_there_twice(aggregation):
    rows = [trajectory([1, 2, 3, 4, 5][: 3 + i], 1, ids=(0, 0, i)) for i in range(3)]
    advantage = np.array([1.0, -2.0, 0.5], np.float32)
    once = gradient(rows, advantage, None, aggregation)
    counted = gradient(rows, advantage, np.array([1, 2, 3], np.float32), aggregation)
    copied = gradient([rows[i] for i in (0, 1, 1, 2, 2, 2)], advantage[[0, 1, 1, 2, 2, 2]], None, aggregation)
    np.testing.assert_allclose(counted, copied, atol=1e-6)
    same = aggregation == "execution_mean"  # an execution counts once, however often its only trajectory is there
    assert np.allclose(counted, once, atol=1e-6) == same
    np.testing.assert_allclose(gradient(rows, advantage, np.ones(3, np.float32), aggregation), once, atol=1e-7)


def test_reweighted_alignment_is_unbiased_and_published_alignment_is_not():
    rows, rewards = ragged([5, 0, 1, 3] * 3, seed=4)
    value = np.random.default_rng(2).normal(size=len(rows))

    def total(alignment, seed):
        """A stand-in for the sum of gradients: each trajectory has a number of its own."""
        found = role(rows, rewards, alignment=alignment, seed=(seed,))
        terms = zip(found.trajectories, found.advantages, found.counts, strict=True)
        return sum(c * a * value[t.execution] for t, a, c in terms)

    everything = role(rows, rewards)
    truth = sum(a * value[t.execution] for t, a in zip(everything.trajectories, everything.advantages, strict=True))
    draws = np.array([total(replace(ALL, target=2), seed) for seed in range(1500)])
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - truth) < 4 * error
    published = np.array([total(replace(ALL, target=2, weighting="duplicate"), seed) for seed in range(1500)])
    assert abs(published.mean() - truth) > 10 * error


def test_a_main_agents_trajectories_count_once_and_within_their_question():
    rows = [trajectory([1, 2], 1, "main", (q, k, -1)) for q, k in itertools.product(range(3), range(4))]
    rewards = np.array([0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1], np.float32)
    found = role(rows, rewards)
    expected = np.concatenate([normalised(rewards[i : i + 4]) for i in (0, 4, 8)])
    np.testing.assert_allclose(found.advantages, expected, atol=2e-4)
    assert found.counts.tolist() == [1.0] * 12
    assert found.sizes == ()


def test_what_was_lost_to_our_own_faults_takes_no_place():
    rows, rewards = ragged([2] * 12)
    masked = np.array([row.design == 1 for row in rows])
    lost = np.broadcast_to(np.arange(ROLLOUTS) == 1, (QUESTIONS, ROLLOUTS))
    found = role(rows, np.where(masked, 99, rewards), lost, alignment=AS_PUBLISHED)
    kept = [i for i, row in enumerate(rows) if row.design != 1]
    clean = role([rows[i] for i in kept], rewards[kept], alignment=AS_PUBLISHED)
    assert by_number(found) == by_number(clean)
    assert found.metrics["masked"] == pytest.approx(1 / 4)


def test_places_come_from_earlier_rollouts_too_and_the_window_goes_on():
    rows, rewards = ragged([1] * 12)
    quantile = AlignOptions(quantile=1.0, window=14)
    first = role(rows, rewards, alignment=quantile, sizes=(9, 5, 2))
    assert first.metrics["places"] == 5, "the 9 has left the window"
    assert first.sizes == (5, 2, *[1] * 12)
    assert role(rows, rewards, alignment=quantile, sizes=first.sizes).metrics["places"] == 1


def test_a_rollout_that_was_lost_is_no_number_of_trajectories_and_one_that_asked_nobody_is_none():
    """Whether its sub-tasks left trajectories or not."""
    low = AlignOptions(quantile=0.3)
    for sub_tasks in (0, 9):
        rows, rewards = ragged([0, 3, sub_tasks, 4] * 3)
        lost = np.broadcast_to(np.arange(ROLLOUTS) == 2, (QUESTIONS, ROLLOUTS))
        found = role(rows, rewards, lost, alignment=low, sizes=(5, 5))
        assert found.sizes == (5, 5, *[0, 3, 4] * 3)
        assert found.metrics["places"] == 3, "with zeros it would be 1"
        assert found.metrics["empty"] == pytest.approx(1 / 3)
    everything = role(rows, rewards, np.ones((QUESTIONS, ROLLOUTS), bool), alignment=low, sizes=(5, 5))
    assert (everything.trajectories, everything.sizes, everything.metrics["masked"]) == ([], (5, 5), 1.0)


def test_no_trajectories_give_no_advantages():
    found = role([], np.zeros(0, np.float32), alignment=AS_PUBLISHED)
    assert (found.trajectories, found.advantages.shape, found.counts.shape) == ([], (0,), (0,))
    assert found.metrics["empty"] == 1.0
