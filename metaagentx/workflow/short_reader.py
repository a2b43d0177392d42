"""The characters of a short form: a cursor that reads names, strings and numbers and knows its column."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from metaagentx.workflow.ir import Diagnosis, Refusal, brief

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:#[0-9]+)*")
_INTEGER = re.compile(r"-?[0-9]{1,9}(?![0-9])")
_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?")
_SPACE = re.compile(r"[ \t]*")
_PARENTHESIS = re.compile(r"[()\n\r]")
_STRING = json.JSONDecoder()


class Refused(Exception):
    """A short form that is refused, on its way out of the reader."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


class Reader:
    """Reads a text from left to right, once. Positions count from 0, columns of a diagnosis from 1."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def refuse(self, refusal: Refusal, message: str, at: int | None = None) -> NoReturn:
        """Refuse the text at position `at` (default: here)."""
        raise Refused(Diagnosis(refusal, brief(message), 1, (self.at if at is None else at) + 1))

    def skip(self) -> int:
        """Pass over white space; returns the position after it."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def sees(self, token: str) -> bool:
        """Whether `token` comes next, after white space."""
        return self.text.startswith(token, self.skip())

    def takes(self, token: str) -> bool:
        """Read `token` if it comes next."""
        if self.sees(token):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str, what: str) -> None:
        """Read `token`, which is needed for `what`."""
        if not self.takes(token):
            self.refuse(Refusal.SYNTAX, f"{token!r} is expected {what}, not {self.next_piece()}")

    def next_piece(self) -> str:
        """What comes next, for a message."""
        piece = self.text[self.at : self.at + 12]
        return repr(piece) if piece else "the end"

    def done(self) -> bool:
        """Whether nothing is left."""
        return self.skip() == len(self.text)

    def name(self, what: str) -> str:
        """A bare name or one in quotes."""
        if self.sees('"'):
            return self.string(what)
        match = _NAME.match(self.text, self.at)
        if match is None:
            self.refuse(Refusal.SYNTAX, f"{what} is expected, not {self.next_piece()}")
        self.at = match.end()
        return match[0]

    def string(self, what: str) -> str:
        """A string with the escapes of JSON."""
        if not self.sees('"'):
            self.refuse(Refusal.SYNTAX, f"{what} is expected in double quotes, not {self.next_piece()}")
        try:
            value, self.at = _STRING.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            self.refuse(Refusal.SYNTAX, f"a string with JSON escapes is expected ({error.msg})", error.pos)
        return str(value)

    def integer(self, what: str) -> int:
        match = _INTEGER.match(self.text, self.skip())
        if match is None:
            self.refuse(Refusal.SYNTAX, f"{what} is expected as an integer, not {self.next_piece()}")
        self.at = match.end()
        return int(match[0])

    def number(self, what: str) -> float:
        match = _NUMBER.match(self.text, self.skip())
        if match is None:
            self.refuse(Refusal.SYNTAX, f"{what} is expected as a number, not {self.next_piece()}")
        self.at = match.end()
        return float(match[0])

    def raw(self, opened: int) -> str:
        """The text up to the parenthesis that closes the one at position `opened`, and that parenthesis."""
        start, depth = self.at, 1
        for match in _PARENTHESIS.finditer(self.text, start):
            if match[0] in "\n\r":
                self.refuse(Refusal.SYNTAX, "a line break is written \\n, in a quoted string", match.start())
            depth += 1 if match[0] == "(" else -1
            if depth == 0:
                self.at = match.end()
                break
        else:
            self.refuse(Refusal.SYNTAX, "this parenthesis is never closed", opened)
        return self.text[start : self.at - 1]


def quoted(text: str) -> str:
    """`text` as a string that reads back, on one line."""
    plain = json.dumps(text, ensure_ascii=False)
    return plain if plain.isprintable() else json.dumps(text)


def is_bare(name: str) -> bool:
    """Whether a name needs no quotes."""
    return _NAME.fullmatch(name) is not None


def named(name: str) -> str:
    """A name as it reads back."""
    return name if is_bare(name) else quoted(name)


def is_raw(template: str) -> bool:
    """Whether a template reads back without quotes: one printable line, parentheses in pairs, no leading quote."""
    if not template.isprintable() or not template or template.lstrip(" \t")[:1] in ("", '"'):
        return False
    depth = 0
    for match in _PARENTHESIS.finditer(template):
        depth += 1 if match[0] == "(" else -1
        if depth < 0:
            return False
    return depth == 0
