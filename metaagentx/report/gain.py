"""How much of what training gained is the designer's and how much the executor's, from cross-play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAIRS = ("cold/cold", "trained/cold", "cold/trained", "trained/trained")  # designer/executor


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy gained, in [-1, 1]: designer + executor = total."""

    total: float
    designer: float
    executor: float


def split(crossplay: Mapping[str, float]) -> Gain:
    """Each role's gain, averaged over both orders of exchanging the roles (the Shapley value of two players)."""
    missing = [pair for pair in PAIRS if pair not in crossplay]
    if missing:
        raise ValueError(f"crossplay (designer/executor) lacks {', '.join(missing)}")
    cold, designer, executor, trained = (float(crossplay[pair]) for pair in PAIRS)
    total = trained - cold
    return Gain(total, (designer - cold + trained - executor) / 2, (executor - cold + trained - designer) / 2)
