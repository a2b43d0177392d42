"""The same attacks where the one who opens the sandbox is not root, but a user with no rights at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from metaagentx.tools import jail

NOBODY = "65534"
SECRET = "what no program may see"
DRIVER = """
import contextlib, json, os, sys
from bounds_attacks import ATTACKS as bounds
from host_attacks import ATTACKS as host
from kernel_attacks import ATTACKS as kernel
from race_attacks import ATTACKS as race
from metaagentx.tools.sandbox import Sandbox, SandboxOptions

names = json.loads(sys.argv[1]) | {"HOST_PID": os.getpid()}
found = {}
with contextlib.closing(Sandbox(SandboxOptions(workers=1, seconds=2.0, cpu_seconds=1, memory_mb=256))) as sandbox:
    names_of_quick = ("fork_bomb", "thread_bomb", "ten_gigabytes", "torn_huge_pages", "threads_that_are_more")
    quick = [attack for attack in (*bounds, *race) if attack.name in names_of_quick]
    for attack in (*quick, *host, *kernel):
        found[attack.name] = str(sandbox.run(attack.program(names), [("f", [3])]).results)
        assert sandbox.run("def f(x): return x", [("f", [3])]).value(0) == (3,)
    assert len(sandbox.workers()) == 1
print(json.dumps([os.getuid(), found]))
"""


@pytest.fixture
def readable():
    """A folder that everybody may read, with what the driver needs."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), Path(__file__).resolve().parents[3]
        shutil.copytree(root / "metaagentx" / "tools", folder / "metaagentx" / "tools")
        shutil.copytree(root / "metaagentx" / "workflow", folder / "metaagentx" / "workflow")
        for file in Path(__file__).parent.glob("[!t]*.py"):
            shutil.copy(file, folder)
        (folder / "secret").write_text(SECRET)
        (folder / "driver.py").write_text(DRIVER)
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield folder


def test_no_attack_gets_away(readable) -> None:
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    if os.geteuid() != 0 or not shutil.which("setpriv") or not Path(python).exists():
        pytest.skip("needs root, setpriv and a Python that everybody may run")
    names = {
        "HOST_FILE": str(readable / "secret"),
        "HOST_FOLDER": str(readable),
        "HOST_PORT": 1,
        "REPOSITORY": str(readable),
    }
    command = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    done = subprocess.run(
        [*command, python, "-B", str(readable / "driver.py"), json.dumps(names)],
        env={"PATH": os.pathsep.join({str(Path(path).parent) for path in jail.bubblewraps()} | {"/usr/bin"})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "cannot be isolated" in done.stderr:
        pytest.skip(done.stderr[-500:])
    user, found = json.loads(done.stdout or "null") or pytest.fail(done.stderr)
    assert user == int(NOBODY)
    assert len(found) > 50
    assert {name for name, results in found.items() if "escaped" in results or SECRET in results} == set()
