"""Every design can be drawn, and a drawing is well-formed whatever a model called its agents."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.report import graph
from metaagentx.report.records import to_json
from metaagentx.workflow import ir

A = ir.Agent
NODES = {
    "agent": A("one", "You add.", ("calculator",), task="4 - 1"),
    "equal ensemble": ir.Ensemble("team", tuple(A(f"m{i}") for i in range(5))),
    "ensemble": ir.Ensemble("team", (A("p"), A("q")), "weighted_vote", A("judge"), (1.0, 2.0)),
    "consensus": ir.Ensemble("team", (A("p"), A("q", "x")), "consensus", A("judge")),
    "self reflection": ir.Reflection("r", A("writer")),
    "reflection": ir.Reflection("r", A("writer"), A("critic"), 3),
    "debate": ir.Debate("d", (A("pro"), A("con")), A("judge"), 3),
    "keyword router": ir.Router("r", (("math", A("m")), ("code", A("c"))), ir.KeywordRule((("sum", "math"),)), "code"),
    "condition router": ir.Router("r", (("math", A("m")),), ir.ConditionRule(((ir.Contains("sum"), "math"),))),
    "agent router": ir.Router("r", (("math", A("m")), ("code", A("c"))), ir.AgentRule(A("chief"))),
    "loop": ir.Loop("l", (A("try"), A("check")), ir.AnyOf((ir.AnswerAgrees(), ir.Not(ir.Contains("again")))), 3),
    "branch": ir.Branch("b", ir.AllOf((ir.VerdictAccepts(), ir.Contains("x"))), (A("fix"),)),
    "graph": ir.Graph(
        "g",
        (A("plan"), A("code"), A("done"), A("test")),
        (
            ir.Edge("plan", "code"),
            ir.Edge("code", "test"),
            ir.Edge("test", "done", ir.Contains("PASS")),
            ir.Edge("test", "code"),
            ir.Edge("plan", "done", ir.VerdictAccepts()),
            ir.Edge("code", "code", ir.Contains("more")),
        ),
        "plan",
        ("done",),
    ),
    "workflow": ir.Workflow("inner", (A("s1"), A("s2"))),
}


def _texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("name", NODES)
def test_every_kind_of_node_is_drawn_with_all_its_agents(name):
    flow = to_json(ir.Workflow("w", (NODES[name], A("last"))))
    shown = " ".join(_texts(graph.draw(flow)))
    agents = set(re.findall(r"'type': 'Agent', 'name': '(\w+)'", str(flow)))
    agents = {a for a in agents if not re.fullmatch(r"m\d", a)} if name == "equal ensemble" else agents
    assert all(re.search(rf"\b{a}\b", shown) for a in agents)


def test_drawings_say_what_the_nodes_do():
    def shown(name):
        return " ".join(_texts(graph.draw(to_json(ir.Workflow("w", (NODES[name],))))))

    assert "4 - 1" in shown("agent")
    assert "calculator" in shown("agent")
    assert "×5" in shown("equal ensemble")
    assert "until answers agree or not “again”, at most 3×" in shown("loop")
    assert "“sum”" in shown("keyword router")
    assert "“PASS”" in shown("graph")


@pytest.mark.parametrize("name", NODES)
def test_nothing_is_drawn_outside_the_picture(name):
    root = ElementTree.fromstring(graph.draw(to_json(ir.Workflow("w", (NODES[name], A("last")))), style=False))
    left, top, width, height = (float(v) for v in root.attrib["viewBox"].split())

    def visit(element, x, y):
        shift = re.match(r"translate\((\S+) (\S+)\)", element.attrib.get("transform", ""))
        x, y = (x + float(shift[1]), y + float(shift[2])) if shift else (x, y)
        if "x" in element.attrib:
            assert left <= x + float(element.attrib["x"]) <= left + width
            assert top <= y + float(element.attrib["y"]) <= top + height
        if element.tag.endswith("rect"):
            assert x + float(element.attrib["x"]) + float(element.attrib["width"]) <= left + width
            assert y + float(element.attrib["y"]) + float(element.attrib["height"]) <= top + height
        for child in element:
            visit(child, x, y)

    visit(root, 0.0, 0.0)


def test_a_drawing_is_a_function_of_the_workflow_alone():
    flow = to_json(ir.Workflow("w", tuple(NODES.values())))
    assert graph.draw(flow) == graph.draw(flow)


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>&\"'a{}\n \x00\x1b\ud800\uffff"), max_size=60))
def test_hostile_names_and_tasks_stay_text(text):
    svg = graph.draw(
        to_json(ir.Workflow(text, (A(text, text, (text,), task=text), ir.Loop(text, (A("x"),), ir.Contains(text)))))
    )
    root = ElementTree.fromstring(svg)
    allowed = {"svg", "style", "g", "title", "rect", "text", "path", "polygon"}
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= allowed
