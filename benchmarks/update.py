"""The training update of SmolLM2-135M against torch and Tunix: equal lengths, a tree, ragged lengths.

    make peers && .venv/peers/bin/python -m benchmarks.update

Random tokens, real weights, one step of GRPO (`benchmarks.grpo`). Tokens are those of the samples, prompts included:
padding is no work done, and a prompt that samples share counts for each.
T1, T2: 4 prompts of 256 tokens with one completion of 256 each. T3: one prompt of 300 tokens with 4 completions of 250,
by our update with and without shared prompts. T4: 8 lengths, the quantiles of a lognormal of mean 146, packed by us
into rows whose length follows from them, and padded by torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks import timing
from benchmarks.grpo import CLIP, LEARNING_RATE, Sample, draw
from benchmarks.worker import Turn
from metaagentx.learn.options import PackOptions
from metaagentx.learn.pack import first_fit

CASES = ("equal", "tree", "ragged")
VOCABULARY = 49_152
EQUAL = draw([256] * 4, [[256]] * 4, VOCABULARY)
TREE = draw([300], [[250] * 4], VOCABULARY)
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}  # of gradients' norms
MEAN, SIGMA = 146, 0.8  # tokens; of the logarithm

FAST = PackOptions(
    row_length=512, row_buckets=(4,), micro_rows=1, chunk=256, remat="none", attention="strips", unroll=True
)  # a row at a time: gradients add up
SMALL = "metaagentx, lean"  # a contestant
LEAN = replace(FAST, remat="attention", unroll=False)  # unrolled, all layers' gradients exist twice


def ragged() -> list[Sample]:
    """One sample of each of eight lengths, two fifths of it the prompt's."""
    normal = statistics.NormalDist(np.log(MEAN) - SIGMA**2 / 2, SIGMA)
    lengths = [min(512, round(float(np.exp(normal.inv_cdf((i + 0.5) / 8))))) for i in range(8)]
    prompts = [2 * length // 5 for length in lengths]
    return draw(prompts, [[length - p] for length, p in zip(lengths, prompts, strict=True)], VOCABULARY)


def row_length(samples: Sequence[Sample], unit: int = 64) -> int:
    """The multiple of `unit`, up to twice the longest sample, whose rows hold the samples in the fewest tokens.

    Of equals, the one with the fewest rows: each adds its gradients.
    """
    lengths = np.array([sample.tokens for sample in samples])
    longest = -(-lengths.max() // unit) * unit

    def cost(length: int) -> tuple[int, int]:
        rows = first_fit(lengths, length).rows
        return rows * length, rows

    return min(range(longest, 2 * longest + 1, unit), key=cost)


def same_step(case: str, norms: Mapping[str, Sequence[float]], dtype: str) -> None:
    """Raise RuntimeError if gradients' norms say that contestants did not take the same step of the same model."""
    found = [norm for values in norms.values() for norm in values]
    if not all(abs(norm / found[0] - 1) <= TOLERANCE[dtype] for norm in found):
        raise RuntimeError(f"{case}: contestants' gradients differ, by their norms: {norms}")


def main() -> None:
    parser = timing.arguments(__doc__)
    parser.add_argument("--cases", nargs="*", default=[*CASES], choices=CASES)
    given = parser.parse_args()
    bench = timing.Bench("update", given)
    options = {"dtype": bench.device.dtype, "learning_rate": LEARNING_RATE, "clip": CLIP}
    ours = bench.start("metaagentx", "benchmarks.grpo_step:Ours", **options)
    assert ours is not None
    torch = bench.start("torch", "benchmarks.peers.torch_grpo:TorchGrpo", **options)

    def by_us(samples: list[Sample], packing: PackOptions) -> Callable[[], Turn]:
        return lambda: ours.turn("step", samples, packing)

    def by_torch(samples: list[Sample]) -> dict[str, Callable[[], Turn]]:
        return {} if torch is None else {"torch": lambda: torch.turn("step", samples)}

    def compare(case: str, samples: list[Sample], turns: dict[str, Callable[[], Turn]]) -> dict[str, list[float]]:
        tokens = sum(sample.tokens for sample in samples)
        found = bench.compare(case, turns, lambda turn: tokens / bench.seconds(turn), "tokens/s")
        norms = {name: [turn.value for turn in taken] for name, taken in found.items()}
        same_step(case, norms, bench.device.dtype)
        bench.facts[case] = {"tokens": tokens, "norms": norms}
        peaks[case] = {name: [float(turn.peak) for turn in ts] for name, ts in found.items()}
        return {name: [tokens / bench.seconds(turn) for turn in ts] for name, ts in found.items()}

    peaks: dict[str, dict[str, list[float]]] = {}
    if "ragged" in given.cases:
        samples = ragged()
        length = row_length(samples)
        packed = {"metaagentx": by_us(samples, replace(FAST, row_length=length, chunk=length // 3))}
        speed = compare("ragged lengths", samples, packed | by_torch(samples))
        if "torch" in speed:
            bench.ratio("T4", speed["metaagentx"], speed["torch"])
    if "tree" in given.cases:
        alone = replace(FAST, row_length=550)
        shared = replace(FAST, row_length=252, row_buckets=(1,), chunk=168, prompt_length=300, sample_rows=4)
        speed = compare("tree", TREE, {"shared": by_us(TREE, shared), "unshared": by_us(TREE, alone)})
        bench.ratio("T3", speed["shared"], speed["unshared"])
    if "equal" in given.cases:
        tunix = bench.start("tunix", "benchmarks.peers.tunix_grpo:TunixGrpo", **options, widths=(256, 256), size=4)
        # In a process of its own: a process' peak memory is that of all it has done.
        lean = bench.start(SMALL, "benchmarks.grpo_step:Ours", **options)
        turns = {"metaagentx": by_us(EQUAL, FAST)} | by_torch(EQUAL)
        if lean is not None:
            turns[SMALL] = lambda: lean.turn("step", EQUAL, LEAN)
        if tunix is not None:
            turns["tunix"] = lambda: tunix.turn("step", EQUAL)
        speed, peak = compare("equal lengths", EQUAL, turns), peaks["equal lengths"]
        for name in ("torch", "tunix"):
            if name in speed:
                bench.ratio(f"T1/{name}", speed["metaagentx"], speed[name])
        if {"torch", SMALL} <= speed.keys():
            bench.ratio("T2", peak[SMALL], peak["torch"])
            bench.ratio("T2/speed", speed[SMALL], speed["torch"])
    bench.finish()


if __name__ == "__main__":
    main()
