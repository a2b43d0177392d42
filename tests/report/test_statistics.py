"""Intervals cover what they claim, pairing pays, and what cannot be known is said."""

from __future__ import annotations

import numpy as np
import pytest

from metaagentx.report import statistics


def _arms(random, *, seeds=5, questions=100, effect=0.0, spread=1.5):
    """Two arms' correctness [S, Q] on shared questions whose difficulty differs a lot."""
    easy = random.normal(size=(1, questions)) * spread
    skill = random.normal(size=(2, seeds, 1)) * 0.2 + np.array([effect, 0.0])[:, None, None]
    return (skill + easy + random.logistic(size=(2, seeds, questions)) > 0).astype(float)


def _over_seeds(x, **options):
    """The interval of one arm: of its difference from an arm that is never right."""
    return statistics.paired_difference(x, np.zeros_like(x), **options)


def test_paired_interval_covers_the_truth_about_as_often_as_claimed():
    random = np.random.default_rng(0)
    hits = 0
    for i in range(200):
        arm, other = _arms(random)
        interval = statistics.paired_difference(arm, other, resamples=300, seed=i)
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / 200 <= 1.0


def test_interval_over_seeds_falls_little_short_when_nothing_but_seeds_varies():
    random = np.random.default_rng(1)
    hits = 0
    for i in range(200):
        x = 0.5 + 0.05 * random.normal(size=(5, 1)) + 0.05 * random.normal(size=(5, 50))
        interval = _over_seeds(x, resamples=300, seed=i)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.82 <= hits / 200 <= 0.95  # five seeds hold too few values for a bootstrap to reach 95 %


def test_t_interval_covers_at_few_seeds():
    x = np.random.default_rng(2).normal(size=(2000, 4))
    intervals = [statistics.mean_interval(row) for row in x]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.015)


def test_wilson_covers_a_small_proportion():
    random = np.random.default_rng(3)
    intervals = [statistics.over_questions(random.random(100) < 0.04) for _ in range(1000)]
    assert np.mean([i.low <= 0.04 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.03)


def test_wilson_agrees_with_a_published_value():
    interval = statistics.wilson(15, 50)  # Newcombe 1998's formula by hand: 0.1910, 0.4375
    assert (interval.low, interval.high) == pytest.approx((0.1910, 0.4375), abs=1e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10)])
def test_wilson_stays_within_zero_and_one(k, n):
    interval = statistics.wilson(k, n)
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    assert interval.high - interval.low > 0.1


def test_grades_that_vary_less_than_coins_have_the_interval_of_their_mean():
    x = np.random.default_rng(8).binomial(4, 0.6, size=400) / 4  # four samples a question, questions equally hard
    graded, plain, coins = statistics.over_questions(x), statistics.mean_interval(x), statistics.wilson(x.sum(), 400)
    assert (graded.low, graded.high) == pytest.approx((plain.low, plain.high), abs=1e-3)
    assert graded.high - graded.low < 0.6 * (coins.high - coins.low)


def test_nobody_is_certain_to_be_always_right():
    interval = statistics.over_questions(np.ones(100))
    assert 0.95 < interval.low < 1 == interval.high


def test_pairing_on_the_same_questions_narrows_the_interval():
    arm, other = _arms(np.random.default_rng(4), effect=1.5, spread=6.0)
    paired = statistics.paired_difference(arm, other)
    apart = [_over_seeds(x) for x in (arm, other)]
    unpaired = np.hypot(*(i.high - i.low for i in apart))
    assert paired.high - paired.low < 0.8 * unpaired
    assert paired.value == pytest.approx(arm.mean() - other.mean())
    assert paired.excludes_zero


def test_shared_questions_are_drawn_once_for_all_seeds():
    x = np.tile(np.random.default_rng(5).random(40) < 0.5, (50, 1)).astype(float)  # fifty seeds that answer alike
    interval = _over_seeds(x)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_a_similar_one():
    arm, other = _arms(np.random.default_rng(6), effect=0.5)
    first, again, another = (statistics.paired_difference(arm, other, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.low == pytest.approx(another.low, abs=0.01)


def test_one_seed_or_one_question_says_what_is_missing():
    arm, other = _arms(np.random.default_rng(7), seeds=1)
    assert "one seed" in statistics.paired_difference(arm, other).note
    assert "one question" in _over_seeds(np.ones((3, 1))).note
    alone = statistics.mean_interval([0.5])
    assert alone.note
    assert np.isnan(alone.low)
    assert not alone.excludes_zero


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: statistics.paired_difference(np.ones((2, 3)), np.ones((2, 4))), "same seeds and questions"),
        (lambda: _over_seeds(np.ones(3)), "rank 2"),
        (lambda: _over_seeds(np.full((2, 2), np.nan)), "not finite"),
        (lambda: statistics.mean_interval([]), "non-empty"),
        (lambda: statistics.over_questions([2.0]), r"\[0, 1\]"),
        (lambda: statistics.wilson(3, 2), "between 0 and n"),
        (lambda: _over_seeds(np.ones((2, 2)), resamples=5), "resamples"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
