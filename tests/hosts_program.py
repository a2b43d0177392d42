"""What each process of `test_hosts` runs: the training story in one work directory after another.

Environment: RUNS, names of the work directories below --workdir; WRITES, a file that lists every path written below it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FLAGS_OF_WRITERS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def note_writes(listing: Path) -> None:
    """List what this process opens for writing, makes, renames or removes, from now on."""
    file = listing.open("w", buffering=1)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & FLAGS_OF_WRITERS):
            return
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"):
            file.write(f"{arguments[0]}\n")

    sys.addaudithook(hook)


def break_second() -> None:
    """Let the engines of the second process fail at its second call."""
    import jax

    from metaagentx.rollout.engine import Engine

    submit, calls = Engine.submit, []

    def broken(engine: Engine, ask: object) -> None:
        calls.append(ask)
        if jax.process_index() == 1 and len(calls) > 1:
            raise RuntimeError("broken here")
        submit(engine, ask)

    Engine.submit = broken


if __name__ == "__main__":
    note_writes(Path(os.environ["WRITES"]))

    from metaagentx import command_line
    from metaagentx.settings import Settings
    from metaagentx.train import train

    def story(settings: Settings, folder: Path) -> None:
        for name in os.environ["RUNS"].split():
            if name == "broken":
                break_second()
            train(settings, folder / name)

    command_line.run(story)
