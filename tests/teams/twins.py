"""Trains a very small team in one process, and again with a server for each policy, of which one is stopped on its way.

    python -m tests.teams.twins FOLDER STORE [VARIANT]

Prints the bits of all arrays of each policy's last checkpoint as JSON: of the one process, of the policy's server, and
gathered. One device and one process, so that every program is compiled once; each server has a thread.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from metaagentx.command_line import Preempted
from metaagentx.metrics import JsonLines, MetricWriter
from metaagentx.sections import plain
from metaagentx.settings import Settings, read
from metaagentx.sft import cold_start
from metaagentx.tasks.team_teacher import CALCULATOR
from metaagentx.teams.gather import gather
from metaagentx.teams.server import run_server
from metaagentx.teams.store import Store
from metaagentx.train import reinforce
from metaagentx.workbench import open_workbench
from tests.test_team_train import small

STEPS = 3
STOPPED = "main"  # which plays the step that it was in again


def made(variant: str, **options: object) -> Settings:
    """`split`; `adapters`: of one base; `three`: each kind of sub-agents has a policy of its own."""
    if variant == "adapters":
        return small(**options, policies__layout="adapters")
    config = plain(small(**options))
    if variant == "three":
        config["team"]["subs"][CALCULATOR]["role"] = "calc"
        for section in (config["sampling"], config["roles"], config["policies"]["servers"]):
            section["calc"] = section["sub"]
    return read(config)


def one_process(settings: Settings, workdir: Path) -> None:
    with open_workbench(settings) as bench, MetricWriter(workdir, tensorboard=False) as writer:
        never = threading.Event()
        reinforce(bench, workdir, cold_start(bench, workdir, writer, never), writer, never)


def servers(settings: Settings, workdir: Path, url: str) -> None:
    """One is told to stop after its first checkpoint, and goes on."""
    store, failed = Store(url, "twins"), []

    def server(policy: str) -> None:
        stop, told = threading.Event(), threading.Event()

        def tell() -> None:
            while (pointer := store.pointer(policy)) is None or pointer.version < 1:
                if told.wait(0.02):
                    return
            stop.set()

        if policy == STOPPED:
            threading.Thread(target=tell, daemon=True).start()
        try:
            for _ in range(2):
                try:
                    run_server(settings, workdir / policy, policy, url, "twins", stop)
                except Preempted:
                    stop = threading.Event()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            told.set()

    threads = [threading.Thread(target=server, args=(policy,)) for policy in settings.learners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    store.close()


def bits(checkpoint: Path, policy: str) -> dict[str, int]:
    """The sums of all bits of a policy's arrays in a checkpoint: weights, moments and counts."""
    record = json.loads((checkpoint / "record" / "metadata").read_text())
    return {name: value for name, value in record["bit_sums"].items() if name.startswith(f"['{policy}']")}


def main(folder: Path, url: str, variant: str = "split") -> None:
    options = {"train__steps": STEPS, "train__evaluate_every": STEPS, "cold_start__steps": 40}
    one_process(made(variant, **options), folder / "one")
    settings = made(variant, **options, cold_start__weights_from=str(folder / "one"))
    servers(settings, folder, url)
    gather(settings, folder / "all", url, "twins")
    found = {
        policy: {
            "one": bits(folder / "one" / "checkpoints" / str(STEPS), policy),
            "two": bits(folder / policy / "checkpoints" / str(STEPS), policy),
            "gathered": bits(folder / "all" / "checkpoints" / str(STEPS), policy),
            "metrics": JsonLines(folder / policy / "metrics.jsonl").read(),
            "alone": [line for line in JsonLines(folder / "one" / "metrics.jsonl").read() if line["phase"] == "joint"],
        }
        for policy in settings.learners
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
