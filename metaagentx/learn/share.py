"""Where the tokens of sequences lie in rows, so that what several samples of one prompt have in common is there once.

A row is a trunk, in which stems lie side by side, and then branches, in which samples do (`policy.attention.Stems`).
Samples that begin with the same prompt share a stem: the prompt but for its last token, which predicts each sample's
first one, and with which each sample begins. So all that is learned, and all logits, are in the branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Places:
    """Where each of n sequences lies; arrays are [n] int64. Those without a stem lie in one piece."""

    rows: int  # used
    row: NDArray[np.int64]
    offset: NDArray[np.int64]  # in the row, of what is not the stem
    segment: NDArray[np.int64]  # its number in the row, from 1
    length: NDArray[np.int64]  # of the stem; 0: none
    start: NDArray[np.int64]  # of the stem, in the row
    stem: NDArray[np.int64]  # the stem's number in the row; 0: none

    @classmethod
    def empty(cls, count: int) -> Places:
        return cls(0, *(np.zeros(count, np.int64) for _ in range(6)))


@dataclass(slots=True)
class _Row:
    trunk: int  # tokens still free
    branches: list[int]  # and in each branch
    members: int = 0
    stems: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # prompt -> number, start


def grow(
    tokens: Sequence[NDArray[np.int32]],
    loss_masks: Sequence[NDArray[np.bool_]],
    trunk: int,
    branches: int,
    branch: int,
) -> Places:
    """Rows of a trunk of `trunk` tokens and `branches` branches of `branch` tokens each.

    First fit: samples with the longest prompts first, and those of one prompt together; a prompt whose samples fill
    more than a row is there in each. One that finds no room in a trunk stays in front of its sample, in a branch.

    Raises:
      ValueError: a sequence is longer than a branch, also without a prompt that fits into a trunk.
    """
    places = Places.empty(len(tokens))
    lengths = np.array([len(ids) for ids in tokens], np.int64)
    # The prompt ends where the first token is predicted; a sequence without loss has none.
    cuts = [int(mask[1:].argmax()) if mask[1:].any() else 0 for mask in loss_masks]
    cuts = [cut if cut <= trunk else 0 for cut in cuts]
    if (lengths - np.array(cuts, np.int64)).max(initial=0) > branch:
        raise too_long(lengths, branch)
    prompts = [ids[: cut + 1].tobytes() if cut else b"" for ids, cut in zip(tokens, cuts, strict=True)]
    samples: dict[bytes, int] = {}
    for prompt in prompts:
        samples[prompt] = samples.get(prompt, 0) + 1
    # What nobody shares comes last: it fills what the others leave, with its prompt in the trunk or without.
    order = sorted(range(len(tokens)), key=lambda i: (samples[prompts[i]] == 1, -cuts[i], prompts[i], -lengths[i]))
    rows: list[_Row] = []
    for i in order:
        prompt, cut, length = prompts[i], cuts[i], int(lengths[i])
        r, kept = _find(rows, prompt, cut, length, lone=samples[prompt] == 1)
        if r == len(rows):
            rows.append(_Row(trunk, [branch] * branches))
        row = rows[r]
        if kept and prompt not in row.stems:
            row.members += 1
            row.stems[prompt] = row.members, trunk - row.trunk
            row.trunk -= kept
        row.members += 1
        places.row[i], places.segment[i], places.length[i] = r, row.members, kept
        if kept:
            places.stem[i], places.start[i] = row.stems[prompt]
        b = next(b for b, free in enumerate(row.branches) if free >= length - kept)
        places.offset[i] = trunk + (b + 1) * branch - row.branches[b]
        row.branches[b] -= length - kept
    places.rows = len(rows)
    return places


def _find(rows: Sequence[_Row], prompt: bytes, cut: int, length: int, lone: bool) -> tuple[int, int]:
    """The row for a sample, `len(rows)` for a new one, and the tokens of its stem there."""

    def room(row: _Row, kept: int) -> bool:
        return max(row.branches) >= length - kept

    for r, row in enumerate(rows):
        if cut and (prompt in row.stems or row.trunk >= cut) and room(row, cut):
            return r, cut
    for r, row in enumerate(rows):
        if (lone or not cut) and room(row, 0):
            return r, 0
    return len(rows), cut


def too_long(lengths: NDArray[np.int64], row_length: int) -> ValueError:
    longest = int(lengths.argmax())
    return ValueError(
        f"sequence {longest} has {lengths[longest]} tokens, more than pack.row_length ({row_length}): "
        "raise pack.row_length or bound prompts and replies"
    )
