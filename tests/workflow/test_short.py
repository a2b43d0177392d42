"""The short form: one line that says the whole design."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaagentx.workflow.ir import Agent, Design, Diagnosis, Ensemble, Limits, Refusal, Role, Workflow
from metaagentx.workflow.short import parse_short, print_short
from tests.workflow.strategies import PALETTE, TOOLS, workflows

TINY = {"solve": Role("", (), 2), "tool": Role("Compute.", ("calculator",), 2)}
WIDE = Limits(agents=10**6, model_calls=10**9)


def parse(text: str, limits: Limits = WIDE) -> Design | Diagnosis:
    return parse_short(text, palette=TINY, limits=limits, tools=frozenset(TOOLS))


def steps(text: str) -> tuple:
    design = parse(text)
    assert isinstance(design, Design), design
    return design.workflow.steps


def solve(name: str, task: str | None = None) -> Agent:
    return Agent(name, "", (), 2, task)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(workflows(), st.booleans())
def test_printing_and_reading_back_is_the_identity_on_one_line(workflow: Workflow, with_palette: bool) -> None:
    palette = PALETTE if with_palette else {}
    line = print_short(workflow, palette) if with_palette else str(workflow)
    assert len(line.splitlines()) == 1
    assert parse_short(line, palette=palette, limits=WIDE, tools=frozenset(TOOLS)) == Design(workflow)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=solve()", (solve("a"),)),
        ("a=solve()x5", (Ensemble("a", (solve("a"), *(solve(f"a#{n}") for n in range(2, 6)))),)),
        (
            "a=solve(4 - 1);b=solve({a} - 7)x3",
            (
                solve("a", "4 - 1"),
                Ensemble("b", (solve("b", "{a} - 7"), solve("b#2", "{a} - 7"), solve("b#3", "{a} - 7"))),
            ),
        ),
        ("a=tool()", (Agent("a", "Compute.", ("calculator",), 2),)),
        ("a=solve(gcd(26, 38))", (solve("a", "gcd(26, 38)"),)),
        ("a=solve({question})", (solve("a", "{question}"),)),
        ("a=solve( 1 )", (solve("a", " 1 "),)),
        ('a=solve("")', (solve("a", ""),)),
        (r'a=solve("a) \"b\"")', (solve("a", 'a) "b"'),)),
        (" a = solve(1) ; b = solve({a}) x1 \n", (solve("a", "1"), Ensemble("b", (solve("b", "{a}"),)))),
        (r"a=solve(\frac{1}{2})", (solve("a", r"\frac{1}{2}"),)),
    ],
)
def test_the_short_form_means(text: str, expected: tuple) -> None:
    assert steps(text) == expected


@pytest.mark.parametrize("text", ["a=solve()", "a=solve()x5", "a=solve(4 - 1);b=solve({a} - 7)x3", "a=tool()"])
def test_the_palette_gives_back_what_a_tiny_designer_wrote(text: str) -> None:
    design = parse(text)
    assert isinstance(design, Design)
    assert print_short(design.workflow, TINY) == text


@pytest.mark.parametrize(
    ("text", "refusal", "column"),
    [
        ("", Refusal.EMPTY_WORKFLOW, 1),
        ("   ", Refusal.EMPTY_WORKFLOW, 1),
        ("a=", Refusal.SYNTAX, 3),
        ("a", Refusal.SYNTAX, 2),
        ("a=solve(;b=solve()", Refusal.SYNTAX, 8),
        ("a=solve(1;b=solve(2)", Refusal.SYNTAX, 8),
        ("a=solve(1)b=solve(2)", Refusal.SYNTAX, 11),
        ("a=solve(1);", Refusal.SYNTAX, 12),
        ("a=solve(1);;b=solve(2)", Refusal.SYNTAX, 12),
        ("a=solve(1)x", Refusal.SYNTAX, 12),
        ("a=solve(1)x0", Refusal.EMPTY_ENSEMBLE, 11),
        ("a=solve(1\n2)", Refusal.SYNTAX, 10),
        ("a=guess(1)", Refusal.UNKNOWN_NAME, 3),
        ("a=solve({b})", Refusal.UNKNOWN_NAME, 9),
        ("a=solve({a})", Refusal.UNKNOWN_NAME, 9),
        ("a=solve(1 + {b});b=solve(2)", Refusal.UNKNOWN_NAME, 13),
        ('a=solve("{b}")', Refusal.UNKNOWN_NAME, 9),
        ('a=solve("\\q")', Refusal.SYNTAX, 10),
        ("a=club{}", Refusal.UNKNOWN_NAME, 3),
        ("a=agent{age:3}", Refusal.UNKNOWN_KEYWORD, 9),
        ("a=agent{turns:0}", Refusal.BAD_VALUE, 15),
        ("a=agent{turns:21}", Refusal.TOO_LARGE, 15),
        ("a=agent{turns:1,turns:2}", Refusal.SYNTAX, 17),
        ("a=vote{agents:[]}", Refusal.EMPTY_ENSEMBLE, 15),
        ("a=vote{agents:[b=solve()],by:luck}", Refusal.BAD_VALUE, 30),
        ("a=vote{agents:[b=solve()],by:consensus}", Refusal.MISSING_JUDGE, 30),
        ("a=vote{agents:[b=solve()],weights:[1,2]}", Refusal.BAD_VALUE, 35),
        ("a=vote{agents:[b=solve(),c=solve({b})]}", Refusal.UNKNOWN_NAME, 34),
        ("a=debate{debaters:[]}", Refusal.EMPTY_ENSEMBLE, 19),
        ("a=debate{debaters:[b=solve()],rounds:11}", Refusal.TOO_LARGE, 38),
        ("a=reflect{rounds:1}", Refusal.SYNTAX, 10),
        ("a=loop{body:[],until:agrees}", Refusal.EMPTY_WORKFLOW, 13),
        ("a=loop{body:[b=solve()],until:luck}", Refusal.BAD_VALUE, 31),
        ("a=graph{nodes:[b=solve()],edges:[b>c],entry:b,finish:[b]}", Refusal.UNKNOWN_TARGET, 36),
        ('a=route{by:keywords["x">q],routes:[p:b=solve()]}', Refusal.UNKNOWN_TARGET, 25),
        ("a=solve()x9", Refusal.TOO_LARGE, 10),
    ],
)
def test_a_refusal_names_its_reason_and_its_column(text: str, refusal: Refusal, column: int) -> None:
    diagnosis = parse(text, Limits(agents=8))
    assert isinstance(diagnosis, Diagnosis)
    assert (diagnosis.refusal, diagnosis.line, diagnosis.column) == (refusal, 1, column), diagnosis.message


def test_a_second_step_of_one_name_is_shown_with_a_number_and_remarked() -> None:
    design = parse("a=solve(1);a=solve({a} + 1);a=solve(3)")
    assert isinstance(design, Design)
    assert [step.name for step in design.workflow.steps] == ["a", "a#2", "a#3"]
    assert [remark.column for remark in design.remarks] == [12, 29]


def test_a_tool_that_does_not_exist_is_left_out_and_remarked() -> None:
    design = parse("a=agent{tools:[calculator,oracle]}")
    assert isinstance(design, Design)
    assert design.workflow.steps == (Agent("a", tools=("calculator",)),)
    assert "oracle" in design.remarks[0].message


def test_inside_a_loop_or_graph_steps_may_refer_to_each_other_and_in_a_sequence_only_back() -> None:
    body = "[b=solve({c}),c=solve({b})]"
    assert isinstance(parse(f"a=loop{{body:{body},until:agrees}}"), Design)
    assert isinstance(parse(f"a=graph{{nodes:{body},edges:[b>c],entry:b,finish:[c]}}"), Design)
    assert isinstance(parse(f"a=workflow{{steps:{body}}}"), Diagnosis)
    assert isinstance(parse("z=solve();a=workflow{steps:[b=solve({z}),c=solve({b})]}"), Design)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='ab=();{}[]"\\x3,:> solvegthtraqui1#\n', max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    parsed = parse(text)
    assert isinstance(parsed, Design) or (parsed.line == 1 and 1 <= parsed.column <= len(text) + 1)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(workflows(), st.data())
def test_no_damaged_design_crashes_the_reader(workflow: Workflow, data: st.DataObject) -> None:
    line = print_short(workflow, TINY)
    cut = data.draw(st.integers(0, len(line)))
    parse(line[:cut] + data.draw(st.sampled_from(["", "(", "}", '"', ";", "x9"])) + line[cut + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "a=solve(" * 8000,
        "a=solve(" + "(" * 65000,
        "a=solve(" + "{" * 65000 + ")",
        "a=solve(" + "{b" * 32000 + ")",
        'a="' * 20000,
        "a=solve();" * 6500,
        "a=vote{agents:[" * 4000,
        "a=loop{until:" + "not(" * 16000,
        "a=solve()x" + "9" * 60000,
        "a=agent{turns:" + "1" * 65000,
        "a=vote{agents:[b=solve()],weights:[" + "1" * 65000,
        " " * 65536,
        "a=graph{nodes:[b=solve()],edges:[" + "b>b if agrees," * 4600 + "b>b],entry:b,finish:[b]}",
        "a=solve(" + "{question}" * 6500 + ")",
        "a=agent{tools:[" + "t," * 30000 + "t]}",
    ],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    started = time.process_time()
    parse(text, Limits())
    assert time.process_time() - started < 1


def test_a_text_beyond_64_kib_is_too_long() -> None:
    diagnosis = parse("a=solve(" + "1" * 65536 + ")")
    assert isinstance(diagnosis, Diagnosis)
    assert diagnosis.refusal is Refusal.TOO_LONG


def test_nesting_beyond_sixteen_levels_the_workflow_included_is_refused() -> None:
    def nested(levels: int) -> str:
        return "a=workflow{steps:[" * (levels - 1) + "a=solve()" + "]}" * (levels - 1)

    assert isinstance(parse(nested(15)), Design)
    diagnosis = parse(nested(16))
    assert isinstance(diagnosis, Diagnosis)
    assert diagnosis.refusal is Refusal.TOO_LARGE


def test_every_field_of_every_node_is_in_the_printed_form() -> None:
    """Changing any one field of an agent changes its line."""
    agent = Agent("a", "p", ("search",), 3, "t")
    changed = [
        dataclasses.replace(agent, **change)
        for change in ({"name": "b"}, {"system_prompt": "q"}, {"tools": ()}, {"max_turns": 4}, {"task": None})
    ]
    lines = {print_short(Workflow("workflow", (each,))) for each in (agent, *changed)}
    assert len(lines) == 6
