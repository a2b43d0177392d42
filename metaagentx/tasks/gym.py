"""Questions from reasoning-gym (arXiv 2505.24760): its texts, its verifiers, our splits.

A question's split is a hash of its text alone, so no seed or size ever moves a question between splits.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from metaagentx.tasks.functions import FUNCTIONS, Functions

SPLITS = ("train", "validation", "test")
DOMAINS = ("mathematics", "code", "qa", "text")
DRAWS_PER_QUESTION = 100  # a family that needs more draws than this for a new question is exhausted
LONGEST_ANSWER = 1000  # characters; no answer here is longer

# Their verifiers run an answer as Python (`eval`, or sympy's `parse_expr`, which is one): nothing that a model wrote
# may get there.
EXECUTES_ANSWERS = frozenset({
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """One reasoning-gym data set with its difficulty. Families of one `kind` share that kind's questions equally."""

    kind: str  # what tables and reports group by
    dataset: str  # reasoning-gym's name ("chain_sum"), or "functions": our own small programs
    parameters: tuple[tuple[str, int], ...]  # keyword arguments of that data set: its difficulty
    domain: str  # "mathematics" | "code" | "qa" | "text"
    lowercase: bool = False  # only questions whose answer is in lower case

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS and self.dataset != FUNCTIONS:
            raise ValueError(f"family.dataset must be one of reasoning-gym's or {FUNCTIONS!r}, not {self.dataset!r}")
        if self.dataset in EXECUTES_ANSWERS:
            raise ValueError(f"family.dataset {self.dataset!r} is refused: its verifier runs answers as Python code")
        if self.domain not in DOMAINS:
            raise ValueError(f"family.domain must be one of {', '.join(DOMAINS)}, not {self.domain!r}")
        if not self.kind.isidentifier():
            raise ValueError(f"family.kind must be a name of letters, digits and '_', not {self.kind!r}")
        try:
            self.build(seed=0)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"family.parameters of {self.dataset!r}: {error}") from error

    def build(self, seed: int) -> Any:
        """The data set: item i is a function of (seed, i) and may be asked for any i."""
        if self.dataset == FUNCTIONS:
            return Functions(seed, **dict(self.parameters))
        return reasoning_gym.create_dataset(self.dataset, seed=seed, **dict(self.parameters))


def _sum(kind: str, terms: int) -> Family:
    sizes = (("min_terms", terms), ("max_terms", terms), ("min_digits", 1), ("max_digits", 1))
    return Family(kind, "chain_sum", sizes, "mathematics")


TINY_FAMILIES = (
    _sum("sum3", 3),
    _sum("sum5", 5),
    Family("tool", "gcd", (("min_value", 10), ("max_value", 99)), "mathematics"),
    Family("tool", "products", (("min_digits", 2), ("max_digits", 2)), "mathematics"),
    Family("spell", "spell_backward", (("min_word_len", 3), ("max_word_len", 5)), "text", lowercase=True),
)


@dataclass(frozen=True, slots=True)
class GymOptions:
    """What is prepared. Sizes are distinct questions per kind."""

    families: tuple[Family, ...] = TINY_FAMILIES
    train: int = 2500
    validation: int = 100
    test: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.families:
            raise ValueError("gym.families must name at least one family")
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(f"gym.{split} must be at least 1 question per kind, not {getattr(self, split)}")
        if self.seed < 0:
            raise ValueError(f"gym.seed must be 0 or above, not {self.seed}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind once, in order."""
        return tuple(dict.fromkeys(family.kind for family in self.families))


@dataclass(frozen=True, slots=True)
class Record:
    """One question as stored, with what its verifier needs. Never leaves the task."""

    id: str
    kind: str
    domain: str
    question: str
    entry: str  # JSON: reasoning-gym's answer and metadata

    @property
    def answer(self) -> str:
        """The true answer."""
        return json.loads(self.entry)["answer"]

    @property
    def dataset(self) -> str:
        """reasoning-gym's name of the data set that the question is from."""
        return json.loads(self.entry)["metadata"]["source_dataset"]


def digest(question: str) -> bytes:
    """The identity of a question, or of any text: case and white space do not make a new one."""
    # Half a surrogate pair, which JSON spells and a model may write, is no UTF-8.
    return hashlib.sha256(" ".join(question.split()).casefold().encode(errors="surrogatepass")).digest()


def split_of(question: str) -> str:
    """The split that a question belongs to, for ever: 80 % train, 10 % validation, 10 % test."""
    share = int.from_bytes(digest(question)[:8], "big") % 10
    return "validation" if share == 8 else "test" if share == 9 else "train"


def generate(options: GymOptions) -> dict[str, list[Record]]:
    """All questions of all splits, distinct, kinds taking turns, so that any prefix of a split is balanced."""
    seen: set[bytes] = set()
    by_kind = [_generate_kind(options, kind, seen) for kind in options.kinds]
    return {split: list(itertools.chain(*zip(*(k[split] for k in by_kind), strict=True))) for split in SPLITS}


def _generate_kind(options: GymOptions, kind: str, seen: set[bytes]) -> dict[str, list[Record]]:
    families = [family for family in options.families if family.kind == kind]
    count, shares = len(families), []
    for number, family in enumerate(families):
        sizes = {split: len(range(number, getattr(options, split), count)) for split in SPLITS}
        shares.append(_generate_family(family, options.seed, sizes, seen))
    return {split: [shares[i % count][split][i // count] for i in range(getattr(options, split))] for split in SPLITS}


def _generate_family(family: Family, seed: int, sizes: Mapping[str, int], seen: set[bytes]) -> dict[str, list[Record]]:
    """`sizes[split]` new questions per split; `seen` holds the questions so far and grows."""
    key = hashlib.sha256(f"{seed}/{family.dataset}/{family.parameters}".encode()).digest()
    items = family.build(seed=int.from_bytes(key[:6], "big"))  # far apart: item i of seed s is item i - 1 of s + 1
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for draw in range(DRAWS_PER_QUESTION * sum(sizes.values())):
        if all(len(records[split]) == sizes[split] for split in SPLITS):
            return records
        item = items[draw]
        question = item["question"].strip()
        identity = digest(question)
        split = split_of(question)
        if identity in seen or len(records[split]) == sizes[split]:
            continue
        if family.lowercase and not item["answer"].islower():
            continue
        seen.add(identity)
        name = f"{family.kind}-{identity.hex()[:12]}"
        entry = json.dumps({"answer": item["answer"], "metadata": item["metadata"]}, sort_keys=True)
        records[split].append(Record(name, family.kind, family.domain, question, entry))
    found = {split: len(records[split]) for split in SPLITS}
    raise ValueError(
        f"family {family.kind!r} ({family.dataset}) has too few distinct questions: "
        f"wanted {dict(sizes)}, found {found}; ask for fewer or widen family.parameters"
    )


@functools.cache
def _verifier(dataset: str) -> Callable[[str | None, Mapping[str, Any]], float]:
    return reasoning_gym.get_score_answer_fn(dataset)


def score(entry: str, answer: str) -> float:
    """reasoning-gym's own verdict on `answer`: 1.0 for full marks, else 0.0 (its partial credit is not used)."""
    if len(answer) > LONGEST_ANSWER:
        return 0.0
    item = json.loads(entry)
    try:
        return float(_verifier(item["metadata"]["source_dataset"])(answer, item) >= 1.0)
    except (ValueError, TypeError, ArithmeticError, LookupError):  # some verifiers stumble over malformed answers
        return 0.0
