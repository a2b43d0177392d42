import re

import pytest

from metaagentx.tasks import script_prompt as scripts
from metaagentx.tasks.language_palette import EXAMPLES, PALETTE, palette, short_prompt
from metaagentx.workflow import constructors
from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.short import parse_short

TOOLS = frozenset({"calculator"})
SHORT_PROMPT = short_prompt(("calculator",))
LIMITS = Limits(agents=12, model_calls=40)


def prompt():
    return scripts.script_prompt({"calculator": "exact arithmetic"}, agents=12, calls=40)


@pytest.mark.parametrize("title", scripts.EXAMPLES)
def test_a_script_that_is_shown_is_a_valid_design_without_remarks(title):
    design = parse_response(f"<code>\n{scripts.EXAMPLES[title]}</code>", palette={}, limits=LIMITS, tools=TOOLS)
    assert isinstance(design, Design), design
    assert design.remarks == ()


def test_an_answer_in_the_manner_of_the_whole_prompt_is_read():
    design = parse_response(prompt(), palette={}, limits=LIMITS, tools=TOOLS)
    assert isinstance(design, Design), design


def test_the_script_prompt_names_constructors_and_keywords_that_exist():
    for name, keywords in re.findall(r"^- (\w+)\(([^)]*)\)", prompt(), re.MULTILINE):
        known = constructors.TABLE[name]
        for keyword in re.findall(r"(?:^|, )(\w+)", re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", keywords)):
            assert keyword in known, (name, keyword)


def test_the_script_prompt_tells_limits_and_tools():
    assert "At most 12 agents and 40 model calls" in prompt()
    assert "- calculator: exact arithmetic" in prompt()
    assert "There are no tools." in scripts.script_prompt({}, agents=1, calls=1)
    assert "{agents}" not in prompt()


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_short_form_that_is_shown_is_a_valid_design_without_remarks(example):
    design = parse_short(example, palette=PALETTE, limits=LIMITS, tools=TOOLS)
    assert isinstance(design, Design), design
    assert design.remarks == ()
    assert example in SHORT_PROMPT


def test_the_short_prompt_names_every_role_and_is_short():
    listed = re.search(r"Roles: (.*)", SHORT_PROMPT)[1]
    assert re.findall(r"(?:^|, )(\w+)", re.sub(r"\([^)]*\)", "", listed)) == list(PALETTE)
    assert len(SHORT_PROMPT.split()) < 110


def test_more_tools_are_a_role_of_their_own():
    tools = ("calculator", "search", "fetch_data")
    assert palette(("calculator",)) == PALETTE
    assert palette(tools)["use"].tools == ("search", "fetch_data")
    assert "calc (has a calculator), use (has search, fetch_data).\n" in short_prompt(tools)
    design = parse_short("a=use()", palette=palette(tools), limits=LIMITS, tools=frozenset(tools))
    assert isinstance(design, Design), design
    assert design.remarks == ()
