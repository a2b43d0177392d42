"""Hostile texts made from honest ones: tokens, lines and bytes changed, texts spliced, nested, grown and unrolled."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.workflow.fragments import BLOCKS, BRACKETS, NUMBERS, ODD, SIGNS, STATEMENTS

LONGEST = 70_000  # characters of a mutated text: a little more than a script may have

_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_NUMBER = re.compile(r"\b\d+\b")
_STRING = re.compile(r'"[^"\n]*"|\'[^\'\n]*\'')


@dataclass(frozen=True, slots=True)
class Corpus:
    """What mutations begin with: `texts` to change, and their `pieces` to put in."""

    texts: Sequence[str]
    pieces: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Corpus:
        return cls(texts, sorted({piece for text in texts for piece in _PIECE.findall(text)}))


Change = Callable[[random.Random, str, Corpus], str]


def mutate(rng: random.Random, corpus: Corpus) -> str:
    """One text of the corpus after one to eight changes."""
    text = rng.choice(corpus.texts)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        text = rng.choice(CHANGES)(rng, text, corpus)[:LONGEST]
    return text


def _span(rng: random.Random, text: str, longest: int = 40) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.randint(0, longest))


def _put(rng: random.Random, text: str, new: str, longest: int = 4) -> str:
    start, end = _span(rng, text, longest)
    return text[:start] + new + text[end:]


def _tokens(rng: random.Random, text: str, corpus: Corpus) -> str:
    """Tokens dropped, doubled, swapped or taken from elsewhere."""
    pieces = _PIECE.findall(text)
    if not pieces:
        return rng.choice(corpus.pieces)
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        new = rng.choice(corpus.pieces if rng.random() < 0.5 else SIGNS)
        match rng.randrange(5):
            case 0:
                pieces[at] = new
            case 1:
                pieces[at] += new
            case 2:
                pieces[at] = ""
            case 3:
                pieces[at] *= 2
            case 4:
                pieces[at], pieces[other] = pieces[other], pieces[at]
    return "".join(pieces)


def _lines(rng: random.Random, text: str, corpus: Corpus) -> str:
    """Lines dropped, doubled, moved, indented or added."""
    lines = text.split("\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = rng.choice((" ", "    ", "\t")) + lines[at]
        case 4:
            lines.insert(at, rng.choice(STATEMENTS))
        case 5:
            lines.insert(at, rng.choice(rng.choice(corpus.texts).split("\n")))
    return "\n".join(lines)


def _bytes(rng: random.Random, text: str, corpus: Corpus) -> str:
    """Bits flipped in the UTF-8 bytes; what is no longer UTF-8 becomes lone surrogates."""
    data = bytearray(text.encode(errors="replace"))
    for _ in range(rng.randint(1, 4)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data.decode(errors=rng.choice(("replace", "surrogateescape")))


def _splice(rng: random.Random, text: str, corpus: Corpus) -> str:
    """The beginning of one text and the end of another."""
    other = rng.choice(corpus.texts)
    return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]


def _cut(rng: random.Random, text: str, corpus: Corpus) -> str:
    start, end = _span(rng, text, rng.choice((4, 40, 400)))
    return text[:start] + text[end:]


def _nest(rng: random.Random, text: str, corpus: Corpus) -> str:
    """A span inside many brackets, or many brackets that are not closed."""
    start, end = _span(rng, text)
    before, after = rng.choice(BRACKETS)
    depth = rng.choice((1, 2, 5, 15, 16, 17, 30, 90, 100, 200, 201, 1000))
    closed = rng.choice((depth, depth, depth, 0, depth - 1))
    return text[:start] + before * depth + text[start:end] + after * closed + text[end:]


def _literal(rng: random.Random, text: str, corpus: Corpus) -> str:
    """A number or a string of the text becomes an extreme one."""
    pattern, new = (
        (_NUMBER, rng.choice(NUMBERS))
        if rng.random() < 0.5
        else (_STRING, repr(rng.choice((*ODD, *SIGNS)) * rng.choice((0, 1, 9, 999))))
    )
    found = list(pattern.finditer(text))
    if not found:
        return _put(rng, text, new)
    match = rng.choice(found)
    return text[: match.start()] + new + text[match.end() :]


def _odd(rng: random.Random, text: str, corpus: Corpus) -> str:
    return _put(rng, text, rng.choice(ODD) * rng.choice((1, 1, 1, 3, 100)))


def _sign(rng: random.Random, text: str, corpus: Corpus) -> str:
    return _put(rng, text, rng.choice(SIGNS) * rng.choice((1, 1, 1, 2, 10)))


def _grow(rng: random.Random, text: str, corpus: Corpus) -> str:
    """A span, line or statement many times over."""
    times = rng.choice((2, 3, 8, 17, 65, 300, 2000))
    if rng.random() < 0.5:
        start, end = _span(rng, text, rng.choice((1, 4, 40)))
        return text[:start] + text[start:end] * times + text[end:]
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    line = lines[at] if rng.random() < 0.5 else rng.choice(STATEMENTS)
    return "\n".join((*lines[:at], *[line] * times, *lines[at:]))


def _block(rng: random.Random, text: str, corpus: Corpus) -> str:
    """Lines put under a block, perhaps several deep."""
    lines = text.split("\n")
    start, end = _span(rng, "\n" * len(lines), 12)
    depth = rng.choice((1, 1, 2, 3, 16, 40))
    heads = [" " * level + rng.choice(BLOCKS) for level in range(depth)]
    return "\n".join((*lines[:start], *heads, *(" " * depth + line for line in lines[start:end]), *lines[end:]))


def _wrap(rng: random.Random, text: str, corpus: Corpus) -> str:
    """The text as part of a response."""
    before, after = rng.choice(
        (
            ("<code>\n", "\n</code>"),
            ("<think>a</think><code>```python\n", "\n```</code>"),
            ("```python\n", "\n```"),
            ("<code><code>", "</code>" * rng.choice((1, 9))),
            ("Here it is.\n", "\nThat is all, isn't it?"),
            ("<tool_call>", "</tool_call>"),
            ("<answer>", "</answer>"),
            ("<solution>\n```python\n", "\n```\n</solution>"),
        )
    )
    return before + text + after


CHANGES: tuple[Change, ...] = (
    *(_tokens, _tokens, _tokens, _tokens, _lines, _lines, _lines, _literal, _literal, _sign, _sign),
    *(_bytes, _splice, _cut, _nest, _odd, _grow, _block, _wrap),
)
