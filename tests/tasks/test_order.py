import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.tasks.order import position


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 300))
def test_each_pass_visits_every_position_once(seed, turn, size):
    assert sorted(position(seed, turn * size + i, size) for i in range(size)) == list(range(size))


def test_passes_and_seeds_give_different_orders():
    orders = {tuple(position(seed, turn * 100 + i, 100) for i in range(100)) for seed in range(5) for turn in range(5)}
    assert len(orders) == 25


def test_every_position_comes_first_about_equally_often():
    size, draws = 10, 4000
    counts = [0] * size
    for seed in range(draws):
        counts[position(seed, 0, size)] += 1
    expected = draws / size
    assert sum((count - expected) ** 2 / expected for count in counts) < 27.9  # chi-square, 9 degrees, p = .001


def test_the_order_is_the_same_on_every_machine():
    assert [position(7, i, 10) for i in range(10)] == PINNED


def test_impossible_indices_and_sizes_are_refused():
    with pytest.raises(ValueError, match="size"):
        position(0, 0, 0)
    with pytest.raises(ValueError, match="index"):
        position(0, -1, 5)


PINNED = [8, 9, 2, 5, 7, 6, 4, 3, 0, 1]
