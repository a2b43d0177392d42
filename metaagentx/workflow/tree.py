"""The syntax tree of a script: parsed by Python, within bounds, and every fault of syntax with its place."""

from __future__ import annotations

import ast
import warnings

from metaagentx.workflow.ir import Diagnosis, Refusal
from metaagentx.workflow.meter import allowed, parsing

_NOWHERE = "/dev/null/design"  # Python looks for a wrong line in the file of this name: there can be none


def syntax(text: str) -> tuple[ast.Module | Diagnosis, int]:
    """The syntax tree of `text`, or where it stops being Python; and the units of work that are left for reading it."""
    size = len(text.encode(errors="replace"))
    left = allowed(size) - parsing(text)
    if left < 0:
        message = f"in {size} bytes there are too many names and signs to parse; write it more simply"
        return Diagnosis(Refusal.TOO_LARGE, message), 0
    return _parsed(text), left


def _parsed(text: str) -> ast.Module | Diagnosis:
    if "\0" in text:  # said differently, or nowhere, by different versions of Python
        return Diagnosis(Refusal.SYNTAX, "not Python: a NUL character; leave it out", *_place(text, text.index("\0")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, filename=_NOWHERE)
    except SyntaxError as error:
        return Diagnosis(
            Refusal.SYNTAX, f"not Python: {error.msg}", max(error.lineno or 1, 1), max(error.offset or 1, 1)
        )
    except (RecursionError, MemoryError):
        return Diagnosis(Refusal.TOO_LARGE, "the script is nested too deeply")
    except UnicodeEncodeError as error:
        return Diagnosis(
            Refusal.SYNTAX, "not Python: half of a surrogate pair; leave it out", *_place(text, error.start)
        )
    except ValueError as error:
        return Diagnosis(Refusal.SYNTAX, f"not Python: {error}")


def _place(text: str, index: int) -> tuple[int, int]:
    """The line and column of `text[index]`, from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
