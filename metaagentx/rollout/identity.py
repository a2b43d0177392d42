"""Who asked: the path of forks that leads to a call names it, and seeds its randomness."""

from __future__ import annotations

import zlib

from metaagentx.rollout.sampled import CallIds

Path = tuple[tuple[str, int], ...]
AXES = ("question", "design", "execution")


def locate(path: Path) -> tuple[int, int, int]:
    """(question, design, execution): the indices of those axes on `path`, -1 where absent."""
    index = dict(path)
    question, design, execution = (index.get(axis, -1) for axis in AXES)
    return question, design, execution


def identify(path: Path, count: int, seed: int, step: int) -> CallIds:
    """The ids of a generator's `count`-th call: a function of where it stands, never of time or of the batch.

    Its last number is a 32-bit hash of `count` and of what else the path holds (a workflow's own forks).
    """
    rest = [part for part in path if part[0] not in AXES]
    return (seed, step, *locate(path), zlib.crc32(repr((rest, count)).encode()))
