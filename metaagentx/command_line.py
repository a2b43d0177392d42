"""The flags that all stories share, and errors as a person wants to read them."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from metaagentx import hosts
from metaagentx.checkpoint import CheckpointError
from metaagentx.mesh import is_primary
from metaagentx.policy.errors import WeightsError
from metaagentx.preemption import EXIT_CODE
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings, read
from metaagentx.teams.database import StoreError

DEFAULT_CONFIG = "configs/tiny.py"  # given in `parse`: as the flag's own default it would be read by this import
CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"Config file, with a variant after a colon; {DEFAULT_CONFIG} if none is given."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the report.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Be one of several processes, one on each host.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where the cluster does not say it.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes, where the cluster does not say it.")
PROCESS = flags.DEFINE_integer("process", None, "Which one this is, from 0, where the cluster does not say it.")
PATIENCE = flags.DEFINE_float("patience", 300, "Seconds to wait for the other processes.", lower_bound=1)


class Preempted(Exception):
    """The run was told to stop; everything is saved and the same command goes on."""


def run(story: Callable[[Settings, Path], None]) -> None:
    """Parse the flags and tell `story` its settings and work directory."""

    def main(arguments: list[str]) -> None:
        if len(arguments) > 1:
            raise app.UsageError(f"unknown argument {arguments[1]!r}")
        folder = workdir()
        with errors_in_words():
            settings = read(_config())
            join()
            story(settings, folder)

    app.run(main, flags_parser=parse)


def join() -> None:
    """Become one of several processes, if the flags say so. Nothing of JAX may have run before."""
    if DISTRIBUTED.value:
        hosts.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, PATIENCE.value)
    elif (COORDINATOR.value, PROCESSES.value, PROCESS.value) != (None, None, None):
        raise hosts.HostsError("--coordinator, --processes and --process need --distributed")


def workdir() -> Path:
    """The work directory that the flag names."""
    if not WORKDIR.value:
        raise app.UsageError("--workdir=DIRECTORY is needed: where checkpoints, metrics and the report go")
    if "://" in WORKDIR.value:
        raise app.UsageError(f"--workdir must be a path, not {WORKDIR.value}: mount the bucket (gcsfuse) and name it")
    return Path(WORKDIR.value).expanduser().resolve()


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """What a person can mend is a line on stderr and an exit code, not a traceback. Libraries speak of trouble only."""
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    except (SettingsError, CheckpointError, WeightsError, hosts.HostsError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as notice:
        if is_primary():
            print(notice, file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _config() -> ConfigDict:
    try:
        CONFIG.value.keys()
        return CONFIG.value
    except OSError as error:  # raised by a stand-in when the file could not be loaded
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SettingsError(f"--config cannot be loaded: {lines[-1]}") from None


def parse(arguments: Sequence[str]) -> list[str]:
    """absl's parser; a config key that does not exist, or a config file that fails, is one line and no traceback."""
    given = list(arguments)
    if not any(re.match(r"--?config(=|$)", argument) for argument in given):
        given.insert(1, f"--config={DEFAULT_CONFIG}")
    try:
        return flags.FLAGS(given)
    except (AttributeError, KeyError) as error:  # of a key that there is not: quoted text, quoted
        text = str(error).strip('"').replace("\\'", "'").replace("\\n", ". ")
        reason = "there is no " + re.sub(r"^'('.*)'$", r"\1", text)
    except (flags.Error, OSError, TypeError, ValueError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1].removeprefix("ValueError: ")
    flag = next((a for a in arguments if a.startswith("--config") and _about(a, reason)), "a flag")
    print(f"error: {flag} cannot be used: {reason.removeprefix(f'flag {flag}: ')}", file=sys.stderr)
    sys.exit(2)


def _about(flag: str, reason: str) -> bool:
    """Whether `reason` is of this flag: it names it, or in quotes the last part of its key, or the config's variant."""
    name, _, value = flag.partition("=")
    return flag in reason or any(f"'{part}'" in reason for part in (name.rpartition(".")[2], value.rpartition(":")[2]))
