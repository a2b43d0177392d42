"""What the benchmark of the update takes for the same step."""

from __future__ import annotations

import pytest

from benchmarks.update import same_step


def test_contestants_whose_gradients_differ_are_not_compared():
    same_step("tree", {"ours": [5.6001, 5.6002], "theirs": [5.6003]}, "float32")
    for norms in ([5.75], [float("nan")]):
        with pytest.raises(RuntimeError, match="gradients differ"):
            same_step("tree", {"ours": [5.6], "theirs": norms}, "float32")
