from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metaagentx.rollout.buckets import portions

BUCKETS = st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True).map(sorted)


@given(st.integers(0, 1000), BUCKETS)
def test_portions_cover_every_row_once_and_fit_their_buckets(count, buckets):
    end = 0
    for start, stop, bucket in portions(count, buckets):
        assert start == end
        assert start < stop
        assert stop - start <= bucket
        assert bucket in buckets
        end = stop
    assert end == count


@given(st.integers(1, 1000), BUCKETS)
def test_more_than_a_quarter_of_padding_only_where_every_bucket_is_too_large(count, buckets):
    for start, stop, bucket in portions(count, buckets):
        assert (stop - start) * 4 >= bucket * 3 or buckets[0] > stop - start
