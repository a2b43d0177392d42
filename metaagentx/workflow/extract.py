"""From a response to the scripts that it may hold, the likeliest first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from metaagentx.workflow.ir import Diagnosis
from metaagentx.workflow.tree import syntax

MAX_RESPONSE = 256 * 1024  # bytes
MAX_CANDIDATES = 8
MAX_REPEATED = 2
MAX_CUTS = 3  # how often a text without fences is cut before a line that is no Python

_THINK = re.compile(r"<(/?)think>", re.IGNORECASE)
_CODE = re.compile(r"<(/?)code>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```[^`\n]*$", re.MULTILINE)
_IMPORT = re.compile(r"\bfrom[ \t]+workflow[\w.]*[ \t]+import\b")


def without_thinking(response: str) -> str:
    """`response` without its `<think>` ... `</think>` parts.

    A closing tag without an opening one ends a part that began with the prompt; a part that opens the response and
    never closes is all there is.
    """
    kept: list[str] = []
    position, opened = 0, -1
    for tag in _THINK.finditer(response):
        if not tag[1]:
            opened = tag.start() if opened < 0 else opened
        elif opened >= 0:
            kept.append(response[position:opened])
            position, opened = tag.end(), -1
        elif not kept and position == 0:
            position = tag.end()
    if opened >= 0 and not "".join((*kept, response[position:opened])).strip():
        return ""
    return "".join((*kept, response[position:]))


def candidates(text: str) -> list[str]:
    """The scripts that `text` (without its thinking) may hold, at most `MAX_CANDIDATES`, without repetition.

    `<code>` blocks from last to first, then fenced blocks from last to first, then what follows the first import.
    Blocks may lie within each other: beyond the first, all together are at most `MAX_REPEATED` times as long as `text`.
    """
    found: list[str] = []
    room = MAX_REPEATED * len(text)
    for script in chain(_code_blocks(text), _fenced_blocks(text), _imported(text)):
        if not script.strip() or script in found:
            continue
        room -= len(script)
        if room < 0 and found:
            break
        found.append(script)
        if len(found) == MAX_CANDIDATES:
            break
    return found


def _code_blocks(text: str) -> Iterator[str]:
    """For each `<code>`, what it holds up to the next `</code>`, then up to the last one: prompts may name the tag."""
    tags = list(_CODE.finditer(text))[-4 * MAX_CANDIDATES :]
    closing = [tag.start() for tag in tags if tag[1]]
    for tag in reversed(tags):
        if tag[1]:
            continue
        ends = [end for end in closing if end > tag.start()] or [len(text)]
        for end in dict.fromkeys((ends[0], ends[-1])):
            yield from _inside(text[tag.end() : end])


def _inside(block: str) -> Iterator[str]:
    """The fenced script of a `<code>` block, up to its last fence, or the block itself where it has no fence."""
    opening = _FENCE.search(block)
    if opening is None:
        yield block.removeprefix("\n")
        return
    if _IMPORT.search(block, 0, opening.start()):  # the fences belong to its prompts
        yield block.removeprefix("\n")
        return
    closing = block.rfind("```")
    end = closing if closing >= opening.end() else len(block)
    yield block[opening.end() + 1 : end]


def _fenced_blocks(text: str) -> Iterator[str]:
    """The fenced blocks from last to first, then all from the first fence to the last: prompts may hold fences."""
    fences = list(_FENCE.finditer(text))
    if not fences:
        return
    recent = fences if len(fences) < 4 * MAX_CANDIDATES else fences[len(fences) % 2 :][-4 * MAX_CANDIDATES :]
    pairs = list(zip(recent[::2], [*recent[1::2], None], strict=False))
    for opening, closing in reversed(pairs):
        yield text[opening.end() + 1 : len(text) if closing is None else closing.start()]
    yield text[fences[0].end() + 1 : fences[-1].start()]


def _imported(text: str) -> Iterator[str]:
    """The text from the first import of `workflow` up to the last line with which it is still Python."""
    start = _IMPORT.search(text)
    if start is None:
        return
    whole = text[start.start() :]
    lines = whole.split("\n")
    for _ in range(MAX_CUTS):
        fault, _ = syntax("\n".join(lines))
        if not isinstance(fault, Diagnosis):
            yield "\n".join(lines)
            return
        lines = lines[: fault.line - 1]
        if not lines:
            break
    yield whole
