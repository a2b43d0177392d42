from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaagentx.learn.align import AlignOptions, align, places

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def rollouts(sizes):
    """Trajectories of rollouts in an order that mixes them."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(SIZES, st.integers(1, 8), st.sampled_from(["duplicate", "reweight", "rollout"]), st.integers(0, 99))
def test_any_ragged_input_has_the_same_shape_and_stays_within_its_rollout(sizes, target, weighting, seed):
    owner = rollouts(sizes)
    aligned = align(owner, len(sizes), target, weighting, [seed])
    assert aligned.index.shape == aligned.weight.shape == (len(sizes), target)
    for k, size in enumerate(sizes):
        if not size:
            assert (aligned.index[k] == -1).all()
            assert (aligned.weight[k] == 0).all()
            continue
        assert (owner[aligned.index[k]] == k).all()
        kept = set(aligned.index[k].tolist())
        assert len(kept) == min(size, target), "every original, or as many as there are places, each once"


@given(SIZES, st.integers(1, 8), st.integers(0, 99))
def test_weights_are_what_their_names_say(sizes, target, seed):
    owner = rollouts(sizes)
    total = {
        name: align(owner, len(sizes), target, name, [seed]).totals(len(owner))
        for name in ("duplicate", "reweight", "rollout")
    }
    by_rollout = {name: np.bincount(owner, values, len(sizes)) for name, values in total.items()}
    full = np.array(sizes) > 0
    np.testing.assert_allclose(by_rollout["duplicate"], target * full)
    np.testing.assert_allclose(by_rollout["reweight"], sizes, rtol=1e-5)
    np.testing.assert_allclose(by_rollout["rollout"], full, rtol=1e-5)
    few = np.array(sizes)[owner] <= target
    np.testing.assert_allclose(total["reweight"][few], 1, rtol=1e-5)


@pytest.mark.parametrize("sizes", [[5, 0, 2], [7, 1, 4]])
def test_reweight_is_unbiased_and_duplicate_is_not(sizes):
    owner = rollouts(sizes)
    value = np.random.default_rng(1).normal(size=len(owner))
    draws = 4000

    def mean(weighting):
        return np.mean([align(owner, 3, 3, weighting, [s]).totals(len(owner)) @ value for s in range(draws)])

    spread = 3 * np.std([align(owner, 3, 3, "reweight", [s]).totals(len(owner)) @ value for s in range(200)])
    assert abs(mean("reweight") - value.sum()) < spread / np.sqrt(draws)
    assert abs(mean("duplicate") - value.sum()) > spread / np.sqrt(draws)


def test_a_rollouts_draw_depends_on_its_number_and_the_seed_alone():
    owner = rollouts([6, 6])
    alone = align(np.where(owner == 1, 1, -1), 2, 4, "duplicate", [3, 5])
    both = align(owner, 2, 4, "duplicate", [3, 5])
    np.testing.assert_array_equal(alone.index[1], both.index[1])
    assert any((align(owner, 2, 4, "duplicate", [3, s]).index != both.index).any() for s in range(6, 10))


def test_places_are_the_quantile_of_recent_rollouts():
    sizes = np.array([1] * 98 + [5, 9])
    assert places(sizes, AlignOptions()) == 5
    assert places(sizes, AlignOptions(quantile=1.0)) == 9
    assert places(sizes, AlignOptions(quantile=0.98)) == 1
    assert places(np.array([9, 9, 2, 3]), AlignOptions(window=2)) == 3
    assert places(sizes, AlignOptions(target=8)) == 8
    assert places(np.zeros(4, np.int64), AlignOptions()) == places(np.zeros(0, np.int64), AlignOptions()) == 1


@pytest.mark.parametrize(
    "bad", [{"target": -1}, {"quantile": 0.0}, {"window": 0}, {"weighting": "none"}, {"statistics": "no"}]
)
def test_bad_options_are_named(bad):
    with pytest.raises(ValueError, match=f"align.{next(iter(bad))}"):
        AlignOptions(**bad)
