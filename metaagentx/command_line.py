"""The flags that all stories share, and errors as a person wants to read them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from metaagentx.checkpoint import CheckpointError
from metaagentx.preemption import EXIT_CODE
from metaagentx.settings import Settings, SettingsError, read

CONFIG = config_flags.DEFINE_config_file("config", "configs/tiny.py", "Config file, with a variant after a colon.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the report.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Call jax.distributed.initialize: one process per host.")


class Preempted(Exception):
    """The run was told to stop; everything is saved and the same command goes on."""


def run(story: Callable[[Settings, Path], None]) -> None:
    """Parse the flags and tell `story` its settings and work directory."""

    def main(arguments: list[str]) -> None:
        if len(arguments) > 1:
            raise app.UsageError(f"unknown argument {arguments[1]!r}")
        if not WORKDIR.value:
            raise app.UsageError("--workdir=DIRECTORY is needed: where checkpoints, metrics and the report go")
        if "://" in WORKDIR.value:
            raise app.UsageError(
                f"--workdir must be a path, not {WORKDIR.value}: mount the bucket (gcsfuse) and name it"
            )
        if DISTRIBUTED.value:
            jax.distributed.initialize()
        logging.set_verbosity(logging.WARNING)
        try:
            story(read(CONFIG.value), Path(WORKDIR.value).expanduser().resolve())
        except (SettingsError, CheckpointError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except Preempted as notice:
            print(notice, file=sys.stderr)
            sys.exit(EXIT_CODE)

    app.run(main, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    """absl's parser; a config key that does not exist, or a config file that fails, is one line and no traceback."""
    try:
        return app.parse_flags_with_usage(list(arguments))
    except (AttributeError, KeyError, OSError, ValueError) as error:
        reason = " ".join(str(error).replace("\\'", "'").replace("\\n", " ").split())
        flag = next((a for a in arguments if a.startswith("--config.") and f"{_last(a)}'" in reason), "a --config flag")
        print(f"error: {flag} cannot be used: {reason}", file=sys.stderr)
        sys.exit(2)


def _last(flag: str) -> str:
    """The last part of a flag's key: "slot" of "--config.engine.slot=3"."""
    return flag.partition("=")[0].rpartition(".")[2]
