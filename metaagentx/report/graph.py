"""A design drawn as inline SVG, steps from left to right: a pure function of the workflow's JSON.

Every node becomes a `Box`, and boxes are put together into larger boxes; nothing needs to know where it will lie:

    agent       a card: name, what it is asked (its task), its tools as badges
    ensemble    members one above the other, or one stack of equal cards, into a vote; a judge behind it
    reflection  agent and critic, with a line back
    debate      debaters one above the other, with a line back for its rounds, into a judge
    router      a rule, one line a route
    loop        its body in a frame, with a line back
    branch      its condition, the body, and a line around it
    graph       nodes in a row; edges that skip forward above, edges that lead back below
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from metaagentx.report.boxes import (
    STEP,
    Box,
    arrow,
    back,
    chain,
    clip,
    detour,
    endpoint,
    framed,
    label,
    moved,
    pill,
    rect,
    rows,
    side,
    wire,
)

Json = Mapping[str, Any]

STYLE = """
svg.design{--halo:#fff;--card:#fff;--edge:#8a93a3;--ink:#1c2430;--soft:#667085;--task:#0f5fb8;--vote:#7a4bc4;--badge:#e8f3ec;
--tool:#1c6b41;
font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){svg.design{--halo:#12161c;--card:#20262f;--edge:#7d8797;--ink:#e8ebf0;--soft:#a0a9b8;
--task:#7db7ff;--vote:#bb98f5;
--badge:#1d3a2b;--tool:#8fdcb0}}
svg.design .card{fill:var(--card);stroke:var(--edge);stroke-width:1.2}
svg.design .frame{fill:none;stroke:var(--edge);stroke-width:1;stroke-dasharray:4 3}
svg.design .wire{fill:none;stroke:var(--edge);stroke-width:1.3}
svg.design .head{fill:var(--edge);stroke:none}
svg.design .pill{fill:none;stroke:var(--vote);stroke-width:1.3}
svg.design .end{fill:var(--edge);fill-opacity:.14;stroke:none}
svg.design .badge{fill:var(--badge);stroke:none}
svg.design text{font-size:12.5px;fill:var(--ink)}
svg.design .name{font-weight:600}
svg.design .mid{text-anchor:middle}
svg.design .soft,svg.design .label{font-size:11px;fill:var(--soft)}
svg.design .label{paint-order:stroke;stroke:var(--halo);stroke-width:3px;stroke-linejoin:round}
svg.design .task{font:11.5px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;fill:var(--task)}
svg.design .tool{font-size:10.5px;fill:var(--tool)}
svg.design .votes{font-size:11.5px;fill:var(--vote);font-weight:600}
"""
STRATEGIES = {"majority_vote": "vote", "weighted_vote": "weighted vote", "consensus": "consensus"}


def draw(workflow: Json, *, style: bool = True) -> str:
    """One <svg> element. `style`: hold the style sheet too; a page with many drawings holds `STYLE` once."""
    box = chain([endpoint("question"), *(_node(step) for step in workflow["steps"]), endpoint("answer")])
    width, height = box.width + 4, box.height + 4
    sheet = f"<style>{STYLE}</style>" if style else ""
    return (
        f'<svg class="design" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="-2 -2 {width:.0f} {height:.0f}" role="img"'
        f' aria-label="design {escape(clip(workflow["name"], 80))}">{sheet}{box.marks}</svg>'
    )


def condition(c: Json) -> str:
    """A condition as people say it."""
    match c["type"]:
        case "Contains":
            return f"“{clip(c['text'], 20)}”"
        case "AnswerAgrees":
            return "answers agree"
        case "VerdictAccepts":
            return "verdict accepts"
        case "Not":
            return f"not {condition(c['condition'])}"
        case "AllOf":
            return clip(" and ".join(condition(x) for x in c["conditions"]), 60)
        case "AnyOf":
            return clip(" or ".join(condition(x) for x in c["conditions"]), 60)
    raise ValueError(f"unknown condition {c['type']!r}")


def _node(node: Json) -> Box:
    match node["type"]:
        case "Agent":
            return _agent(node)
        case "Ensemble":
            return _ensemble(node)
        case "Reflection":
            critic = _node(node["critic"]) if node["critic"] else pill("own critic")
            return back(chain([_node(node["agent"]), critic]), f"refine, at most {node['iterations']}×")
        case "Debate":
            rounds = back(rows([_node(d) for d in node["debaters"]]), f"debate, {node['rounds']} rounds")
            return chain([rounds, _node(node["judge"]) if node["judge"] else pill("first decides")])
        case "Router":
            return _router(node)
        case "Loop":
            body = chain([_node(n) for n in node["body"]])
            until = f"until {condition(node['until'])}, at most {node['max_iterations']}×"
            return framed(back(body, until), f"loop {clip(node['name'], 24)}")
        case "Branch":
            return _branch(node)
        case "Graph":
            return framed(_graph(node), f"graph {clip(node['name'], 24)}, at most {node['max_steps']} steps")
        case "Workflow":
            return framed(chain([_node(n) for n in node["steps"]]), f"workflow {clip(node['name'], 24)}")
    raise ValueError(f"unknown node {node['type']!r}")


def _agent(node: Json, *, copies: int = 1, double: bool = False) -> Box:
    """A card; `copies` equal agents are a stack of cards; `double`: a second border, where a graph may end."""
    name = clip(node["name"], 26) + (f"  ×{copies}" if copies > 1 else "")
    asked = clip(node["task"], 34) if node["task"] is not None else ""
    prompt = clip(node["system_prompt"], 34) if not asked else ""
    tools = [clip(tool, 18) for tool in node["tools"][:3]] + (["…"] if len(node["tools"]) > 3 else [])
    badges = [6.2 * len(tool) + 14 for tool in tools]
    width = max(72.0, 7.6 * len(name), 7.1 * len(asked), 6.1 * len(prompt), sum(badges) + 5 * len(badges)) + 22
    height = 30.0 + 18 * bool(asked or prompt) + 22 * bool(tools)
    shift = 4.0 * min(copies - 1, 2)
    hover = f"<title>{escape(clip(node['system_prompt'], 400))}</title>" if node["system_prompt"] else ""
    parts = [f"<g>{hover}"]
    for i in range(min(copies - 1, 2), 0, -1):
        parts.append(rect("card", 4.0 * i, shift - 4.0 * i, width, height))
    parts.append(rect("card", 0, shift, width, height))
    if double:
        parts.append(rect("card", 3, shift + 3, width - 6, height - 6, radius=5))
    y = shift + 20
    parts.append(label("name", 11, y, name))
    if asked or prompt:
        y += 18
        parts.append(label("task" if asked else "soft", 11, y, asked or prompt))
    x = 11.0
    for tool, size in zip(tools, badges, strict=True):
        parts.append(rect("badge", x, y + 8, size, 16, radius=8) + label("tool", x + 7, y + 19.5, tool))
        x += size + 5
    return Box(width + shift, height + shift, shift + height / 2, "".join(parts) + "</g>")


def _ensemble(node: Json) -> Box:
    members = node["agents"]
    bare = [{k: v for k, v in member.items() if k != "name"} for member in members]
    vote = pill(STRATEGIES[node["strategy"]])
    equal = len(members) > 1 and all(b == bare[0] for b in bare) and members[0]["type"] == "Agent"
    if equal and not node["weights"]:
        shown = _agent(members[0] | {"name": clip(node["name"], 20)}, copies=len(members))
    else:
        weights = [f"{w:g}" for w in node["weights"] or ()]
        shown = rows([_node(member) for member in members], after=weights)
    judge = [_node(node["judge"])] if node["judge"] else []
    labels = ["", "always" if node["strategy"] == "consensus" else "if split"] if judge else None
    return chain([shown, vote, *judge], labels=labels)


def _router(node: Json) -> Box:
    rule = node["rule"]
    words: dict[str, list[str]] = {}
    match rule["type"]:
        case "KeywordRule":
            asks = pill("by keyword")
            for keyword, route in rule["keywords"]:
                words.setdefault(route, []).append(f"“{clip(keyword, 14)}”")
        case "ConditionRule":
            asks = pill("by condition")
            for case, route in rule["cases"]:
                words.setdefault(route, []).append(condition(case))
        case _:
            asks = chain([_agent(rule["agent"]), pill("chooses")])
    labels = []
    for name, _ in node["routes"]:
        text = clip(", ".join(words.get(name, [name])), 32)
        labels.append(text + (" (else)" if name == node["default"] else ""))
    return side([asks, rows([_node(route) for _, route in node["routes"]], before=labels)])


def _branch(node: Json) -> Box:
    """The condition, then the body; whoever fails the condition goes around, below."""
    test = pill(f"if {condition(node['condition'])}")
    inner = chain([test, *(_node(n) for n in node["body"])])
    bottom = inner.height + 14
    end = inner.width + 6
    path = wire(
        f"M{test.width / 2:.1f} {inner.axis + 13:.1f}V{bottom - 8:.1f}q0 8 8 8H{end:.1f}q8 0 8 -8V{inner.axis:.1f}"
    )
    out = wire(f"M{inner.width:.1f} {inner.axis:.1f}H{inner.width + 20:.1f}")
    other = label("label", test.width / 2 + 12, bottom - 5, "else")
    return Box(inner.width + 20, bottom + 2, inner.axis, inner.marks + path + out + other)


def _graph(node: Json) -> Box:
    """Nodes in a row in the order in which edges reach them; skips arc above, returns below, labels on the arcs."""
    nodes = {n["name"]: n for n in node["nodes"]}
    finish = set(node["finish"])
    order = [node["entry"]] if node["entry"] in nodes else []
    for name in order:
        order += [e["target"] for e in node["edges"] if e["source"] == name and e["target"] in {*nodes} - {*order}]
    order = list(dict.fromkeys(order + list(nodes)))
    order.sort(key=lambda name: name in finish and name != node["entry"])
    boxes = [_agent(nodes[n], double=n in finish) if nodes[n]["type"] == "Agent" else _node(nodes[n]) for n in order]
    at = {name: i for i, name in enumerate(order)}
    edges = [
        (at[e["source"]], at[e["target"]], condition(e["condition"]) if e["condition"] else "")
        for e in node["edges"]
        if e["source"] in at and e["target"] in at
    ]
    gaps = [
        max([STEP, *(6.2 * len(text) + 20 for a, b, text in edges if a == i and b == i + 1)]) for i in range(len(boxes))
    ]
    axis = max(b.axis for b in boxes)
    foot = max(b.height - b.axis for b in boxes)
    x, lefts = 0.0, []
    for box, gap in zip(boxes, gaps, strict=True):
        lefts.append(x)
        x += box.width + gap
    width = x - gaps[-1]
    above = sorted((e for e in edges if e[1] > e[0] + 1), key=lambda e: e[1] - e[0])
    below = sorted((e for e in edges if e[1] <= e[0]), key=lambda e: e[0] - e[1])
    head = 24.0 * len(above) + (6 if above else 0)
    parts = [moved(box.marks, left, head + axis - box.axis) for box, left in zip(boxes, lefts, strict=True)]
    line = head + axis
    for a, b, text in edges:
        if b == a + 1:
            start = lefts[a] + boxes[a].width
            parts.append(arrow(start, line, lefts[b], line))
            parts.append(label("label mid", (start + lefts[b] - 4) / 2, line - 6, text))
    used: dict[tuple[int, str], int] = {}

    def port(i: int, way: str) -> float:
        """Where the next line leaves (right half) or enters (left half) box i: no two at one point."""
        used[i, way] = n = used.get((i, way), -1) + 1
        return lefts[i] + boxes[i].width * (0.58 + 0.1 * (n % 4) if way == "out" else 0.42 - 0.1 * (n % 4))

    for level, (a, b, text) in enumerate(above):
        y = head - 6 - 24.0 * level
        start, stop = port(a, "out"), port(b, "in")
        parts.append(detour(start, line - boxes[a].axis, stop, line - boxes[b].axis, y, text))
    for level, (a, b, text) in enumerate(below):
        y = line + foot + 14 + 24.0 * level
        start, stop = port(a, "out"), port(b, "in")
        ends = (line - boxes[i].axis + boxes[i].height for i in (a, b))
        parts.append(detour(start, next(ends), stop, next(ends), y, text))
        width = max(width, (start + stop) / 2 + 3.2 * len(text))
    return Box(width, line + foot + 24.0 * len(below), line, "".join(parts))
