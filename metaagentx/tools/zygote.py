"""Inside a sandbox: pid 1, an interpreter that is warm, and forks a child for each program.

On standard input, a socket, it is told two things and reads nothing else: a descriptor, for which a child is forked
that serves it (`answering`), or a byte without one, upon which everything else inside is killed and the byte returned.
So hostile text reaches children alone, and these have nothing of ours but their own connection.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys

from metaagentx.tools.answering import answer
from metaagentx.tools.confinement import Bounds, settle


def main() -> None:
    if os.getpid() != 1:
        sys.exit("a zygote kills all processes that it sees, so it must be alone in a namespace of its own")
    bounds: Bounds = json.loads(sys.argv.pop())
    for package in bounds["packages"]:
        importlib.import_module(package)
    settle(bounds)
    gc.collect()
    gc.freeze()  # what is here stays shared with the children
    control = socket.socket(fileno=0)
    control.send(b".")
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1, 1)
        if descriptors:
            if os.fork() == 0:
                answer(descriptors[0], bounds)
            os.close(descriptors[0])
        elif message:
            _kill_everything()
            control.send(message)
        else:
            os._exit(0)


def _kill_everything() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
