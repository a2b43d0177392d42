"""Compositional questions: several questions of reasoning-gym in one, to be answered in order.

A question's parts are of its own split, so a part that training has seen is in no test question.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaagentx.tasks.gym import SPLITS, TINY_FAMILIES, Family, GymOptions, Record, digest, generate, score

BETWEEN = "\n\n"  # between the parts of a question
COMMA = ", "  # between the parts of an answer
KINDS = ("one", "two", "three", "four")  # by the number of parts


@dataclass(frozen=True, slots=True)
class CompoundOptions:
    """What is composed. Sizes are distinct questions for each number of parts."""

    families: tuple[Family, ...] = tuple(family for family in TINY_FAMILIES if family.kind != "sum5")
    parts: tuple[int, ...] = (1, 2, 3)  # numbers of parts of a question, each as often
    pool: int = 1000  # train questions of each kind that parts are drawn from; an eighth for the other splits
    train: int = 2500
    validation: int = 100
    test: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.parts or list(self.parts) != sorted(set(self.parts)) or not 1 <= self.parts[-1] <= len(KINDS):
            raise ValueError(f"compound.parts must be increasing numbers from 1 to {len(KINDS)}, not {self.parts}")
        if min(self.parts) < 1:
            raise ValueError(f"compound.parts must be at least 1, not {min(self.parts)}")
        for name in ("pool", *SPLITS):
            if getattr(self, name) < 1:
                raise ValueError(f"compound.{name} must be at least 1, not {getattr(self, name)}")

    @property
    def pools(self) -> GymOptions:
        """What the parts are drawn from."""
        rest = max(1, self.pool // 8)
        return GymOptions(self.families, self.pool, rest, rest, self.seed)


def compose(options: CompoundOptions, pools: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """All questions of all splits, distinct, numbers of parts taking turns. `pools`: records of `options.pools`."""
    return {split: _split(options, split, pools[split]) for split in SPLITS}


def compounds(options: CompoundOptions) -> dict[str, list[Record]]:
    """`compose` from freshly made pools."""
    return compose(options, generate(options.pools))


def _split(options: CompoundOptions, split: str, pool: Sequence[Record]) -> list[Record]:
    draw = random.Random(hashlib.sha256(f"{options.seed}/{split}".encode()).digest())
    by_kind = [[record for record in pool if record.kind == kind] for kind in options.pools.kinds]
    wanted = getattr(options, split)
    rows = []
    for parts in options.parts:
        found: dict[bytes, Record] = {}
        for _ in range(20 * wanted):
            if len(found) == wanted:
                break
            record = join([draw.choice(draw.choice(by_kind)) for _ in range(parts)])
            found.setdefault(digest(record.question), record)
        if len(found) < wanted:
            raise ValueError(
                f"compound.{split}: only {len(found)} distinct questions of {parts} parts, wanted {wanted}: raise "
                "compound.pool or ask for fewer"
            )
        rows.append(list(found.values()))
    return list(itertools.chain(*zip(*rows, strict=True)))


def join(parts: Sequence[Record]) -> Record:
    """One question made of several."""
    question = BETWEEN.join(part.question for part in parts)
    entry = {
        "answer": COMMA.join(part.answer for part in parts),
        "metadata": {"source_dataset": "compound", "parts": [json.loads(part.entry) for part in parts]},
    }
    kind = KINDS[len(parts) - 1]
    return Record(f"{kind}-{digest(question).hex()[:12]}", kind, "text", question, json.dumps(entry, sort_keys=True))


def parts_of(record: Record) -> list[tuple[str, str, str]]:
    """(question, answer, reasoning-gym's data set) of each part."""
    entries = json.loads(record.entry)["metadata"]["parts"]
    texts = record.question.split(BETWEEN)
    return [
        (text, entry["answer"], entry["metadata"]["source_dataset"]) for text, entry in zip(texts, entries, strict=True)
    ]


def judge(record: Record, answer: str) -> float:
    """1.0 if every part of the answer satisfies its own verifier, else 0.0."""
    entries = json.loads(record.entry)["metadata"]["parts"]
    given = answer.split(COMMA.strip())
    if len(given) != len(entries):
        return 0.0
    return float(all(score(json.dumps(entry), part.strip()) == 1.0 for entry, part in zip(entries, given, strict=True)))
