"""How good is a run? Held-out questions, every arm on the same ones, tokens counted.

    python -m metaagentx.evaluate --workdir=runs/tiny

Reads the settings and the newest checkpoint of a work directory and prints the final table again. With `--save` it is
kept as the end of training keeps it: in `results.json`, `scores.npz` and the report.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from metaagentx import atomic, command_line, design_table, policies, report, sft, team_table
from metaagentx.checkpoint import Checkpoints, claimed
from metaagentx.hosts import anywhere
from metaagentx.mesh import is_primary
from metaagentx.metrics import Progress
from metaagentx.policies import Weights
from metaagentx.score import Score
from metaagentx.settings import read
from metaagentx.system import Engines, System
from metaagentx.workbench import Workbench, open_workbench

SAVE = flags.DEFINE_bool("save", False, "Keep the table: in results.json, scores.npz and report.html.")
VALIDATION_STEP, TEST_STEP = 1 << 30, 1 << 31  # far from any training step, so no random key is shared with one


def play(
    bench: Workbench, engines: Engines, split: str, count: int, *, step: int, system: System[Any] | None = None
) -> Score:
    """Score the loaded engines on the first `count` questions of `split` (0: all), in stored order.

    `system`: what answers, instead of the run's own.
    """
    size = bench.task.size(split)
    questions = [bench.task.question(split, index, seed=-1) for index in range(min(count, size) if count else size)]
    held_out = (system or bench.system).held_out(bench.settings.evaluate)
    return held_out.score(bench.sample(questions, engines, step=step, system=held_out))


def validate(bench: Workbench, engines: Engines, step: int) -> Score:
    """The point of the learning curve after `step` training steps."""
    count = bench.settings.evaluate.validation_questions
    return play(bench, engines, "validation", count, step=VALIDATION_STEP + step)


def compare(
    bench: Workbench, workdir: Path, trained: Weights, stop: threading.Event | None = None
) -> tuple[dict[str, Any], dict[str, Score]]:
    """The final table: `trained` weights and those of the run's cold start, together and crossed, and single agents.

    Returns what `results.json` holds, and the scores behind it by arm. Raises Preempted between two arms, once `stop`
    is set.
    """
    settings = bench.settings
    logging.info("%s", bench.table_memory())
    weights = {"trained": bench.way.bring(trained)}
    if settings.evaluate.compares:
        weights["cold"] = bench.way.bring(sft.finished(bench, workdir, trained.base))
    engines: Engines = {}
    lead, team, played = settings.role_names[0], settings.team is not None, itertools.count(1)
    arms, fill = (team_table.arms, team_table.fill) if team else (design_table.arms, design_table.fill)

    def players(first: str, rest: str) -> Engines:
        """The engines with these weights of the first role and of the others."""
        nonlocal engines
        acting = policies.crossed(weights[first], weights[rest], lead)
        if engines:
            bench.load(engines, acting, version=0)
        else:
            engines = bench.engines(acting, version=0)
        if first == rest or settings.policies.layout != "shared":
            return engines
        return {**engines, lead: bench.engines(weights[first], version=0)[lead]}  # one more, for this arm alone

    def arm(number: int, first: str, rest: str, system: System[Any]) -> Score:
        roles, count = players(first, rest), settings.evaluate.questions
        score = play(bench, roles, "test", count, step=TEST_STEP + number, system=system)
        progress.update(next(played), phase="final_table")
        if stop is not None and anywhere(stop.is_set()):
            raise command_line.Preempted("preempted in the final table; run the same command again")
        return score

    with Progress(arms(settings) + settings.evaluate.reference_designs, active=is_primary()) as progress:
        results, scores = fill(bench, arm)
    if settings.evaluate.reference_designs:
        results["reference_designs"] = _reference(bench, players("cold", "cold"))
    return results, scores


def _reference(bench: Workbench, engines: Engines) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy of the task's hand-written designs by split, design and kind, with these engines' weights."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in ("validation", "test"):
        for number, (name, system) in enumerate(design_table.references(bench, split).items()):
            score = play(bench, engines, split, 0, step=TEST_STEP + 100 + number, system=system)
            found.setdefault(split, {})[name] = score.row(name)["by_kind"]
    return found


def save(workdir: Path, results: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
    """Write `results.json`, keeping what it holds of other things, `scores.npz` and the report.

    `scores.npz` has every arm's grades and tokens, [Q, S], for paired comparisons between runs. Without any it stays.
    """
    if scores:
        arrays = {f"{arm}:correct": score.correct for arm, score in scores.items()}
        arrays |= {f"{arm}:tokens": score.tokens for arm, score in scores.items()}
        np.savez_compressed(workdir / "scores.npz", **arrays)  # type: ignore[arg-type]
    path = workdir / "results.json"
    try:
        kept = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:  # what was measured now must not be lost for it
        logging.warning("%s was damaged (%s), and is written anew", path, error)
        kept = {}
    atomic.write(path, json.dumps({**kept, **results}, indent=1) + "\n")
    report.write(workdir)


def newest(bench: Workbench, workdir: Path) -> Weights:
    """The newest weights of a work directory: trained, else those of the cold start. Raises CheckpointError."""
    checkpoints = Checkpoints(workdir / "checkpoints", keep=bench.settings.train.keep)
    if checkpoints.latest() is None:
        return sft.finished(bench, workdir)
    shapes = bench.shapes
    trained = checkpoints.restore_params(shapes.adapters or shapes.full)
    if not shapes.adapters:
        return Weights(trained, {})
    return Weights(sft.finished(bench, workdir).full, trained)  # over the base of the cold start


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"unknown argument {arguments[1]!r}")
    workdir = command_line.workdir()
    with command_line.errors_in_words():
        command_line.join()
        with open_workbench(read(claimed(workdir))) as bench:
            bench.expect("test")
            results, scores = compare(bench, workdir, newest(bench, workdir))
        if is_primary():
            if SAVE.value:
                save(workdir, results, scores)
            report.show(results)


if __name__ == "__main__":
    app.run(main)
