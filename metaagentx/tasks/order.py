"""The endless order of a split: a permutation per pass, computed index by index, so a cursor is one integer."""

from __future__ import annotations

import hashlib

ROUNDS = 6


def position(seed: int, index: int, size: int) -> int:
    """Where the `index`-th question (from 0, without end) of a split of `size` questions is stored.

    Pass p = index // size visits every position once, in an order of its own: a Feistel network over the smallest
    even number of bits that covers `size`, keyed by (seed, p), walked until it lands inside (Black and Rogaway,
    "Ciphers with Arbitrary Finite Domains", 2002). No state, and the same numbers on every machine.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    if index < 0:
        raise ValueError(f"index must be 0 or above, not {index}")
    turn, value = divmod(index, size)
    half = ((size - 1).bit_length() + 1) // 2
    while True:
        value = _feistel(seed, turn, value, half)
        if value < size:
            return value


def _feistel(seed: int, turn: int, value: int, half: int) -> int:
    """A permutation of range(4**half)."""
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for number in range(ROUNDS):
        digest = hashlib.blake2b(f"{seed}/{turn}/{half}/{number}/{right}".encode(), digest_size=8).digest()
        left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
    return left << half | right
