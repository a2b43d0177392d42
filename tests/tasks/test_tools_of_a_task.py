"""A config names tools; what it names and cannot have stops the run at its start."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from configs import qwen3_8b
from metaagentx.settings import read
from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.open import open_task, surroundings
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.toolbox import BUILT_IN, SAMPLE, open_toolbox
from metaagentx.tools.corpus_index import build
from metaagentx.tools.options import ToolOptions, WebOptions
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.protocol import Call, Reply, ToolCall, ToolResult
from metaagentx.workflow.replay import drive
from metaagentx.workflow.short import parse_short

MINE = (
    "from metaagentx.tools.tool import tool\n\n@tool\ndef search(query: str) -> str:\n    'Finds.'\n    return query\n"
)


def opened(folder: Path, *names: str, **options: Any) -> Toolbox:
    return open_toolbox(ToolOptions(names=names, **options), folder, lambda: Sandbox(SandboxOptions()))


def asked(box: Toolbox, name: str, query: str) -> str:
    return box.run(ToolCall(name, {"query": query}, "A")).text


def test_every_built_in_tool_can_be_had(tmp_path: Path) -> None:
    try:
        box = opened(tmp_path, *BUILT_IN, corpus="sample")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert tuple(box.tools) == BUILT_IN
    for name in ("python_execute", "execute_code"):
        assert box.run(ToolCall(name, {"code": "print(6 * 7)"}, "A")).text == "42"
        assert box.tools[name].timed, "the sandbox has the limits"


def test_the_sample_is_found_and_read(tmp_path: Path) -> None:
    box = opened(tmp_path, "search", "fetch_data", "google-search", corpus="sample", results=2)
    assert asked(box, "search", "Who wrote the opera with Papageno?").startswith("1. The Magic Flute (id: magic-flute)")
    assert asked(box, "search", "planet").count("(id: ") == 2
    assert "Emanuel Schikaneder" in asked(box, "fetch_data", "magic-flute")
    assert asked(box, "google-search", "planet") == asked(box, "search", "planet")
    assert len(SAMPLE.read_text().splitlines()) == 48


def test_a_corpus_is_indexed_once(tmp_path: Path, monkeypatch) -> None:
    built = []
    monkeypatch.setattr("metaagentx.tasks.toolbox.build", lambda *given: built.append(given) or build(*given))
    for _ in range(2):
        opened(tmp_path, "search", corpus="sample")
    assert len(built) == 1
    assert len(os.listdir(tmp_path)) == 1


def test_the_web_stands_in_for_google_search_only(tmp_path: Path) -> None:
    web = WebOptions(url="http://127.0.0.1:9/?q={query}", retries=0)
    box = opened(tmp_path, "search", "google-search", corpus="sample", web=web)
    assert "the search API could not be reached" in asked(box, "google-search", "planet")
    assert asked(box, "search", "planet").startswith("1. ")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("browse",), {}, "task.tools.names: there is no built-in tool 'browse'; there is calculator, python_execute"),
        (("calculator,search",), {}, "several are written \"('calculator','search')\""),
        (("calculator", "calculator"), {}, "there are two tools of the name 'calculator'"),
        (("search",), {}, "task.tools.corpus must name a JSONL file of documents, or 'sample': task.tools.names has"),
        (("google-search",), {}, "or 'sample', or task.tools.web.url a search API"),
        (("search",), {"corpus": "none.jsonl"}, "task.tools.corpus: none.jsonl: cannot be read: No such file"),
        ((), {"corpus": "none.jsonl"}, "task.tools.corpus: none.jsonl: cannot be read"),
        ((), {"files": ("none.py",)}, "task.tools.files: none.py: must be a Python file"),
        (("search",), {"corpus": "sample", "files": ("mine.py",)}, "two tools of the name 'search'"),
        (
            ("google-search",),
            {"web": WebOptions("https://example.org/?q={query}", "METAAGENTX_NO_KEY", "X-Key: {key}")},
            "the environment variable METAAGENTX_NO_KEY (task.tools.web.key_variable) must be set",
        ),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch, names, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    with pytest.raises(ValueError, match=re.escape(message)):
        opened(tmp_path, *names, **options)


def test_python_without_a_sandbox_is_refused_before_anything_is_prepared(tmp_path: Path, monkeypatch) -> None:
    def unavailable(options: SandboxOptions) -> Sandbox:
        raise SandboxUnavailable("not here")

    monkeypatch.setattr("metaagentx.tasks.open.Sandbox", unavailable)
    options = read(qwen3_8b.get_config()).task
    assert options.tools.names == ("calculator", "python_execute")
    with pytest.raises(SandboxUnavailable):
        surroundings(options, tmp_path)
    without = dataclasses.replace(options, tools=ToolOptions())
    assert surroundings(without, tmp_path).toolbox.names() == {"calculator"}, "no other tool needs one"


def test_a_role_of_short_designs_must_have_its_tools(tmp_path: Path) -> None:
    for kind, role in (("tiny", "tool"), ("gym", "calc")):
        options = TaskOptions(kind=kind, tools=ToolOptions(names=()))
        with pytest.raises(ValueError, match=f"task.tools.names must hold 'calculator': the role '{role}'"):
            surroundings(options, tmp_path)
    full = TaskOptions(kind="files", prompts="full", tools=ToolOptions(names=("search",), corpus="sample"))
    assert surroundings(full, tmp_path).toolbox.names() == {"search"}


def test_a_tool_that_no_design_of_the_tiny_task_could_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace("search", "look_up"))
    for tools in (
        ToolOptions(files=(str(tmp_path / "mine.py"),)),
        ToolOptions(("calculator", "search"), corpus="sample"),
    ):
        with pytest.raises(ValueError, match=r"task.tools must not hold '(look_up|search)': no role of the tiny task"):
            surroundings(TaskOptions(kind="tiny", tools=tools), tmp_path)


def test_designs_name_the_tools_of_the_config_and_designers_are_told_of_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace("search", "look_up"))
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "What is 3 + 4?", "answer": 7, "domain": "mathematics"}\n')
    tools = ToolOptions(names=("calculator", "fetch_data"), files=(str(tmp_path / "mine.py"),), corpus="sample")
    options = TaskOptions(kind="files", tools=tools)
    options = dataclasses.replace(options, files=dataclasses.replace(options.files, train=str(questions)))
    around = surroundings(options, tmp_path)

    script = (
        "from workflow import *\ntools = ToolRegistry()\n"
        "for name in ('look_up', 'fetch_data', 'python_execute'):\n    tools.register(name)\n"
        "workflow = Workflow(name='w')\nworkflow.add_node(AgentNode(name='a', tool_registry=tools))\n"
        "workflow.run(question)\n"
    )
    design = parse_response(
        f"<code>\n{script}</code>", palette=around.palette, limits=Limits(), tools=around.toolbox.names()
    )
    assert isinstance(design, Design), design
    assert design.workflow.steps[0].tools == ("look_up", "fetch_data")
    assert "'python_execute' does not exist" in str(design.remarks)

    assert around.palette["use"].tools == ("fetch_data", "look_up")
    brief = open_task(options, tmp_path, Limits(), around)
    asked = brief.designer_messages(brief.question("train", 0))[0].content
    assert "use (has fetch_data, look_up)" in asked
    full = open_task(dataclasses.replace(options, prompts="full"), tmp_path, Limits(), around)
    asked = full.designer_messages(full.question("train", 0))[0].content
    assert "- look_up: Finds." in asked
    assert "- fetch_data: Reads one document." in asked


def test_an_agent_searches_reads_and_answers(tmp_path: Path) -> None:
    options = TaskOptions(
        kind="files", tools=ToolOptions(names=("calculator", "search", "fetch_data"), corpus="sample")
    )
    around = surroundings(options, tmp_path)
    design = parse_short("a=use()", palette=around.palette, limits=Limits(), tools=around.toolbox.names())
    assert isinstance(design, Design), design
    told: list[str] = []
    said = iter(
        [
            '<tool_call>{"name": "search", "arguments": {"query": "largest moon of Saturn"}}</tool_call>',
            '<tool_call>{"name": "fetch_data", "arguments": {"query": "saturn"}}</tool_call>'
            '<tool_call>{"name": "search", "arguments": {"query": "Huygens"}}</tool_call>',
            "It is \\boxed{Titan}.",
        ]
    )

    def answer(path: object, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            return around.toolbox.run(request)
        told.extend(message.content for message in request.messages)
        return Reply(next(said))

    process = run(
        design.workflow,
        "What is the largest moon of Saturn?",
        BoxedDelivery(""),
        wording=around.wording,
        max_calls=9,
        tool_texts=around.tool_texts,
    )
    result = drive(process, answer)
    assert (result.answer, result.tool_calls, result.calls) == ("Titan", 3, 3)
    assert all(text in told[0] for text in around.tool_texts.values() if "calculator" not in text)
    shown = "\n".join(told)
    assert "(id: saturn)" in shown
    assert "lakes of liquid methane" in shown
