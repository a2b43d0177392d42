"""Runs a training job on a Cloud TPU: create, wait, install, start on every worker; begin again when preempted.

    python -m launch.tpu_vm run --name=mx --zone=us-central2-b --type=v4-32 --spot -- \\
        --config=configs/tiny.py --workdir=/mnt/shared/mx
    python -m launch.tpu_vm status --name=mx --zone=us-central2-b
    python -m launch.tpu_vm delete --name=mx --zone=us-central2-b

What follows -- goes to `python -m metaagentx.train`. With --queued the TPU is asked for as a queued resource of the
same name. Give a work directory that all workers see (a file store, or a bucket mounted with gcsfuse): a job that is
preempted is continued from it on a new TPU of the same name. --dry_run prints the commands and runs none. It needs
gcloud, logged in, and a committed checkout.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.local import SAVED

Argv = list[str]

GONE = ("PREEMPTED", "TERMINATED", "STOPPED", "FAILED", "SUSPENDING", "SUSPENDED", "DELETING", "ABSENT")


@dataclass(frozen=True, slots=True)
class Tpu:
    """One TPU VM, by the same name as the queued resource that asks for it where `queued`."""

    name: str
    zone: str
    type: str = ""  # accelerator type, such as v5litepod-16
    version: str = ""  # runtime version, such as v2-alpha-tpuv5-lite
    project: str = ""  # "": gcloud's default
    spot: bool = False
    queued: bool = False

    def _gcloud(self, group: str, verb: str, *arguments: str) -> Argv:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", group, verb, *arguments, f"--zone={self.zone}", *project, "--quiet"]

    @property
    def _group(self) -> str:
        return "queued-resources" if self.queued else "tpu-vm"

    def create(self) -> Argv:
        spot = ["--spot"] if self.spot else []
        if self.queued:
            kind = [f"--node-id={self.name}", f"--accelerator-type={self.type}", f"--runtime-version={self.version}"]
        else:
            kind = [f"--accelerator-type={self.type}", f"--version={self.version}"]
        return self._gcloud(self._group, "create", self.name, *kind, *spot)

    def describe(self) -> Argv:
        return self._gcloud(
            self._group, "describe", self.name, f"--format=value({'state.state' if self.queued else 'state'})"
        )

    def delete(self) -> Argv:
        return self._gcloud(self._group, "delete", self.name, *(["--force"] if self.queued else []))

    def copy(self, source: Path, target: str) -> Argv:
        return self._gcloud("tpu-vm", "scp", str(source), f"{self.name}:{target}", "--worker=all")

    def ssh(self, *command: str) -> Argv:
        """Runs `command` on every worker; the remote shell reads it back as the same words."""
        return self._gcloud("tpu-vm", "ssh", self.name, "--worker=all", f"--command={shlex.join(command)}")


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs argument lists, or only prints them."""

    dry_run: bool
    poll: float  # seconds between looks at a state

    def run(self, argv: Argv) -> int:
        print("+", shlex.join(argv), flush=True)
        return 0 if self.dry_run else subprocess.run(argv, check=False).returncode

    def check(self, argv: Argv) -> None:
        if code := self.run(argv):
            raise SystemExit(f"gcloud ended with {code}: {shlex.join(argv)}")

    def state(self, tpu: Tpu) -> str:
        """The TPU's state in gcloud's words; ABSENT where there is none of that name."""
        if self.dry_run:
            print("+", shlex.join(tpu.describe()))
            return "READY"
        result = subprocess.run(tpu.describe(), check=False, capture_output=True, text=True)
        if result.returncode == 0:
            return result.stdout.strip()
        if "NOT_FOUND" in result.stderr or "not found" in result.stderr:
            return "ABSENT"
        raise SystemExit(f"gcloud cannot describe {tpu.name}: {result.stderr.strip()}")


def wait(tpu: Tpu, shell: Shell) -> bool:
    """Waits until the TPU is there (True), or is known not to come (False)."""
    seen = ""
    while (state := shell.state(tpu)) not in ("READY", "ACTIVE"):
        if state != seen:
            print(f"{tpu.name}: {state}", flush=True)
            seen = state
        if state in GONE:
            return False
        time.sleep(shell.poll)
    return True


def clear(tpu: Tpu, shell: Shell) -> None:
    """Deletes what is left of a lost TPU, so that its name is free."""
    while (state := shell.state(tpu)) != "ABSENT":
        if state in ("DELETING", "SUSPENDING"):
            time.sleep(shell.poll)
        else:
            shell.check(tpu.delete())


def copy(tpu: Tpu, shell: Shell) -> int:
    """Copies the committed state of this checkout to ~/metaagentx on every worker; returns an exit code."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "metaagentx.tar.gz"
        return (
            shell.run(["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
            or shell.run(tpu.copy(archive, "metaagentx.tar.gz"))
            or shell.run(tpu.ssh("tar", "-xzf", "metaagentx.tar.gz", "--one-top-level=metaagentx"))
        )


def train(tpu: Tpu, shell: Shell, command: Sequence[str], python: str, attempts: int) -> int:
    """Runs `command` (the arguments of `python`) on every worker, on as many TPUs of this name as preemption takes.

    Returns the exit code of the command, or 1 if the TPU was lost `attempts` times. An existing TPU is used as it is.
    """
    for attempt in range(attempts):
        if attempt or shell.dry_run or shell.state(tpu) == "ABSENT":
            shell.check(tpu.create())
        code = 1
        if wait(tpu, shell):
            code = copy(tpu, shell) or shell.run(tpu.ssh("bash", "metaagentx/launch/worker.sh", python, *command))
            if code == 0 or (code != SAVED and shell.state(tpu) not in GONE):
                return code
        print(f"{tpu.name} was lost ({attempt + 1} of {attempts} attempts)", flush=True)
        clear(tpu, shell)
    return code


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "status", "delete"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", default="", help="gcloud's default project if not given")
    parser.add_argument("--type", default="", help="accelerator type, such as v5litepod-16")
    parser.add_argument("--version", default="tpu-ubuntu2204-base", help="runtime version (default: %(default)s)")
    parser.add_argument("--python", default="python3.11", help="installed on the workers if absent (pythonX.Y)")
    parser.add_argument("--spot", action="store_true", help="cheaper, may be preempted")
    parser.add_argument("--queued", action="store_true", help="ask for it as a queued resource")
    parser.add_argument("--attempts", type=int, default=100, help="TPUs to lose before giving up")
    parser.add_argument("--poll", type=float, default=20.0, help="seconds between looks at a state")
    parser.add_argument("--distributed", action=argparse.BooleanOptionalAction, default=True,
                        help="pass --distributed to the training program (jax.distributed.initialize)")  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="print the commands and run none")
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.arguments = words[end + 1 :]
    if args.verb == "run" and not args.type:
        parser.error("run needs --type, the accelerator type, such as v5litepod-16")
    if args.attempts < 1:
        parser.error(f"--attempts must be at least 1, not {args.attempts}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    tpu = Tpu(args.name, args.zone, args.type, args.version, args.project, args.spot, args.queued)
    shell = Shell(args.dry_run, args.poll)
    if args.verb == "delete":
        return shell.run(tpu.delete())
    if args.verb == "status":
        print(shell.state(tpu))
        return 0
    distributed = ["--distributed"] if args.distributed else []
    return train(tpu, shell, ["-m", "metaagentx.train", *distributed, *args.arguments], args.python, args.attempts)


if __name__ == "__main__":
    sys.exit(main())
