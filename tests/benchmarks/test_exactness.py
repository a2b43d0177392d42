from __future__ import annotations

import pytest

from benchmarks.exactness import difference


def test_a_call_counts_once_and_log_probabilities_are_compared_up_to_where_the_tokens_differ():
    plain = [([1, 2, 3], [-1.0, -2.0, -3.0]), ([4, 5], [-1.0, -1.0]), ([6], [-2.0])]
    found = [([1, 2, 3], [-1.0, -2.5, -3.0]), ([4, 7], [-1.25, -9.0]), ([6], [-2.0])]
    share, largest = difference(plain, found)
    assert share == pytest.approx(1 / 3)
    assert largest == 0.5
    assert difference(plain, plain) == (0.0, 0.0)
