"""A wrong command is one line that names what is wrong, not a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ANY = ("-c", "from metaagentx import command_line; command_line.run(lambda settings, folder: folder.mkdir())")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--config=configs/tiny.py", "--config.engine.slot=3"], "--config.engine.slot=3 cannot be used"),
        (["--config.engine.slot=3"], "--config.engine.slot=3 cannot be used: there is no 'slot'"),
        (["--config.engine.slots=many"], "--config.engine.slots=many cannot be used: invalid literal"),
        (["--config=configs/tiny.py:both"], "both cannot be used: configs/tiny.py has no variant 'both'; it has"),
        (["--config=configs/nowhere.py"], "--config cannot be loaded"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], expected: str, tmp_path: Path) -> None:
    refused(ANY, flags, expected, tmp_path)


def test_the_commands_of_stories_say_so_too(tmp_path: Path) -> None:
    refused(("-m", "metaagentx.train"), ["--config.engine.slots=0"], "engine.slots must be at least 1, not 0", tmp_path)


def refused(story: tuple[str, ...], flags: list[str], expected: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *story, f"--workdir={tmp_path / 'run'}", *flags]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert expected in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
