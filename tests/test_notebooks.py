from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flags import flags

FOLDER = Path(__file__).parents[1] / "notebooks"
SPEC = importlib.util.spec_from_file_location("render", FOLDER / "render.py")
assert SPEC is not None
assert SPEC.loader is not None
render = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(render)


@pytest.mark.parametrize("source", render.SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_without_outputs(source: Path) -> None:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == render.render(source), "run `make notebooks`"
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_only_the_first_code_cell_installs_and_only_on_colab() -> None:
    for source in render.SOURCES:
        code = [cell for cell in json.loads(render.render(source))["cells"] if cell["cell_type"] == "code"]
        installing = [number for number, cell in enumerate(code) if "pip" in "".join(cell["source"])]
        assert installing == [0]
        before = "".join(code[0]["source"]).split("pip")[0]
        assert 'if "google.colab" in sys.modules:' in before


@pytest.mark.parametrize("source", render.SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(source: Path, tmp_path: Path) -> None:
    environment = os.environ | {"METAAGENTX_SMOKE": "1", "METAAGENTX_WORKDIR": str(tmp_path / "run")}
    environment["XLA_FLAGS"] = flags(devices=1)  # as a reader has it
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=900"]
    result = subprocess.run(
        [*command, str(source.with_suffix(".ipynb"))], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-6000:]
