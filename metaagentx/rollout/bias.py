"""What is added to the logits of calls: one table for a run, a row for each kind of call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.options import SamplingOptions

Kind: TypeAlias = tuple[str, tuple[tuple[str, float], ...], tuple[str, ...], str]  # role, and its bias, only and valid


@dataclass(frozen=True, slots=True, eq=False)
class Biases:
    """The biases of N - 1 kinds of calls over V tokens."""

    table: NDArray[np.float32]  # [N, V], -inf: never drawn; row 0 is zeros
    rows: Mapping[Kind, int]

    def row(self, role: str, sampling: SamplingOptions) -> int:
        """The row of a call; 0 where nothing is added. A KeyError where the table was made without this kind."""
        return self.rows[kind(role, sampling)] if sampling.biased else 0


def kind(role: str, sampling: SamplingOptions) -> Kind:
    """What a row depends on."""
    return role, sampling.bias, sampling.only, sampling.valid
