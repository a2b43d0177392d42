"""How a reading stops: one exception that carries what, where and what would be right."""

from __future__ import annotations

import ast

from metaagentx.workflow.ir import Diagnosis, Refusal, brief


class Refused(Exception):
    """A script was refused at the syntax node `at`; never leaves `parse_script`."""

    def __init__(self, refusal: Refusal, message: str, at: ast.AST) -> None:
        super().__init__(message)
        self.refusal, self.message, self.at = refusal, message, at


class Places:
    """Where syntax nodes stand in a script: lines and columns in characters, both from 1."""

    def __init__(self, script: str) -> None:
        self._lines = script.split("\n")

    def of(self, node: ast.AST) -> tuple[int, int]:
        """The line and column of `node` (`ast` counts columns in UTF-8 bytes, from 0)."""
        line = getattr(node, "lineno", 1)
        before = self._lines[line - 1].encode()[: getattr(node, "col_offset", 0)]
        return line, len(before.decode(errors="replace")) + 1

    def diagnose(self, refused: Refused) -> Diagnosis:
        line, column = self.of(refused.at)
        return Diagnosis(refused.refusal, brief(refused.message), line, column)
