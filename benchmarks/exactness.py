"""What serving calls together changes in what they get: tokens that differ, and differences of log-probabilities.

    python -m benchmarks.exactness

SmolLM2-135M-Instruct continues recorded prompts one by one (one slot, one token at a dispatch, nothing shared), then in
engines with more slots, another chunk, another order of the calls, and shared beginnings. A call's draws are a function
of its ids, so nothing but rounding can tell the replies apart. A repetition draws with another seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.timing import Bench, arguments, summary
from benchmarks.workload import read_workload
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.load import load
from metaagentx.policy.pretrained_config import read_config
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.sampled import Ask

DTYPES = ("float32", "bfloat16")
LONGEST = 64  # tokens of a prompt
Replies: TypeAlias = list[tuple[list[int], list[float]]]
"""Tokens and log-probabilities of each call."""


@dataclass(frozen=True, slots=True)
class Way:
    """How calls are served."""

    slots: int = 8
    chunk: int = 4
    share: bool = False
    backwards: bool = False

    def options(self, tokens: int) -> EngineOptions:
        """Of an engine for replies of so many tokens."""
        return EngineOptions(
            slots=self.slots,
            capacity=LONGEST + tokens,
            prompt_buckets=(LONGEST,),
            admit_buckets=(1,) if self.slots == 1 else (4, 16),
            chunk=self.chunk,
            ahead=int(self.slots > 1),
            share="prefix" if self.share else "none",
        )


PLAIN = Way(slots=1, chunk=1)
WAYS = {
    "8 slots": Way(),
    "8 slots, backwards": Way(backwards=True),
    "8 slots, chunks of 5": Way(chunk=5),
    "8 slots, shared beginnings": Way(share=True),
}


class Served:
    """Serves the first `calls` recorded calls, cut to `LONGEST` tokens and less, with replies of `tokens` tokens."""

    def __init__(self, dtype: str, calls: int, tokens: int) -> None:
        path = find_smollm2()
        self.config, self.tokens = read_config(path, dtype), tokens
        self.params = load(path, self.config)
        texts = [np.array(call.text, np.int32) for call in read_workload(1, 1.0)[:calls]]
        self.prompts = [text[: LONGEST - 5 * (number % 7)] for number, text in enumerate(texts)]

    def replies(self, seed: int, **given: Any) -> Replies:
        """What each call gets in this `Way`."""
        way = Way(**given)
        engine = Engine(self.config, way.options(self.tokens), ())
        engine.load(self.params, 0)
        numbers, found = range(len(self.prompts)), dict[int, tuple[list[int], list[float]]]()
        sampling = SamplingOptions(max_tokens=self.tokens)
        for number in reversed(numbers) if way.backwards else numbers:
            ids = (seed, 0, 0, 0, 0, number)
            engine.submit(Ask(number, self.prompts[number], ids, sampling, "executor"))
        while len(found) < len(numbers):
            found |= {i: (each.tokens.tolist(), each.logprobs.tolist()) for i, each in engine.step()}
        return [found[number] for number in numbers]


def difference(expected: Replies, found: Replies) -> tuple[float, float]:
    """The share of calls with other tokens; the largest difference of log-probabilities up to where they differ.

    After that the calls are in other contexts, and are not compared.
    """
    other, largest = 0, 0.0
    for (tokens, logprobs), (others, those) in zip(expected, found, strict=True):
        other += tokens != others
        same = next((at for at, pair in enumerate(zip(tokens, others, strict=False)) if len({*pair}) > 1), len(tokens))
        gaps = np.abs(np.subtract(logprobs[:same], those[:same]))
        largest = max(largest, float(gaps.max(initial=0.0)))
    return other / len(expected), largest


def compare(bench: Bench, dtype: str, ways: Mapping[str, Way], calls: int, tokens: int) -> None:
    """Put what `dtype` shows into the record."""
    worker = bench.start(dtype, "benchmarks.exactness:Served", dtype=dtype, calls=calls, tokens=tokens)
    if worker is None:
        return
    differences: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for seed in range(bench.given.repetitions):
        plain = worker.turn("replies", seed, **dataclasses.asdict(PLAIN)).value
        for name, way in ways.items():
            found = worker.turn("replies", seed, **dataclasses.asdict(way)).value
            differences[name].append(difference(plain, found))
            bench.console.print(f"{dtype}, {name}: {differences[name][-1]}")
    worker.close()
    for case, unit, place in (("other tokens", "of the calls", 0), ("log-probabilities", "nats at most", 1)):
        bench.results[f"{case}, {dtype}"] = {
            name: {"unit": unit, **summary([pair[place] for pair in found])} for name, found in differences.items()
        }


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repetitions=1)
    parser.add_argument("--calls", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16, help="of a reply")
    bench = Bench("exactness", parser.parse_args(argv))
    bench.facts["workload"] = {"calls": bench.given.calls, "tokens": bench.given.tokens} | {
        "ways": {name: dataclasses.asdict(way) for name, way in {"one by one": PLAIN, **WAYS}.items()}
    }
    for dtype in DTYPES:
        compare(bench, dtype, WAYS, bench.given.calls, bench.given.tokens)
        bench.finish()


if __name__ == "__main__":
    main()
