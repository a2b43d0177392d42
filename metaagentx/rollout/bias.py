"""What is added to the logits of calls: one table for a run, a row for each kind of call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.options import SamplingOptions

Kind: TypeAlias = tuple[str, tuple[tuple[str, float], ...], tuple[str, ...], str]  # role, and its bias, only and valid


class Vocabulary(Protocol):
    """What a tokenizer of transformers knows of its tokens."""

    unk_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...

    def convert_ids_to_tokens(self, ids: list[int]) -> str | list[str]:
        """Their pieces."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Every piece with its id."""
        ...


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


def biases(
    sampling: Mapping[str, SamplingOptions],
    replies: Mapping[str, Iterable[str]],
    vocabulary: Vocabulary,
    size: int,
    end: int,
) -> Biases | None:
    """The biases of every role; None where no role has any.

    Args:
      sampling: by role.
      replies: by role the tokens that its replies can have in the task: what `valid` "language" leaves.
      vocabulary: what tokens are named in.
      size: V, of the model: it may have more rows than there are tokens. These are never drawn under a mask.
      end: the id that ends a reply, which no mask leaves out.

    Raises:
      ValueError: a name is no single token, or two names are the same one; the message has the key.
    """
    table, rows, pieces = [np.zeros(size, np.float32)], {}, vocabulary.get_vocab()
    for role, options in sampling.items():
        if not options.biased:
            continue
        row = np.zeros(size, np.float32)
        for key, names in (("only", options.only), ("valid", replies[role] if options.valid == "language" else ())):
            if names:
                left = [token(name, f"sampling.{role}.{key}", vocabulary, pieces) for name in names]
                row[~np.isin(np.arange(size), [*left, end])] = -np.inf
        seen: dict[int, str] = {}
        for name, value in options.bias:
            id = token(name, f"sampling.{role}.bias", vocabulary, pieces)
            if id in seen:
                raise ValueError(f"sampling.{role}.bias names one token twice: {seen[id]!r} and {name!r}")
            seen[id] = name
            row[id] += value
        rows[kind(role, options)] = len(table)
        table.append(row)
    return Biases(np.stack(table), rows) if rows else None


def token(name: str, key: str, vocabulary: Vocabulary, pieces: Mapping[str, int]) -> int:
    """The id of a token by its piece ("Ġthe", "<|end|>") or its text (" the"). A ValueError names `key`."""
    if name in pieces:
        return pieces[name]
    ids = vocabulary.encode(name, add_special_tokens=False)
    if len(ids) == 1 and ids[0] != vocabulary.unk_token_id:
        return ids[0]
    raise ValueError(
        f"{key}: {name!r} is no single token of this tokenizer, which reads {vocabulary.convert_ids_to_tokens(ids)}"
    )
