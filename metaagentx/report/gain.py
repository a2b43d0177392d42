"""How much of what training gained is whose, from cross-play: designer and executor, or main agent and sub-agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAIRS = ("cold/cold", "trained/cold", "cold/trained", "trained/trained")  # first/second player


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy gained, in [-1, 1]: first + second = total."""

    total: float
    first: float
    second: float


def split(crossplay: Mapping[str, float]) -> Gain:
    """Each role's gain, averaged over both orders of exchanging the roles (the Shapley value of two players)."""
    missing = [pair for pair in PAIRS if pair not in crossplay]
    if missing:
        raise ValueError(f"crossplay lacks {', '.join(missing)}")
    cold, first, second, trained = (float(crossplay[pair]) for pair in PAIRS)
    total = trained - cold
    return Gain(total, (first - cold + trained - second) / 2, (second - cold + trained - first) / 2)
