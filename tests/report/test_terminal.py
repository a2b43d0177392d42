"""What is printed is plain where nobody looks at a terminal, and cannot steer one."""

from __future__ import annotations

import io

import workdir

from metaagentx.report import episode_text, records, terminal
from metaagentx.report.records import to_json
from metaagentx.workflow import ir


def test_the_final_table_is_printed_plainly_with_its_numbers():
    stream = io.StringIO()
    terminal.show(workdir.RESULTS, stream)
    text = stream.getvalue()
    assert "\x1b" not in text
    line = next(line for line in text.splitlines() if line.strip().startswith("trained  "))
    assert " ".join(line.split()) == "trained 66.8 % 62.5 - 71.2 15.9 3.20 68.0 % 39.0 % 90.0 % 74.0 %"
    assert "gained +38.2 points: +25.8 by the designer, +12.4 by the executor" in text


def test_results_without_cross_play_are_printed_too():
    stream = io.StringIO()
    terminal.show({"table": workdir.RESULTS["table"]}, stream)
    assert "single agent" in stream.getvalue()
    assert "Cross-play" not in stream.getvalue()


def test_an_episode_reads_from_design_to_verdict():
    text = episode_text.render(records.episode(workdir.tree("sum3", 1), step=1, phase="joint"))
    places = [
        text.index(part)
        for part in ("4 - 1 + 1", "a=solve(4 - 1)", "asked '{a} + 1'", "user → b: 3 + 1", "Answer: 4  right")
    ]
    assert places == sorted(places)
    assert "refused (unknown_name, line 1, column 3)" in text
    assert 'calculator {"expression": "gcd(26, 38)"} → 2' in text


def test_model_text_cannot_steer_the_terminal():
    flow = ir.Workflow("w", (ir.Agent("a\x1b[2J", task="[bold]x[/bold]\x07"),))
    record = workdir.episodes()[0]
    record["designs"][0] |= {"workflow": to_json(flow), "short": "\x1b]0;owned\x07"}
    record["designs"][0]["executions"][0]["turns"][0]["reply"] = "\x1b[31m[red]reply[/red]\r\b"
    text = episode_text.render(record)
    assert not set(text) & set("\x1b\x07\r\b")
    assert "[red]reply[/red]" in text
    assert "[bold]x[/bold]" in text


def test_an_episode_that_nobody_can_grade_claims_no_verdict(capsys):
    record = workdir.episodes()[0]
    episode_text.show(record, graded=False)
    text = episode_text.render(record, graded=False)
    assert capsys.readouterr().out.split() == text.split()
    assert "Answer: 4" in text
    assert not any(word in text for word in ("right", "wrong", "reward"))


def test_every_kind_of_node_has_its_branch_in_the_tree():
    agent = ir.Agent
    nodes = (
        ir.Ensemble("e", (agent("m1"), agent("m2")), judge=agent("m3")),
        ir.Reflection("r", agent("m4"), agent("m5")),
        ir.Debate("d", (agent("m6"), agent("m7")), agent("m8")),
        ir.Router("o", (("left", agent("m9")), ("right", agent("n1"))), ir.AgentRule(agent("n2"))),
        ir.Loop("l", (agent("n3"),), ir.AnswerAgrees()),
        ir.Branch("b", ir.VerdictAccepts(), (agent("n4"),)),
        ir.Graph("g", (agent("n5"), agent("n6")), (ir.Edge("n5", "n6"),), "n5", ("n6",)),
        ir.Workflow("w", (agent("n7"),)),
    )
    console = terminal.terminal(stream := io.StringIO())
    console.print(episode_text.tree(to_json(ir.Workflow("all", nodes)), ""))
    for name in [f"m{i}" for i in range(1, 10)] + [f"n{i}" for i in range(1, 8)]:
        assert name in stream.getvalue()
