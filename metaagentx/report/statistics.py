"""How sure a number is: intervals over questions and seeds, and paired differences between arms.

Arms are compared on the same questions. Correctness is an array [S, Q]: S training seeds, Q held-out questions, in the
same order in every row and every arm, values in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval. `note` says what the interval leaves out; empty if nothing."""

    value: float
    low: float
    high: float
    note: str = ""

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside. False where there is no interval."""
        return self.low > 0 or self.high < 0


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values [n], such as one accuracy a seed."""
    x = _numbers("values", values, 1)
    n, mean = x.size, float(x.mean())
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), "one value: no interval")
    half = float(stdtrit(n - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def wilson(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion: honest near 0 and 1, and for few questions."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n with n at least 1, not {successes} of {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, min(p, max(0.0, float(centre - half))), max(p, min(1.0, float(centre + half))))


def over_questions(correct: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval of the accuracy of one system on questions like these [Q]: Wilson's, within [0, 1].

    A grade between 0 and 1, such as the mean of a few samples, varies less than a coin of the same mean. It counts as
    the number of coins whose mean would vary as much; where nothing varies, as one coin.
    """
    x = _numbers("correct", correct, 1)
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"correct must lie in [0, 1], not in [{x.min()}, {x.max()}]")
    mean, variance = float(x.mean()), float(x.var())
    coins = max(1.0, mean * (1 - mean) / variance) if variance > 0 else 1.0  # a question
    return wilson(mean * x.size * coins, x.size * coins, level=level)


def paired_difference(
    arm: ArrayLike, other: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of mean(arm) - mean(other), both [S, Q] on the same questions: seeds, then questions.

    Each resample draws seeds with replacement, and questions once for all seeds: every seed answered the same test
    set, so its luck is shared, and drawing it anew for each seed would average it away.
    """
    a, b = _numbers("arm", arm, 2), _numbers("other", other, 2)
    if a.shape != b.shape:
        raise ValueError(f"both arms need the same seeds and questions: {a.shape} against {b.shape}")
    return _bootstrap(a - b, resamples, seed, level)


def _bootstrap(x: Array, resamples: int, seed: int, level: float) -> Interval:
    """Percentile bootstrap of the mean of x: [S, Q] over rows and, drawn once for all rows, columns.

    How often each row and column is drawn is multinomial, so a resampled mean is one bilinear form. Few rows
    show too little spread (a factor (S - 1) / S of the variance), hence their counts are stretched about 1. In
    simulation with five rows a 95 % interval covered 87 % where nothing but rows varies (there Student's t of the row
    means is exact), 95 % where rows vary twice as much as noise leaves in their means, 98 to 99 % where they vary less.
    """
    rows, columns = x.shape
    if resamples < 100:
        raise ValueError(f"resamples must be at least 100, not {resamples}")
    random = np.random.default_rng(seed)
    row_weights = random.multinomial(rows, np.full(rows, 1 / rows), size=resamples) / rows
    if rows > 1:
        row_weights = 1 / rows + (row_weights - 1 / rows) * np.sqrt(rows / (rows - 1))
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):  # bounds memory at 1000 x Q
        part = slice(start, min(start + 1000, resamples))
        counts = random.multinomial(columns, np.full(columns, 1 / columns), size=part.stop - start)
        means[part] = np.einsum("br,bc,rc->b", row_weights[part], counts / columns, x, optimize=True)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    notes = [
        f"one {name}: its variation is not covered" for n, name in ((rows, "seed"), (columns, "question")) if n == 1
    ]
    return Interval(float(x.mean()), float(low), float(high), "; ".join(notes))


def _numbers(name: str, values: ArrayLike, rank: int) -> Array:
    x = np.asarray(values, np.float64)
    if x.ndim != rank or x.size == 0:
        raise ValueError(f"{name} must be a non-empty array of rank {rank}, not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return x
