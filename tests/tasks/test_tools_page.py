"""What docs/tools.md shows is run: one file and one flag make a tool."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from metaagentx.settings import Settings, read
from metaagentx.tasks.open import surroundings
from metaagentx.tasks.toolbox import BUILT_IN, SAMPLE
from metaagentx.tools.options import ToolOptions
from metaagentx.workflow.protocol import ToolCall, ToolResult

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def settings_of(command: str, config: str) -> Settings:
    """The settings of a command line, read as the stories do, with `config` for the file that it names."""
    given = [word for word in shlex.split(command) if word.startswith("--config.")]
    line = ["train", f"--config={ROOT / config}", *given]
    found = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=found, sys_argv=line)
    found(line)
    return read(holder.value)


def commands() -> list[str]:
    return [text.replace("\\\n", " ") for language, text in BLOCKS if language == "bash"]


def test_one_file_and_one_flag_make_a_tool(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, code),) = [block for block in BLOCKS if block[0] == "python"]
    Path("temperature.py").write_text(code)
    task = settings_of(commands()[0], "configs/smollm2_gym.py").task
    around = surroundings(task, tmp_path)

    def call(**arguments: object) -> ToolResult:
        return around.toolbox.run(ToolCall("convert_temperature", arguments, "A"))

    assert call(degrees=212) == ToolResult("100")
    assert call(degrees=100, to="fahrenheit") == ToolResult("212")
    assert call(degrees=-500) == ToolResult("there is nothing colder than absolute zero; check the sign", ok=False)
    assert call(degrees="hot").text in PAGE
    assert around.toolbox.tools["convert_temperature"](degrees=212) == "100"
    assert around.palette["use"].tools == ("convert_temperature",)


def test_the_web_command_names_a_variable_that_must_be_set(tmp_path: Path, monkeypatch) -> None:
    task = settings_of(commands()[1], "configs/qwen3_8b.py").task
    monkeypatch.delenv("BRAVE_KEY", raising=False)
    with pytest.raises(ValueError, match="the environment variable BRAVE_KEY"):
        surroundings(task, tmp_path)
    monkeypatch.setenv("BRAVE_KEY", "x")
    assert surroundings(task, tmp_path).toolbox.names() == {"calculator", "google-search"}


def test_the_page_lists_every_tool_and_every_limit_with_its_default() -> None:
    tables = dict(re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE))
    names = re.findall("`([^`]+)`", " ".join(tables))
    limits = {field.name: field.default for field in dataclasses.fields(ToolOptions) if field.type in ("int", "float")}
    assert [name for name in names if name not in limits] == list(BUILT_IN)
    assert {name: float(tables[f"`{name}`"]) for name in limits} == limits


def test_the_sample_is_what_the_page_says() -> None:
    documents = SAMPLE.read_text(encoding="utf-8").splitlines()
    assert f"`sample` for {len(documents)} short articles" in PAGE.replace("\n", " ")
