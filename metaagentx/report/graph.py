"""A design drawn as inline SVG, steps from left to right: a pure function of the workflow's JSON.

Every node becomes a `Box`: a picture with its size and the height at which lines enter at the left and leave at the
right. Boxes are put together into larger boxes; nothing needs to know where it will lie. A box of a kind:

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Json = Mapping[str, Any]

STYLE = """
svg.design{--card:#fff;--edge:#8a93a3;--ink:#1c2430;--soft:#667085;--task:#0f5fb8;--vote:#7a4bc4;--badge:#e8f3ec;--tool:#1c6b41;
font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){svg.design{--card:#20262f;--edge:#7d8797;--ink:#e8ebf0;--soft:#a0a9b8;--task:#7db7ff;--vote:#bb98f5;
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
svg.design .task{font:11.5px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;fill:var(--task)}
svg.design .tool{font-size:10.5px;fill:var(--tool)}
svg.design .votes{font-size:11.5px;fill:var(--vote);font-weight:600}
"""
STRATEGIES = {"majority_vote": "vote", "weighted_vote": "weighted vote", "consensus": "consensus"}
STEP = 34.0  # room for an arrow between two steps
ROW = 12.0  # room between two boxes, one above the other


@dataclass(frozen=True, slots=True)
class Box:
    """A picture of `width` x `height` pixels; lines enter and leave at height `axis`."""

    width: float
    height: float
    axis: float
    marks: str


def draw(workflow: Json, *, style: bool = True) -> str:
    """One <svg> element. `style`: hold the style sheet too; a page with many drawings holds `STYLE` once."""
    box = chain([_end("question"), *(_node(step) for step in workflow["steps"]), _end("answer")])
    sheet = f"<style>{STYLE}</style>" if style else ""
    return (
        f'<svg class="design" xmlns="http://www.w3.org/2000/svg" width="{box.width + 4:.0f}" height="{box.height + 4:.0f}"'
        f' viewBox="-2 -2 {box.width + 4:.0f} {box.height + 4:.0f}" role="img"'
        f' aria-label="design {escape(str(workflow["name"]))}">{sheet}{box.marks}</svg>'
    )


def condition(c: Json) -> str:
    """A condition as people say it."""
    match c["type"]:
        case "Contains":
            return f"“{_clip(c['text'], 20)}”"
        case "AnswerAgrees":
            return "answers agree"
        case "VerdictAccepts":
            return "verdict accepts"
        case "Not":
            return f"not {condition(c['condition'])}"
        case "AllOf":
            return _clip(" and ".join(condition(x) for x in c["conditions"]), 60)
        case "AnyOf":
            return _clip(" or ".join(condition(x) for x in c["conditions"]), 60)
    raise ValueError(f"unknown condition {c['type']!r}")


def _node(node: Json) -> Box:
    match node["type"]:
        case "Agent":
            return _agent(node)
        case "Ensemble":
            return _ensemble(node)
        case "Reflection":
            critic = _node(node["critic"]) if node["critic"] else _pill("own critic")
            return _back(chain([_node(node["agent"]), critic]), f"refine, at most {node['iterations']}×")
        case "Debate":
            rounds = _back(_rows([_node(d) for d in node["debaters"]]), f"debate, {node['rounds']} rounds")
            return chain([rounds, _node(node["judge"]) if node["judge"] else _pill("first decides")])
        case "Router":
            return _router(node)
        case "Loop":
            body = chain([_node(n) for n in node["body"]])
            until = f"until {condition(node['until'])}, at most {node['max_iterations']}×"
            return _framed(_back(body, until), f"loop {_clip(node['name'], 24)}")
        case "Branch":
            return _branch(node)
        case "Graph":
            return _framed(_graph(node), f"graph {_clip(node['name'], 24)}, at most {node['max_steps']} steps")
        case "Workflow":
            return _framed(chain([_node(n) for n in node["steps"]]), f"workflow {_clip(node['name'], 24)}")
    raise ValueError(f"unknown node {node['type']!r}")


def _agent(node: Json, *, copies: int = 1, double: bool = False) -> Box:
    """A card; `copies` equal agents are a stack of cards; `double`: a second border, where a graph may end."""
    name = _clip(node["name"], 26) + (f"  ×{copies}" if copies > 1 else "")
    asked = _clip(node["task"], 34) if node["task"] is not None else ""
    prompt = _clip(node["system_prompt"], 34) if not asked else ""
    tools = [_clip(tool, 18) for tool in node["tools"][:3]] + (["…"] if len(node["tools"]) > 3 else [])
    badges = [6.2 * len(tool) + 14 for tool in tools]
    width = max(72.0, 7.6 * len(name), 7.1 * len(asked), 6.1 * len(prompt), sum(badges) + 5 * len(badges)) + 22
    height = 30.0 + 18 * bool(asked or prompt) + 22 * bool(tools)
    shift = 4.0 * min(copies - 1, 2)
    hover = f"<title>{escape(_clip(node['system_prompt'], 400))}</title>" if node["system_prompt"] else ""
    parts = [f"<g>{hover}"]
    for i in range(min(copies - 1, 2), 0, -1):
        parts.append(_rect("card", 4.0 * i, shift - 4.0 * i, width, height))
    parts.append(_rect("card", 0, shift, width, height))
    if double:
        parts.append(_rect("card", 3, shift + 3, width - 6, height - 6, radius=5))
    y = shift + 20
    parts.append(_text("name", 11, y, name))
    if asked or prompt:
        y += 18
        parts.append(_text("task" if asked else "soft", 11, y, asked or prompt))
    x = 11.0
    for tool, size in zip(tools, badges, strict=True):
        parts.append(_rect("badge", x, y + 8, size, 16, radius=8) + _text("tool", x + 7, y + 19.5, tool))
        x += size + 5
    return Box(width + shift, height + shift, shift + height / 2, "".join(parts) + "</g>")


def _ensemble(node: Json) -> Box:
    members = node["agents"]
    bare = [{k: v for k, v in member.items() if k != "name"} for member in members]
    vote = _pill(STRATEGIES.get(node["strategy"], node["strategy"]))
    equal = len(members) > 1 and all(b == bare[0] for b in bare) and members[0]["type"] == "Agent"
    if equal and not node["weights"]:
        shown = _agent(members[0] | {"name": _clip(node["name"], 20)}, copies=len(members))
    else:
        weights = [f"{w:g}" for w in node["weights"] or ()]
        shown = _rows([_node(member) for member in members], after=weights)
    judge = [_node(node["judge"])] if node["judge"] else []
    labels = ["", "always" if node["strategy"] == "consensus" else "if split"] if judge else None
    return chain([shown, vote, *judge], labels=labels)


def _router(node: Json) -> Box:
    rule = node["rule"]
    words: dict[str, list[str]] = {}
    match rule["type"]:
        case "KeywordRule":
            asks = _pill("by keyword")
            for keyword, route in rule["keywords"]:
                words.setdefault(route, []).append(f"“{_clip(keyword, 14)}”")
        case "ConditionRule":
            asks = _pill("by condition")
            for case, route in rule["cases"]:
                words.setdefault(route, []).append(condition(case))
        case _:
            asks = chain([_agent(rule["agent"]), _pill("chooses")])
    labels = []
    for name, _ in node["routes"]:
        text = _clip(", ".join(words.get(name, [name])), 32)
        labels.append(text + (" (else)" if name == node["default"] else ""))
    return _side([asks, _rows([_node(route) for _, route in node["routes"]], before=labels)])


def _branch(node: Json) -> Box:
    """The condition, then the body; whoever fails the condition goes around, below."""
    test = _pill(f"if {condition(node['condition'])}")
    inner = chain([test, *(_node(n) for n in node["body"])])
    bottom = inner.height + 14
    path = _wire(
        f"M{test.width / 2:.1f} {inner.axis + 13:.1f}V{bottom - 8:.1f}q0 8 8 8H{inner.width + 6:.1f}q8 0 8 -8V{inner.axis:.1f}"
    )
    out = _wire(f"M{inner.width:.1f} {inner.axis:.1f}H{inner.width + 20:.1f}")
    text = _text("label", test.width / 2 + 12, bottom - 5, "else")
    return Box(inner.width + 20, bottom + 2, inner.axis, inner.marks + path + out + text)


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
    parts = [_place(box, left, head + axis - box.axis) for box, left in zip(boxes, lefts, strict=True)]
    line = head + axis
    for a, b, text in edges:
        if b == a + 1:
            start = lefts[a] + boxes[a].width
            parts.append(_arrow(start, line, lefts[b], line))
            parts.append(_text("label mid", (start + lefts[b] - 4) / 2, line - 6, text))
    used: dict[tuple[int, str], int] = {}

    def port(i: int, side: str) -> float:
        """Where the next line leaves (right half) or enters (left half) box i: no two at one point."""
        used[i, side] = n = used.get((i, side), -1) + 1
        return lefts[i] + boxes[i].width * (0.58 + 0.1 * (n % 4) if side == "out" else 0.42 - 0.1 * (n % 4))

    for level, (a, b, text) in enumerate(above):
        y = head - 6 - 24.0 * level
        start, stop = port(a, "out"), port(b, "in")
        parts.append(_detour(start, line - boxes[a].axis, stop, line - boxes[b].axis, y, text))
    for level, (a, b, text) in enumerate(below):
        y = line + foot + 14 + 24.0 * level
        start, stop = port(a, "out"), port(b, "in")
        ends = (line - boxes[i].axis + boxes[i].height for i in (a, b))
        parts.append(_detour(start, next(ends), stop, next(ends), y, text))
        width = max(width, (start + stop) / 2 + 3.2 * len(text))
    return Box(width, line + foot + 24.0 * len(below), line, "".join(parts))


def chain(boxes: Sequence[Box], labels: Sequence[str] | None = None) -> Box:
    """One after the other, joined by arrows; labels[i] stands over the arrow from box i to the next."""
    names = labels or [""] * len(boxes)
    gaps = [max(STEP, 6.0 * len(name) + 18 if name else 0) for name in names[: len(boxes) - 1]]
    placed = _side(boxes, gaps)
    x, parts = 0.0, [placed.marks]
    for box, gap, name in zip(boxes, gaps, names, strict=False):
        x += box.width
        parts.append(_arrow(x, placed.axis, x + gap, placed.axis))
        if name:
            parts.append(_text("label mid", x + gap / 2 - 2, placed.axis - 6, name))
        x += gap
    return Box(placed.width, placed.height, placed.axis, "".join(parts))


def _side(boxes: Sequence[Box], gaps: Sequence[float] | None = None) -> Box:
    """One after the other on one axis."""
    axis = max(box.axis for box in boxes)
    x, parts = 0.0, []
    for box, gap in zip(boxes, [*(gaps or [0.0] * (len(boxes) - 1)), 0.0], strict=True):
        parts.append(_place(box, x, axis - box.axis))
        x += box.width + gap
    return Box(x, axis + max(box.height - box.axis for box in boxes), axis, "".join(parts))


def _rows(boxes: Sequence[Box], before: Sequence[str] = (), after: Sequence[str] = ()) -> Box:
    """One above the other between two points, with labels on the lines in and out."""
    left = max([24.0, *(6.1 * len(text) + 34 for text in before)])
    right = max([24.0, *(6.1 * len(text) + 30 for text in after)])
    inner = max(box.width for box in boxes)
    height = sum(box.height for box in boxes) + ROW * (len(boxes) - 1)
    axis, y, parts = height / 2, 0.0, []
    for i, box in enumerate(boxes):
        line = y + box.axis
        parts.append(_place(box, left, y))
        parts.append(_wire(f"M0 {axis:.1f}C12 {axis:.1f} 8 {line:.1f} 20 {line:.1f}H{left - 5:.1f}") + _head(left, line, 1, 0))
        end = left + inner
        parts.append(
            _wire(
                f"M{left + box.width:.1f} {line:.1f}H{end + right - 20:.1f}C{end + right - 8:.1f} {line:.1f}"
                f" {end + right - 12:.1f} {axis:.1f} {end + right:.1f} {axis:.1f}"
            )
        )
        if i < len(before):
            parts.append(_text("label", 24, line - 5, before[i]))
        if i < len(after):
            parts.append(_text("label", end + 6, line - 5, after[i]))
        y += box.height + ROW
    return Box(left + inner + right, height, axis, "".join(parts))


def _back(box: Box, text: str) -> Box:
    """A line below that leads from the end of the box to its start."""
    width = max(box.width, 6.1 * len(text) + 60)
    x, y = (width - box.width) / 2, box.height + 12
    wires = "".join(
        _wire(f"M{a:.1f} {box.axis:.1f}H{b:.1f}") for a, b in ((0, x), (x + box.width, width)) if x > 0
    )
    label = _text("label mid", width / 2, y + 14, text)
    pad = 18.0
    ends = _wire(f"M0 {box.axis:.1f}H{pad:.1f}") + _wire(f"M{width + pad:.1f} {box.axis:.1f}H{width + 2 * pad:.1f}")
    loop = f'<g transform="translate({pad:.1f} 0)">{_shift(box.marks, x, 0)}{wires}{label}</g>'
    total = width + 2 * pad
    path = _wire(f"M{total - 9:.1f} {box.axis:.1f}V{y - 8:.1f}q0 8 -8 8H17q-8 0 -8 -8V{box.axis + 5:.1f}")
    return Box(total, y + 18, box.axis, loop + ends + path + _head(9, box.axis, 0, -1))


def _framed(box: Box, title: str) -> Box:
    """A dashed frame with a title."""
    width = max(box.width, 6.2 * len(title)) + 24
    x = (width - box.width) / 2
    marks = _rect("frame", 0, 0, width, box.height + 34, radius=9) + _text("label", 12, 15, title)
    axis = box.axis + 24
    ends = _wire(f"M0 {axis:.1f}H{x:.1f}") + _wire(f"M{x + box.width:.1f} {axis:.1f}H{width:.1f}")
    return Box(width, box.height + 34, axis, marks + _shift(box.marks, x, 24) + ends)


def _pill(text: str) -> Box:
    width = 6.9 * len(text) + 22
    return Box(width, 26, 13, _rect("pill", 0, 0, width, 26, radius=13) + _text("votes mid", width / 2, 17, text))


def _end(text: str) -> Box:
    width = 6.6 * len(text) + 18
    return Box(width, 24, 12, _rect("end", 0, 0, width, 24, radius=12) + _text("soft mid", width / 2, 16, text))


def _detour(x0: float, y0: float, x1: float, y1: float, level: float, text: str) -> str:
    """A line from (x0, y0) to (x1, y1) by way of the height `level`, above or below both."""
    up = -1 if level < y0 else 1
    side = 1 if x1 >= x0 else -1
    path = (
        f"M{x0:.1f} {y0:.1f}V{level - 6 * up:.1f}Q{x0:.1f} {level:.1f} {x0 + 6 * side:.1f} {level:.1f}"
        f"H{x1 - 6 * side:.1f}Q{x1:.1f} {level:.1f} {x1:.1f} {level - 6 * up:.1f}V{y1 + 5 * up:.1f}"
    )
    return _wire(path) + _head(x1, y1, 0, -up) + _text("label mid", (x0 + x1) / 2, level + (-5 if up < 0 else 13), text)


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return _wire(f"M{x0:.1f} {y0:.1f}L{x1 - 5:.1f} {y1:.1f}") + _head(x1, y1, 1, 0)


def _head(x: float, y: float, dx: int, dy: int) -> str:
    """An arrow's head with its tip at (x, y)."""
    points = [(x, y), (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx)]
    return f'<polygon class="head" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def _wire(path: str) -> str:
    return f'<path class="wire" d="{path}"/>'


def _rect(kind: str, x: float, y: float, width: float, height: float, *, radius: float = 7) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' if text else ""


def _place(box: Box, x: float, y: float) -> str:
    return _shift(box.marks, x, y)


def _shift(marks: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{marks}</g>' if x or y else marks


def _clip(text: str, limit: int) -> str:
    """At most `limit` characters on one line."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
