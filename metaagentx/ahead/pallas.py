"""What Pallas' kernels do, read from their operands: XLA cannot see into them."""

from __future__ import annotations

import math
import re

from metaagentx.ahead.instruction import BYTES, Instruction, shapes


def attention(line: Instruction) -> float:
    """FLOPs of a splash attention kernel over causal rows: of the squares on and below the diagonal."""
    if "tpu_custom_call" not in line.rest:
        return 0.0
    found = re.search(r"splash_m[qh]a_(fwd|dq|dkv)", line.name + line.rest)
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", line.rest)
    if not (found and constraints):
        return 0.0
    queries = max((dims for _, dims in shapes(constraints.group(1))), key=math.prod)
    # A "dkv" that makes the queries' gradients too has a result of them for each block of keys.
    fused = any(len(dims) > len(queries) for _, dims in shapes(line.shape))
    products = {"fwd": 2, "dq": 3, "dkv": 5 if fused else 4}[found.group(1)]
    return products * 2.0 * math.prod(queries) * queries[-2] / 2


def decoding(line: Instruction) -> tuple[float, float, float] | None:
    """Of ragged paged attention with one query a slot: bytes and FLOPs if slots are full, bytes of all pages.

    Its operands are lengths [S], pages of each slot [S, n], three more, queries [S, N, H] and pages [P, page, 2 K, H].
    """
    found = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", line.rest)
    if not line.name.startswith("ragged_paged_attention_kernel") or not found:
        return None
    _, (_, table), *_, (_, queries), (dtype, pages) = shapes(found.group(1))
    tokens = math.prod(table) * pages[1]
    read = float(BYTES[dtype] * tokens * pages[2] * pages[3])
    return read, 4.0 * tokens * queries[1] * queries[2], float(BYTES[dtype] * math.prod(pages))


def experts(line: Instruction) -> float:
    """FLOPs of a megablox kernel: "gmm" takes rows [R, I] and matrices [E, ...], "tgmm" two arrays of rows."""
    found = re.match(r"t?gmm\b", line.name)
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", line.rest)
    if "tpu_custom_call" not in line.rest or not (found and constraints):
        return 0.0
    *_, rows, other = (dims for _, dims in shapes(constraints.group(1)))
    return 2.0 * rows[0] * (math.prod(other[1:]) if len(other) == 3 else rows[1] * other[1])
