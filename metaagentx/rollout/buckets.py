"""Static shapes for ragged work: which buckets a number of rows is cut into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def fit(size: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket that holds `size`; None if none does. `buckets` increase."""
    return next((bucket for bucket in buckets if bucket >= size), None)


def portions(count: int, buckets: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut `count` rows into dispatches (start, stop, bucket), stop - start <= bucket.

    A bucket that would be more than a quarter padding gives way to smaller ones where there are any.
    """
    start = 0
    while start < count:
        left = count - start
        bucket = fit(left, buckets) or buckets[-1]
        smaller = [b for b in buckets if b <= left]
        if left * 4 < bucket * 3 and smaller:
            bucket = smaller[-1]
        stop = min(count, start + bucket)
        yield start, stop, bucket
        start = stop
