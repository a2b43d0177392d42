"""Decode and prefill of SmolLM2-135M-Instruct: metaagentx against transformers, Tunix and llama.cpp.

    make peers                              # an environment with the peers
    npm install --prefix benchmarks/peers   # llama.cpp
    python -m benchmarks.decode             # ten minutes; --batches 1 --repetitions 1 for one

Batches of equal prompts and replies: nobody waits for anybody. A prefill turn samples one token after each prompt, a
decode turn so many more; the median prefill is taken off its seconds. Caches: ours and Tunix's have room for prompt and
reply, transformers' grows. Weights are float32 on a CPU, but for llama.cpp's, which are the Q4_1 that all others have
been made from; "metaagentx, int8" is held against it. Limits are those of `Limits` in the same run: all weights are
read once a step, at the bandwidth of a long dot product, and every weight is multiplied and added once a token, at the
speed of a large matrix product.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from benchmarks.timing import Bench, arguments
from benchmarks.worker import Turn, Worker

WEIGHTS = 134_515_008  # of SmolLM2-135M
HEAD = 49_152 * 576  # of these, multiplied with once for a prompt and once for each new token
PROMPT, REPLY = 32, 32  # tokens
INT8 = "metaagentx, int8"  # a contestant: the same engine with a copy of the weights in 8 bits
FIRST_ID, LAST_ID = 100, 40_000  # of prompts: no special tokens


class Ours:
    """Batches of replies of a given length by metaagentx' engine."""

    def __init__(self, dtype: str, capacity: int, weights: Literal["float", "int8"]) -> None:
        from metaagentx.policy.hub import find_smollm2
        from metaagentx.policy.load import load
        from metaagentx.policy.pretrained_config import read_config

        path = find_smollm2()
        self.config = read_config(path, dtype)
        self.params = load(path, self.config)
        self.weights, self.capacity, self.slots, self.calls = weights, capacity, 0, 0

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """`tokens` new tokens for each prompt; another number of prompts than before makes another engine."""
        from metaagentx.rollout.options import SamplingOptions
        from metaagentx.rollout.sampled import Ask

        if len(prompts) != self.slots:
            self._start(len(prompts), len(prompts[0]))
        engine, self.calls = self.engine, self.calls + 1
        for number, prompt in enumerate(prompts):
            ids = (0, self.calls, 0, 0, 0, number)
            sampling = SamplingOptions(temperature=1.0, max_tokens=tokens)
            engine.submit(Ask(number, np.array(prompt, np.int32), ids, sampling, "executor"))
        replies: dict[int, list[int]] = {}
        while len(replies) < len(prompts):
            replies |= {ticket: sampled.tokens.tolist() for ticket, sampled in engine.step()}
        assert {len(reply) for reply in replies.values()} == {tokens}
        return [replies[number] for number in range(len(prompts))]

    def _start(self, slots: int, width: int) -> None:
        from metaagentx.rollout.engine import Engine
        from metaagentx.rollout.options import EngineOptions

        options = EngineOptions(
            slots=slots,
            capacity=self.capacity,
            prompt_buckets=(width,),
            admit_buckets=(slots,),
            chunk=REPLY,
            share="none",
            weights=self.weights,
            attention="auto",
            decode_attention="auto",
        )
        self.engine, self.slots = Engine(self.config, options, ()), slots
        self.engine.load(self.params, 0)
        self.engine.warmup()


class Limits:
    """What the cores can do at most, as NumPy's BLAS finds it."""

    def __init__(self) -> None:
        self.long = np.ones(1 << 26, np.float32)  # 256 MiB, larger than caches but those of servers
        self.matrix = np.ones((1536, 1536), np.float32)

    def read(self) -> int:
        """Read so many bytes."""
        for _ in range(4):
            np.dot(self.long, self.long)
        return 4 * self.long.nbytes

    def multiply(self) -> int:
        """Do so many floating-point operations."""
        for _ in range(10):
            self.matrix @ self.matrix
        return 20 * len(self.matrix) ** 3


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 32, 64], help="numbers of prompts")
    given = parser.parse_args()
    bench = Bench("decode", given)
    room = {"dtype": bench.device.dtype, "capacity": PROMPT + REPLY + 1}
    threads = max(1, len(bench.cores))
    workers = {
        "metaagentx": bench.start("metaagentx", "benchmarks.decode:Ours", **room, weights="float"),
        INT8: bench.start(INT8, "benchmarks.decode:Ours", **room, weights="int8"),
        "transformers": bench.start("transformers", "benchmarks.peers.hf:Transformers", dtype=bench.device.dtype),
        "tunix": bench.start("tunix", "benchmarks.peers.tunix:Tunix", **room, widths=[PROMPT]),
        "llama.cpp": bench.start(
            "llama.cpp", "benchmarks.peers.llama_cpp:LlamaCpp", capacity=PROMPT + REPLY + 1, threads=threads
        ),
    }
    started = {name: worker for name, worker in workers.items() if worker is not None}
    roof = measure_limits(bench)
    for batch in given.batches:
        measure(bench, batch, started, roof)
    bench.finish()


def measure(bench: Bench, batch: int, workers: dict[str, Worker], roof: dict[str, float]) -> None:
    """Prefill and decode of `batch` prompts by everyone, the ratios, and the shares of the limits."""
    rng = np.random.default_rng(batch)
    prompts = rng.integers(FIRST_ID, LAST_ID, (batch, PROMPT)).tolist()
    for worker in workers.values():
        worker.turn("generate", prompts, 2)  # compiles

    def turns(tokens: int) -> dict[str, Callable[[], Turn]]:
        return {name: partial(worker.turn, "generate", prompts, tokens) for name, worker in workers.items()}

    def prefilled(turn: Turn) -> float:
        return batch * PROMPT / bench.seconds(turn)

    before = bench.compare(f"prefill, batch {batch}", turns(1), prefilled, "tokens/s", warmups=0)
    first = {name: statistics.median(map(bench.seconds, found)) for name, found in before.items()}
    cases = {name: partial(_timed, turn, first[name]) for name, turn in turns(REPLY).items()}

    def decoded(turn: Turn) -> float:
        return batch * (REPLY - 1) / (bench.seconds(turn) - turn.value)

    after = bench.compare(f"decode, batch {batch}", cases, decoded, "tokens/s", warmups=0)
    speed = {name: [decoded(turn) for turn in found] for name, found in after.items()}
    against(bench, batch, speed)
    facts(bench, batch, roof, speed, {name: [prefilled(turn) for turn in found] for name, found in before.items()})


def _timed(turn: Callable[[], Turn], first: float) -> Turn:
    """A turn whose value is the seconds that its prompts took."""
    found = turn()
    return Turn(found.wall, found.cpu, found.peak, first)


def against(bench: Bench, batch: int, speed: dict[str, list[float]]) -> None:
    """The ratios that `targets` names."""
    pairs = {
        1: {"D1": "transformers", "D5/1": "llama.cpp"},
        8: {"D2": "transformers", "D5/8": "llama.cpp"},
        32: {"D3/32": "transformers", "D3/tunix": "tunix", "D5/32": "llama.cpp"},
        64: {"D3/64": "transformers"},
    }
    for key, peer in pairs.get(batch, {}).items():
        own = INT8 if peer == "llama.cpp" else "metaagentx"
        if own in speed and peer in speed:
            bench.ratio(key, speed[own], speed[peer])


def measure_limits(bench: Bench) -> dict[str, float]:
    """Bytes read and floating-point operations in a second; the best turn's. Empty but on a CPU, or when left out."""
    if bench.device.platform != "cpu":
        return {}
    worker = bench.start("limits", "benchmarks.decode:Limits")
    if worker is None:
        return {}

    def rate(turn: Turn) -> float:
        return float(turn.value) / bench.seconds(turn) / 1e9

    roof = {}
    for method, unit in (("read", "GB/s"), ("multiply", "GFLOP/s")):
        found = bench.compare(method, {"limits": partial(worker.turn, method)}, rate, unit)
        roof[method] = 1e9 * max(map(rate, found["limits"]))
    worker.close()
    bench.workers.remove(worker)
    return roof


def facts(
    bench: Bench, batch: int, roof: dict[str, float], decode: dict[str, list[float]], prefill: dict[str, list[float]]
) -> None:
    """Tokens/s that the limits allow, and everyone's share but of those whose weights are fewer bytes."""
    if not roof:
        return
    compute = roof["multiply"] / (2 * WEIGHTS)
    limit = min(batch * roof["read"] / (4 * WEIGHTS), compute)

    def shares(limit: float, found: dict[str, list[float]]) -> dict[str, Any]:
        wide = {name: values for name, values in found.items() if name not in (INT8, "llama.cpp")}
        each = {name: round(statistics.median(values) / limit, 3) for name, values in wide.items()}
        return {"tokens/s": round(limit, 1), "share": each}

    bound = "bandwidth" if limit < compute else "FLOP/s"
    bench.facts[f"limit, decode, batch {batch}"] = {"bound": bound} | shares(limit, decode)
    ahead = roof["multiply"] / (2 * (WEIGHTS - HEAD + HEAD / PROMPT))
    bench.facts[f"limit, prefill, batch {batch}"] = {"bound": "FLOP/s"} | shares(ahead, prefill)


if __name__ == "__main__":
    main()
