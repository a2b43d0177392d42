"""The environment's rule, with a stand-in for Python that writes down what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/bash
case "$*" in
  *"print("*) cat "$ROOT/version" ;;
  *"sys.exit("*) [[ $(cat "$ROOT/version") != 3.10 ]] ;;
  *ensurepip*) [[ ! -e $ROOT/no_venv ]] ;;
  *"import jaxlib, pytest"*) [[ ! -e $ROOT/broken ]] ;;
  "-m venv --clear "*) echo venv >> "$ROOT/trace"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; rm -f "$ROOT/broken" ;;
  *"--upgrade pip") ;;
  "-m pip install "*) echo "pip ${*: -1}" >> "$ROOT/trace"; [[ ! -e $ROOT/interrupt ]] ;;
esac
"""


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "launch").mkdir()
        for name in ("Makefile", "setup.py", "launch/accelerator.sh"):
            shutil.copy(ROOT / name, root / name)
        self.program("python", PYTHON)
        (root / "version").write_text("3.11")
        (root / "devices").mkdir()

    def program(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)
        (self.root / name).chmod(0o755)

    def environment(self) -> dict[str, str]:
        path = f"{self.root}{os.pathsep}{os.environ['PATH']}"
        devices = str(self.root / "devices")
        ours = {"ACCELERATOR", "ARGS", "MFLAGS"}  # of the make that runs these tests
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key not in ours}
        return kept | {"PATH": path, "ROOT": str(self.root), "PCI_DEVICES": devices}

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "setup", f"PYTHON={self.root / 'python'}", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False
        )

    def accelerator(self) -> str:
        command = ["bash", "launch/accelerator.sh"]
        result = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=True
        )
        return result.stdout.strip()

    @property
    def trace(self) -> list[str]:
        file = self.root / "trace"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("nvidia-smi", "#!/bin/sh\nexit 9\n")
    return made


def test_installs_once_and_again_only_when_setup_changes(machine: Machine) -> None:
    assert machine.make().returncode == 0
    assert machine.trace == ["venv", "pip .[dev]"]
    (machine.root / "setup.py").touch()
    assert machine.make().returncode == 0
    assert machine.trace == []
    with open(machine.root / "setup.py", "a") as file:
        file.write("# changed\n")
    assert machine.make().returncode == 0
    assert machine.trace == ["pip .[dev]"]


def test_an_interrupted_installation_is_begun_again(machine: Machine) -> None:
    (machine.root / "interrupt").touch()
    assert machine.make().returncode != 0
    assert machine.trace == ["venv", "pip .[dev]"]
    (machine.root / "interrupt").unlink()
    assert machine.make().returncode == 0
    assert machine.trace == ["venv", "pip .[dev]"]


def test_a_broken_environment_is_rebuilt(machine: Machine) -> None:
    machine.make()
    assert machine.trace
    (machine.root / "broken").touch()
    assert machine.make().returncode == 0
    assert machine.trace == ["venv", "pip .[dev]"]


def test_each_python_version_has_its_own_environment(machine: Machine) -> None:
    machine.make()
    (machine.root / "version").write_text("3.13")
    machine.make()
    assert machine.trace == ["venv", "pip .[dev]"] * 2
    assert sorted(path.name for path in (machine.root / ".venv").iterdir()) == ["3.11", "3.13"]


def test_an_old_python_and_a_missing_venv_module_are_named(machine: Machine) -> None:
    (machine.root / "version").write_text("3.10")
    assert "needs Python 3.11 or newer" in machine.make().stderr
    (machine.root / "version").write_text("3.12")
    (machine.root / "no_venv").touch()
    assert "sudo apt install python3-venv (or python3.12-venv)" in machine.make().stderr
    assert machine.trace == []


def test_a_python_that_does_not_exist_is_named(machine: Machine) -> None:
    result = machine.make("PYTHON=python9")
    assert result.returncode != 0
    assert "'python9' is not runnable" in result.stderr


@pytest.mark.parametrize(("driver", "extra"), [("580.65.06", "cuda13"), ("535.104.05", "cuda12"), ("", "")])
def test_a_gpu_gets_the_cuda_that_its_driver_can_run(machine: Machine, driver: str, extra: str) -> None:
    machine.program("nvidia-smi", f"#!/bin/sh\necho '{driver}'\n")
    assert machine.accelerator() == extra
    machine.make()
    assert machine.trace == ["venv", f"pip .[dev{',' * bool(extra)}{extra}]"]


@pytest.mark.parametrize(
    ("vendor", "device", "extra"),
    [("0x1ae0", "0x0063", "tpu"), ("0x1ae0", "0x0042", ""), ("0x8086", "0x0063", "")],
)
def test_a_tpu_is_told_from_other_devices(machine: Machine, vendor: str, device: str, extra: str) -> None:
    folder = machine.root / "devices" / "0000:00:04.0"
    folder.mkdir()
    (folder / "vendor").write_text(vendor + "\n")
    (folder / "device").write_text(device + "\n")
    assert machine.accelerator() == extra
