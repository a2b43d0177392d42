"""Sequences become rows of a fixed length, with every normaliser already folded into per-token weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import flax.struct
import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx.learn.options import LossOptions, PackOptions
from metaagentx.learn.share import Places, grow, too_long
from metaagentx.policy.attention import Stems
from metaagentx.rollout.trajectory import Trajectory

Array: TypeAlias = Any  # of NumPy as packed, of JAX under jit


@flax.struct.dataclass
class Batch:
    """R rows of L tokens; several sequences share a row, told apart by `segments` and by nothing else.

    With `stems` (see `learn.share`) a sequence is a segment of its row's trunk, continued by one of a branch.

    `targets` and all that follows speak at position i about predicting token i + 1 of the same segment.
    """

    tokens: Array  # [R, L] int32
    positions: Array  # [R, L] int32, from 0 in each segment
    segments: Array  # [R, L] int32, from 1 in each row; 0 is padding
    targets: Array  # [R, L] int32, the segment's next token
    mask: Array  # [R, L] bool, True where that token was sampled: where there is loss
    advantages: Array  # [R, L] float32
    weights: Array  # [R, L] float32, the normaliser: the loss is the plain sum of weights * token loss
    sampler: Array  # [R, L] float32, the sampler's log-probability of the target
    kept: Array | None = None  # [R, L] float32, `sampler` minus the log-probability it was drawn with; None: 0
    old: Array | None = None  # [M, R / M, L] float32, cut as by `update.split`: the trainer's at first; None: it is new
    stems: Stems | None = None  # which segment continues which; None: none does


def pack(
    trajectories: Sequence[Trajectory],
    advantages: NDArray[np.float32],
    options: PackOptions,
    loss: LossOptions,
    keep_zero: bool,
    times: NDArray[np.float32] | None = None,
) -> Batch:
    """One role's trajectories as one batch, as if each were there so many `times` [n] (None: once).

    Denominators are those of all `trajectories`. Unless `keep_zero`, those with advantage 0 are then left out of the
    rows: without entropy and KL terms their gradient is exactly 0.

    Raises:
      ValueError: a trajectory is longer than a row.
    """
    if len(advantages) != len(trajectories):
        raise ValueError(f"{len(trajectories)} trajectories came with {len(advantages)} advantages")
    counts = np.array([t.loss_mask[1:].sum() for t in trajectories], np.int64)
    runs = [(t.question, t.design, t.execution) for t in trajectories]
    weights = token_weights(counts, runs, loss, times)
    keep = [i for i in range(len(trajectories)) if counts[i] and (keep_zero or advantages[i] != 0)]
    kept = [trajectories[i] for i in keep]
    return pack_rows(
        [t.tokens for t in kept],
        [t.loss_mask for t in kept],
        [t.logprobs for t in kept],
        np.asarray(advantages, np.float32)[keep],
        weights[keep],
        options,
        shared=options.prompt_length > 0,
        # Of all trajectories: whether there is this array does not depend on what was left out.
        kept=None if all(t.kept is None for t in trajectories) else [_kept(t) for t in kept],
    )


def _kept(trajectory: Trajectory) -> NDArray[np.float32]:
    return np.zeros_like(trajectory.logprobs) if trajectory.kept is None else trajectory.kept


def blank(options: PackOptions, loss: LossOptions, reshaped: bool, rows: int) -> Batch:
    """A batch of a bucket without any sequence; `reshaped`: whether its trajectories would have `kept`."""
    batch = pack((), np.zeros(0, np.float32), replace(options, row_buckets=(rows,)), loss, keep_zero=False)
    return replace(batch, kept=np.zeros_like(batch.sampler)) if reshaped else batch


def of_one_bucket(batches: Mapping[str, Batch]) -> dict[str, Batch]:
    """The batches, the smaller ones with empty rows below: as many as the largest has."""
    most = max((len(batch.tokens) for batch in batches.values()), default=0)

    def fill(x: NDArray) -> NDArray:
        return np.pad(x, ((0, most - len(x)), (0, 0)))

    return {role: jax.tree.map(fill, batch) for role, batch in batches.items()}


def token_weights(
    counts: NDArray[np.int64],
    runs: Sequence[tuple[int, ...]],
    loss: LossOptions,
    times: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The weight of each loss token of each sequence, [n]: all of them add up to 1, except for `constant`.

    Args:
      counts: [n] loss tokens of each sequence; one without any counts nowhere.
      runs: which execution each belongs to; `execution_mean` averages the tokens of one, then the executions.
      times: [n] how often each sequence counts, in denominators too; None: once.
    """
    each = np.ones(len(counts)) if times is None else times.astype(np.float64)
    live = (counts > 0) & (each > 0)
    sequences = float(np.sum(each * live)) or 1.0
    if loss.aggregation == "token_mean":
        weights = each / (float(np.sum(each * counts)) or 1.0)
    elif loss.aggregation == "sequence_mean":
        weights = each / (sequences * np.maximum(counts, 1))
    elif loss.aggregation == "constant":
        weights = each / (sequences * loss.constant_length)
    else:
        tokens: dict[tuple[int, ...], float] = {}
        for run, count in zip(runs, each * counts, strict=True):
            tokens[run] = tokens.get(run, 0.0) + float(count)
        executions = max(sum(count > 0 for count in tokens.values()), 1)
        weights = each / np.array([executions * (tokens[run] or 1.0) for run in runs])
    return np.where(live, weights, 0).astype(np.float32)


def pack_rows(
    tokens: Sequence[NDArray[np.int32]],
    loss_masks: Sequence[NDArray[np.bool_]],
    logprobs: Sequence[NDArray[np.float32]],
    advantages: NDArray[np.float32],
    weights: NDArray[np.float32],
    options: PackOptions,
    shared: bool = False,
    kept: Sequence[NDArray[np.float32]] | None = None,
) -> Batch:
    """n sequences, each with per-token [L_i] arrays and one advantage and token weight, laid into rows.

    With `shared`, rows are trees, as `options` describes them.

    Raises:
      ValueError: a sequence is longer than a row.
    """
    lengths = np.array([len(ids) for ids in tokens], np.int64)
    if shared:
        places = grow(tokens, loss_masks, options.prompt_length, options.sample_rows, options.row_length)
    else:
        places = first_fit(lengths, options.row_length)
    width = options.width if shared else options.row_length
    shape = (bucket(places.rows, options), width)

    def each(values: NDArray) -> NDArray:
        """One value a sequence as one a token."""
        return np.repeat(values, lengths)

    within = np.arange(lengths.sum()) - each(np.cumsum(lengths) - lengths)
    own = within >= each(places.length)  # not of a stem
    at = each(places.row * width) + within
    at += np.where(own, each(places.offset - places.length), each(places.start))
    follows = within > each(places.length)  # has the token that predicts it before it; no other is predicted
    where = at[follows] - 1

    def lay(values: NDArray, where: NDArray, dtype: type) -> NDArray:
        out: NDArray = np.zeros(shape, dtype)
        out.reshape(-1)[where] = values
        return out

    def join(parts: Sequence[NDArray], dtype: type) -> NDArray:
        return np.concatenate(parts).astype(dtype, copy=False) if len(parts) else np.zeros(0, dtype)

    ids, sampled = join(tokens, np.int32), join(loss_masks, np.bool_)[follows]

    def spread(values: NDArray) -> NDArray:
        return lay(each(values)[follows] * sampled, where, np.float32)

    stems = None
    if shared:
        of: Array = lay(each(places.stem)[own], at[own], np.int32)
        stems = Stems(of, trunk=options.prompt_length, branch=options.row_length)
    return Batch(
        tokens=lay(ids, at, np.int32),
        positions=lay(within, at, np.int32),
        segments=lay(np.where(own, each(places.segment), each(places.stem)), at, np.int32),
        targets=lay(ids[follows], where, np.int32),
        mask=lay(sampled, where, np.bool_),
        advantages=spread(advantages),
        weights=spread(weights),
        sampler=lay(join(logprobs, np.float32)[follows] * sampled, where, np.float32),
        stems=stems,
        kept=None if kept is None else lay(join(kept, np.float32)[follows] * sampled, where, np.float32),
    )


def first_fit(lengths: NDArray[np.int64], row_length: int) -> Places:
    """First-fit decreasing: where sequences of these lengths lie in rows of `row_length`."""
    if lengths.max(initial=0) > row_length:
        raise too_long(lengths, row_length)
    free, members = np.full(len(lengths), row_length), np.zeros(len(lengths), np.int64)
    places = Places.empty(len(lengths))
    for i in np.argsort(-lengths, kind="stable"):
        r = int(np.argmax(free >= lengths[i]))
        members[r] += 1
        places.row[i], places.offset[i], places.segment[i] = r, row_length - free[r], members[r]
        free[r] -= lengths[i]
    places.rows = int((members > 0).sum())
    return places


def buckets(rows: int, options: PackOptions) -> tuple[int, ...]:
    """The buckets that a batch of up to `rows` rows may take, largest first.

    Beyond the last of `options` they are that doubled, and doubled again, rounded up to whole micro-batches.
    """
    sizes, double = [*options.row_buckets], options.row_buckets[-1]
    while sizes[-1] < rows:
        double *= 2
        micro = min(double, options.micro_rows)
        sizes.append(-(-double // micro) * micro)
    return tuple(size for size, smaller in zip(sizes, (0, *sizes), strict=False) if smaller < rows)[::-1]


def bucket(rows: int, options: PackOptions) -> int:
    """The smallest bucket that holds `rows` rows. The log says if it is none of `options`."""
    size, last = buckets(max(rows, 1), options)[0], options.row_buckets[-1]
    if size > last:
        logging.warning(
            "%d rows of a batch are more than pack.row_buckets ends with (%d): a program for %d that is not there yet "
            "is compiled in the middle of the run; give a larger last bucket, passes over empty rows are skipped",
            rows, last, size,
        )  # fmt: skip
    return size
