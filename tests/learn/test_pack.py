"""Claims about packing and the normalisers folded into it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.learn.options import LossOptions, PackOptions
from metaagentx.learn.pack import blank, bucket, buckets, first_fit, of_one_bucket, pack
from metaagentx.learn.update import split
from tests.learn.examples import PACK, random_trajectories, trajectory


def unpack(batch) -> list[tuple]:
    """Every segment as (tokens, (target, advantage, weight, sampler) of its loss positions)."""
    found = []
    for row in range(batch.tokens.shape[0]):
        for segment in range(1, batch.segments[row].max(initial=0) + 1):
            at = np.flatnonzero(batch.segments[row] == segment)
            assert np.array_equal(batch.positions[row][at], np.arange(len(at)))
            loss = at[batch.mask[row][at]]
            columns = (batch.targets, batch.advantages, batch.weights, batch.sampler)
            values = zip(*(c[row][loss].tolist() for c in columns), strict=True)
            assert np.array_equal(batch.targets[row][loss], batch.tokens[row][loss + 1])
            found.append((tuple(batch.tokens[row][at].tolist()), tuple(values)))
    return found


def test_every_trajectory_is_found_again_with_its_loss_tokens_predicted_from_one_before() -> None:
    trajectories = random_trajectories(20)
    advantages = np.linspace(-1, 1, 20).astype(np.float32)
    found = unpack(pack(trajectories, advantages, PACK, LossOptions(), False))
    weight = np.float32(1 / sum(t.generated for t in trajectories))
    expected = [
        (tuple(t.tokens.tolist()), tuple((int(x), float(a), float(weight), -2.0) for x in t.tokens[t.loss_mask]))
        for t, a in zip(trajectories, advantages, strict=True)
    ]
    assert sorted(found) == sorted(expected)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 16), max_size=40))
def test_first_fit_never_overlaps_and_leaves_no_two_rows_half_empty(lengths: list[int]) -> None:
    places = first_fit(np.array(lengths, np.int64), 16)
    taken = np.zeros((places.rows, 16), int)
    for r, o, n in zip(places.row, places.offset, lengths, strict=True):
        taken[r, o : o + n] += 1
    assert taken.max(initial=0) <= 1
    assert np.sum(taken.sum(1) * 2 <= 16) <= 1


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "execution_mean", "constant"])
def test_weights_are_those_of_the_definition(aggregation: str) -> None:
    ids = [(0, 0, 0), (0, 1, 0), (0, 1, 0), (1, 0, 0)]
    trajectories = [trajectory([1, 2, 3, 4, 5][: 2 + i], 1 + (i == 3) * 4, ids=ids[i]) for i in range(4)]
    # Loss tokens 1, 2, 3, 0: the last trajectory has none and counts nowhere.
    batch = pack(
        trajectories, np.ones(4, np.float32), PACK, LossOptions(aggregation=aggregation, constant_length=10), True
    )
    found = {len(values): values[0][2] for _, values in unpack(batch)}
    expected = {
        "token_mean": {1: 1 / 6, 2: 1 / 6, 3: 1 / 6},
        "sequence_mean": {1: 1 / 3, 2: 1 / 6, 3: 1 / 9},
        "execution_mean": {1: 1 / 2, 2: 1 / 10, 3: 1 / 10},
        "constant": {1: 1 / 30, 2: 1 / 30, 3: 1 / 30},
    }[aggregation]
    assert found == pytest.approx(expected)


def test_zero_advantages_leave_the_rows_but_not_the_denominators() -> None:
    trajectories, advantages = random_trajectories(12), np.array([0, 1, 2] * 4, np.float32)
    whole, thin = (pack(trajectories, advantages, PACK, LossOptions(), keep) for keep in (True, False))
    assert sorted(s for s in unpack(whole) if s[1][0][1] != 0) == sorted(unpack(thin))


def test_no_trajectories_make_one_empty_bucket() -> None:
    batch = pack([], np.zeros(0, np.float32), PACK, LossOptions(), False)
    assert batch.tokens.shape == (8, 16)
    assert not batch.segments.any()


@pytest.mark.parametrize(("rows", "taken"), [(16, 16), (17, 32), (33, 64), (64, 64)])
def test_more_rows_than_the_last_bucket_take_it_doubled_and_that_is_said(rows: int, taken: int, caplog) -> None:
    """So however many there are, few programs are compiled in mid-run."""
    batch = pack([trajectory([1] * 16, 1)] * rows, np.ones(rows, np.float32), PACK, LossOptions(), False)
    assert batch.tokens.shape == (taken, 16)
    assert int(batch.segments.any(axis=1).sum()) == rows
    assert (f"{rows} rows of a batch are more than pack.row_buckets ends with (16)" in caplog.text) == (rows > 16)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(micro=st.integers(1, 40), sizes=st.sets(st.integers(1, 100), min_size=1, max_size=3), most=st.integers(1, 900))
def test_every_bucket_of_options_that_are_accepted_is_known_ahead_and_can_be_cut(micro, sizes, most) -> None:
    sizes = {size if size < micro else -(-size // micro) * micro for size in sizes}
    options = PackOptions(row_length=2, row_buckets=tuple(sorted(sizes)), micro_rows=micro)
    taken = {rows: bucket(rows, options) for rows in range(most + 1)}
    assert all(rows <= size for rows, size in taken.items())
    ahead = buckets(most, options)
    assert [*ahead] == sorted(set(list(taken.values())[1:]), reverse=True)
    assert ahead[0] <= max(2 * most + micro, *options.row_buckets)
    for size in ahead[:2]:
        cut = split(blank(options, LossOptions(), False, size), micro)
        assert cut.tokens.shape[0] * cut.tokens.shape[1] == size


def test_a_bucket_below_micro_rows_is_doubled_to_whole_micro_batches() -> None:
    options = PackOptions(row_length=16, row_buckets=(24,), micro_rows=32)
    batch = pack([trajectory([1] * 16, 1)] * 30, np.ones(30, np.float32), options, LossOptions(), False)
    assert split(batch, options.micro_rows).tokens.shape == (2, 32, 16)


def test_batches_of_one_bucket_differ_from_their_own_by_empty_rows_alone() -> None:
    small, large = (
        pack([trajectory([1] * 16, 1)] * rows, np.ones(rows, np.float32), PACK, LossOptions(), False) for rows in (3, 9)
    )
    found = of_one_bucket({"designer": small, "executor": large})
    assert {role: batch.tokens.shape for role, batch in found.items()} == {"designer": (16, 16), "executor": (16, 16)}
    assert unpack(found["designer"]) == unpack(small)
    assert unpack(found["executor"]) == unpack(large)


def test_what_does_not_fit_is_an_error_that_says_what_would() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"17 tokens, more than pack\.row_length \(16\)"):
        pack([trajectory([1] * 17, 1)], one, PACK, LossOptions(), False)
    with pytest.raises(ValueError, match="1 trajectories came with 2 advantages"):
        pack([trajectory([1, 2], 1)], np.ones(2, np.float32), PACK, LossOptions(), False)


def test_packing_a_step_of_the_tiny_study_takes_milliseconds() -> None:
    rng = np.random.default_rng(0)
    trajectories = [trajectory([1] * int(n), 20) for n in rng.integers(21, 50, 800)]
    options = PackOptions(row_length=256, row_buckets=(128,), micro_rows=32)
    taken = []
    for _ in range(5):
        start = time.process_time()
        pack(trajectories, np.ones(800, np.float32), options, LossOptions(), False)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1  # measured at 7 ms
