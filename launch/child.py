"""Becomes the given command, bound to some cores and to the life of its parent.

    python launch/child.py 0,1 python -m metaagentx.train ...

XLA sizes its thread pools by the cores that a process may use, so jobs side by side need no other limit. The parent's
death ends the job (Linux), so that a restarted launcher never meets an orphan in the same work directory.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(cores: str, command: list[str]) -> None:
    """`cores`: numbers separated by commas; empty leaves them as they are."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
