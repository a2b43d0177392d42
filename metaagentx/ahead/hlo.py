"""What one run of a compiled program costs, read from its HLO text, with loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once. Here every loop's trip count is read from its condition (a
`scan` compares its counter with a constant), so that a program of scanned layers costs what the unrolled one costs.
Of the branches of a conditional the dearest counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from metaagentx.ahead import pallas
from metaagentx.ahead.instruction import Instruction, nbytes, shapes

COLLECTIVES = frozenset({"all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"})
# Nothing is moved or computed by these, or it is counted where it is used.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
FREE |= {"copy-done", "all-gather-done", "all-reduce-done", "collective-permute-done", "async-done", "async-update"}
FREE |= {"while", "conditional", "call", "opt-barrier"}

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")


@dataclass(slots=True)
class Cost:
    """What one chip does in one run of a program."""

    products: float = 0.0  # FLOPs of XLA's matrix products
    kernels: float = 0.0  # FLOPs of Pallas attention kernels, which XLA cannot see into
    ragged: float = 0.0  # FLOPs of Pallas' products of runs of rows with their expert's matrix, if all rows have one
    hbm: float = 0.0  # bytes read from and written to HBM, without the next
    cached: float = 0.0  # bytes of caches that Pallas' decode kernels read if every slot is full
    attended: float = 0.0  # FLOPs of these kernels if every slot is full
    cycles: float = 0.0  # the compiler's estimate of everything but kernels and collectives
    collectives: dict[int, float] = field(default_factory=dict)  # group size -> bytes that a chip must receive

    def add(self, other: Cost, times: int = 1) -> None:
        """Take in another cost, `times` times."""
        for name in ("products", "kernels", "ragged", "hbm", "cached", "attended", "cycles"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for size, moved in other.collectives.items():
            self.collectives[size] = self.collectives.get(size, 0.0) + times * moved


class Program:
    """HLO text as computations of instructions."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self.partitions = int(found.group(1)) if (found := re.search(r"num_partitions=(\d+)", text)) else 1
        current: dict[str, Instruction] = {}
        for line in _one_a_line(text):
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header.group(1), {})
                self.entry = header.group(1) if line.startswith("ENTRY") else self.entry
            elif found := _LINE.match(line):
                name, shape, op, rest = found.groups()
                operands = tuple(re.findall(r"%([\w.\-]+)", _balanced(rest)))
                current[name] = Instruction(name, shape, op, operands, rest)

    def cost(self, unrolled: bool = True) -> Cost:
        """The cost of one run; without `unrolled` each loop's body counts once, as in XLA's cost analysis."""
        return self._cost_of(self.entry, unrolled)

    def _cost_of(self, computation: str, unrolled: bool) -> Cost:
        total = Cost()
        for line in self.computations[computation].values():
            total.add(self._cost_of_line(self.computations[computation], line, unrolled))
        return total

    def _cost_of_line(self, home: dict[str, Instruction], line: Instruction, unrolled: bool) -> Cost:
        cost = Cost()
        if line.op == "while":
            body = self._cost_of(line.attribute("body") or "", unrolled)
            cost.add(body, self.trips(line) if unrolled else 1)
        elif line.op == "conditional":
            branches = [self._cost_of(name, unrolled) for name in _branches(line)]
            cost.add(max(branches, key=lambda branch: (branch.cycles, branch.products)))
        elif line.op == "call" or (line.op == "async-start" and line.attribute("calls")):
            cost.add(self._cost_of(line.attribute("to_apply") or line.attribute("calls") or "", unrolled))
        elif line.op not in FREE:
            cost.products = sum(self._products(line))
            cost.kernels, cost.ragged = pallas.attention(line), pallas.experts(line)
            cost.hbm = self._traffic(home, line)
            if reached := pallas.decoding(line):
                cost.cached, cost.attended, pages = reached
                cost.hbm -= pages
            if found := re.search(r'"estimated_cycles":"(\d+)"', line.rest):
                cost.cycles = float(found.group(1))
            inner = self._collective_inside(line)
            if inner and (size := _group_size(inner, self.partitions)) > 1:
                cost.collectives = {size: _received(line, inner, size)}
        return cost

    def trips(self, loop: Instruction) -> int:
        """How often the body of a `while` runs; 1 where that depends on data."""
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(found.group(1))
        condition = self.computations[loop.attribute("condition") or ""]
        *_, root = condition.values()
        if root.op == "compare" and "direction=LT" in root.rest:
            for name in root.operands:
                if name in condition and condition[name].op == "constant":
                    return int(condition[name].rest.split(")")[0])
        return 1

    def _inside(self, line: Instruction) -> Iterator[tuple[dict[str, Instruction], Instruction]]:
        """The line, and every line of what it fuses, each with its computation."""
        name = line.attribute("calls") if line.op == "fusion" else None
        if name is None:
            return
        for inner in self.computations[name].values():
            yield self.computations[name], inner
            yield from self._inside(inner)

    def _products(self, line: Instruction) -> Iterator[float]:
        for home, inner in [*self._inside(line)] or [({}, line)]:
            if inner.op in ("dot", "convolution"):
                yield _product(home or self._home(inner), inner)

    def _home(self, line: Instruction) -> dict[str, Instruction]:
        return next(lines for lines in self.computations.values() if lines.get(line.name) is line)

    def _collective_inside(self, line: Instruction) -> Instruction | None:
        """The collective that the line is, or that a custom fusion of a reduction and a slice holds."""
        for inner in (line, *(inner for _, inner in self._inside(line))):
            if inner.op.removesuffix("-start") in COLLECTIVES:
                return inner
        return None

    def _traffic(self, home: dict[str, Instruction], line: Instruction) -> float:
        """Bytes of operands and results in HBM; of an operand that is only sliced, and of one updated, the slice."""
        lines = self.computations[line.attribute("calls") or ""] if line.op == "fusion" else {line.name: line}
        parameters = {int(i.rest.split(")")[0]): i.name for i in lines.values() if i.op == "parameter"}
        moved = 0.0
        for number, name in enumerate(line.operands):
            if name in home and not _on_chip(home[name].shape):
                moved += min(self._read(lines, parameters.get(number, name)), nbytes(home[name].shape))
        updates = [i for i in lines.values() if i.op == "dynamic-update-slice"]
        if updates:
            known = home | lines
            return moved + sum(nbytes(known[i.operands[1]].shape) for i in updates if i.operands[1] in known)
        return moved + (0 if _on_chip(line.shape) else nbytes(line.shape))

    def _read(self, lines: dict[str, Instruction], name: str) -> float:
        """Bytes that lines read of `name`: of what is only sliced the slices, of what is updated in place none."""
        moved = 0.0
        for user in lines.values():
            if name not in user.operands:
                continue
            if user.op in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
                moved += nbytes(user.shape)
            elif user.op == "bitcast":
                moved += self._read(lines, user.name)
            elif user.op == "fusion" and len(lines) > 1:
                inner = self.computations[user.attribute("calls") or ""]
                at = user.operands.index(name)
                names = {int(i.rest.split(")")[0]): i.name for i in inner.values() if i.op == "parameter"}
                moved += self._read(inner, names[at])
            elif user.op == "dynamic-update-slice" and user.operands[0] == name:
                moved += self._read(lines, user.name)  # what reads the updated array in the same fusion
            else:
                return math.inf
        return moved


def _one_a_line(text: str) -> Iterator[str]:
    """The lines, with an instruction's further lines (a kernel's description) joined to its first."""
    joined: list[str] = []
    for line in text.splitlines():
        if not line or line == "}" or line[0] in "%E" or _LINE.match(line):
            yield " ".join(joined)
            joined = []
        joined.append(line)
    yield " ".join(joined)


def _balanced(rest: str) -> str:
    """The text up to the parenthesis that closes the operands."""
    depth = 1
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:i]
    return rest


def _branches(line: Instruction) -> list[str]:
    if found := re.search(r"branch_computations=\{([^}]*)\}", line.rest):
        return [name.strip().lstrip("%") for name in found.group(1).split(",")]
    return [line.attribute("true_computation") or "", line.attribute("false_computation") or ""]


def _on_chip(shape: str) -> bool:
    return "S(" in shape  # a memory space other than HBM


def _product(home: dict[str, Instruction], line: Instruction) -> float:
    """FLOPs of a dot or convolution: two for each multiplication that is not with padding."""
    out = shapes(line.shape)[0][1]
    left, right = (shapes(home[name].shape)[0][1] for name in line.operands[:2])
    if line.op == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        contracted = [int(n) for n in found.group(1).split(",") if n] if found else []
        return 2.0 * math.prod(out) * math.prod(left[n] for n in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    if labels is None:
        raise ValueError(f"convolution {line.name} has no dim_labels")
    left_labels, right_labels, out_labels = labels.groups()
    count = 2.0 * out[out_labels.index("b")] * out[out_labels.index("f")] * right[right_labels.index("i")]
    if groups := re.search(r"batch_group_count=(\d+)", line.rest):
        count /= int(groups.group(1))
    window = re.search(r"window=\{([^}]*)\}", line.rest)
    fields = dict(item.split("=") for item in window.group(1).split()) if window else {}
    for dimension in sorted(set(out_labels) - {"b", "f"}):
        sizes = left[left_labels.index(dimension)], right[right_labels.index(dimension)]
        count *= _valid(*sizes, out[out_labels.index(dimension)], fields, int(dimension))
    return count


def _valid(size: int, kernel: int, out: int, fields: dict[str, str], dimension: int) -> int:
    """How many (output, kernel) positions of one spatial dimension meet an element that is there."""

    def of(name: str, default: str) -> str:
        return fields[name].split("x")[dimension] if name in fields else default

    stride, spread, gap = int(of("stride", "1")), int(of("rhs_dilate", "1")), int(of("lhs_dilate", "1"))
    low = int(of("pad", "0_0").split("_")[0])
    reach = (size - 1) * gap + 1
    places = (o * stride + k * spread - low for o in range(out) for k in range(kernel))
    return sum(0 <= place < reach and place % gap == 0 for place in places)


def _group_size(line: Instruction, partitions: int) -> int:
    """Chips that take part together."""
    if line.op.startswith("collective-permute"):
        return 2
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:[^{]*)\{([^}]*)\}", line.rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", found.group(2)))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", line.rest):
        return int(found.group(2))
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line.rest):
        return len(found.group(1).split(","))
    return partitions


def _received(line: Instruction, inner: Instruction, size: int) -> float:
    """Bytes that a chip receives at least, in the algorithm that is best in bandwidth."""
    op, share = inner.op.removesuffix("-start"), (size - 1) / size
    if op == "all-reduce":
        # With a slice of its result in the same fusion it is a reduce-scatter.
        return nbytes(inner.shape) * share * (1 if line is not inner else 2)
    if op == "reduce-scatter":
        return nbytes(inner.shape) * (size - 1)
    if op == "collective-permute":
        return float(nbytes(inner.shape) / (2 if inner.op.endswith("-start") else 1))
    return nbytes(inner.shape) * share / (2 if inner.op.endswith("-start") else 1)
