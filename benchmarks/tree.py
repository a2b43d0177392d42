"""Rollouts: recorded trees with ragged replies and tools, replayed (targets D4, P1, C1).

    make peers && .venv/peers/bin/python -m benchmarks.tree          # two of the eight questions
    .venv/peers/bin/python -m benchmarks.tree --questions 8          # all of it

Everybody generates exactly as many tokens for exactly the same calls of SmolLM2-135M-Instruct: lengths are recorded,
and nothing else ends a reply. Contestants: `metaagentx` (continuous batching, shared prefixes), `waves` (the same
engine in batch-synchronous mode that shares nothing), `transformers` (`generate` in waves) and `tunix` (its sampler in
waves). Useful tokens are those of replies; a wave also computes what it throws away.

Prefill is timed on all eight questions, of whose replies one token is sampled and the others made up. Occupancy and
shared tokens are counted on all of them at full length in 16 slots, with a stand-in of one narrow layer: they depend on
lengths alone.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks import timing
from benchmarks.peaks import PEAKS
from benchmarks.worker import Turn
from benchmarks.workload import read_workload, totals

PEERS = {"transformers": "benchmarks.waves:TransformersWaves", "tunix": "benchmarks.waves:TunixWaves"}
WAVES = {"share": "none", "waves": True}


def arguments() -> argparse.Namespace:
    parser = timing.arguments(__doc__)
    parser.add_argument("--questions", type=int, default=2, help="trees, of 8")
    parser.add_argument("--shrink", type=float, default=1.0, help="replies are so many times as short as recorded")
    parser.add_argument("--slots", type=int, default=16, help="calls side by side")
    parser.set_defaults(repetitions=1)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    bench = timing.Bench("tree", given)
    workload: dict[str, Any] = {"questions": given.questions, "shrink": given.shrink, "slots": given.slots}
    bench.facts["workload"] = workload | totals(read_workload(given.questions, given.shrink))
    workload["dtype"] = bench.device.dtype
    hidden = cadence(bench.device)

    stand_in(bench, hidden)
    prefill(bench, workload, hidden)
    contestants = {
        "metaagentx": bench.start("metaagentx", "benchmarks.ours:Ours", **workload, options=hidden),
        "waves": bench.start("waves", "benchmarks.ours:Ours", **workload, options=hidden | WAVES),
        **{name: bench.start(name, target, **workload) for name, target in PEERS.items()},
    }
    turns = bench.compare(
        "replay",
        {name: partial(worker.turn, "replay") for name, worker in contestants.items() if worker},
        lambda turn: turn.value["tokens"] / bench.seconds(turn),
        "useful tokens/s",
        warmups=0,  # all programs have been compiled and have run
    )
    bench.facts["replay"] = {name: [turn.value for turn in found] for name, found in turns.items()}
    judge(bench, turns)
    if bench.device.kind in PEAKS and "metaagentx" in turns:
        peak = PEAKS[bench.device.kind].bandwidth
        bench.ratio("G2/decode", [turn.value["decode_bandwidth"] / peak for turn in turns["metaagentx"]])
    warm_start(bench, workload, hidden)
    bench.finish()


def cadence(device: timing.Device) -> dict[str, Any]:
    """How often the host looks: a CPU gains nothing from work that is queued ahead, and slots wait for it.

    No row is kept for a later turn, which waits for the other calls of its round: recorded tools take no time.
    """
    pace = {"chunk": 4, "ahead": 0} if device.platform == "cpu" else {"chunk": 8, "ahead": 1}
    return pace | {"during_tools": "leave"}


def judge(bench: timing.Bench, turns: dict[str, list[Turn]]) -> None:
    """The ratios of the replays."""
    seconds = {name: [bench.seconds(turn) for turn in found] for name, found in turns.items()}
    for name, key in (("transformers", "D4/hf"), ("tunix", "D4/tunix"), ("waves", "D4/waves")):
        if name in turns and "metaagentx" in turns:
            bench.ratio(key, seconds[name], seconds["metaagentx"])
    if "metaagentx" in turns:
        bench.ratio("C1/compilations", [turn.value["compilations"] for turn in turns["metaagentx"]])


def prefill(bench: timing.Bench, workload: dict[str, Any], options: dict[str, Any]) -> None:
    """What sharing prefixes saves of all questions' prefill."""
    asked = workload | {"questions": 8, "shrink": 1.0, "prefill": True}
    ways = {"shared": options, "unshared": options | {"share": "none"}}
    workers = {
        name: bench.start(f"prefill, {name}", "benchmarks.ours:Ours", **asked, options=given)
        for name, given in ways.items()
    }
    turns = bench.compare(
        "prefill",
        {name: partial(worker.turn, "replay") for name, worker in workers.items() if worker},
        lambda turn: turn.value["prompt_tokens"] / bench.seconds(turn),
        "prompt tokens/s",
        warmups=0,
    )
    bench.ratio("P1", *([bench.seconds(turn) for turn in turns[name]] for name in ("unshared", "shared")))
    for worker in bench.workers:
        worker.close()
    bench.workers.clear()


def stand_in(bench: timing.Bench, options: dict[str, Any]) -> None:
    """Occupancy and shared tokens of the whole workload."""
    whole = {"questions": 8, "shrink": 1.0, "slots": 16, "dtype": "float32", "stand_in": True}
    worker = bench.start("stand-in", "benchmarks.ours:Ours", **whole, options=options)
    if worker is None:
        return
    found = worker.turn("replay").value
    worker.close()
    bench.facts["whole workload, stand-in"] = totals(read_workload(8, 1.0)) | found
    bench.ratio("C1/occupancy", [found["occupancy"]])
    bench.ratio("P1/tokens", [found["prompt_tokens"]], [found["prefilled_tokens"]])


def warm_start(bench: timing.Bench, workload: dict[str, Any], options: dict[str, Any]) -> None:
    """A second start of the engine, after everybody else has gone: its programs come from the disk."""
    for worker in bench.workers:
        worker.close()
    bench.workers.clear()
    again = bench.start("metaagentx", "benchmarks.ours:Ours", **workload, options=options)
    if again is not None:
        start: Turn = again.turn("started").value
        bench.facts["warm start"] = {"wall": start.wall, "cpu": start.cpu, "programs": start.value}
        bench.ratio("C1/warm_start", [bench.seconds(start)])


if __name__ == "__main__":
    main()
