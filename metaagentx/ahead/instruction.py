"""One instruction of HLO text, and the shapes that it names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "s4": 1, "u4": 1, "f8e4m3fn": 1, "f8e5m2": 1}
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of HLO."""

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str  # the line after the opening parenthesis of the operands

    def attribute(self, name: str) -> str | None:
        """The computation that the line names as `name`."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found.group(1) if found else None


def shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Number type and dimensions of every array that the text names."""
    return [
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims, _ in _SHAPE.findall(text)
        if dtype in BYTES
    ]


def nbytes(text: str) -> int:
    """Bytes of every array that the text names."""
    return sum(BYTES[dtype] * math.prod(dims) for dtype, dims in shapes(text))
