"""The chips that programs are compiled for ahead of time, and their slices, described by libtpu without one at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from metaagentx.sections import SettingsError


class TopologyError(SettingsError):
    """A slice that cannot be described here; the message says what could."""


@dataclass(frozen=True, slots=True)
class Chip:
    """Published numbers of one chip, decimal units (Google Cloud TPU documentation, "System architecture")."""

    hbm: float  # bytes
    peak: float  # bfloat16 FLOP/s
    bandwidth: float  # of the HBM, bytes/s
    link: float  # of one interconnect port in one direction, bytes/s: the chip's bandwidth over its ports
    units: int  # matrix units of all its cores
    width: int  # of one unit, in rows and columns
    wraps: int  # a side of a slice of at least so many chips is a ring, a shorter one a line

    @property
    def cycle_flops(self) -> int:
        """FLOPs of one cycle: two for each cell of its matrix units."""
        return 2 * self.units * self.width**2

    @property
    def clock(self) -> float:
        """Cycles per second."""
        return self.peak / self.cycle_flops


CHIPS = {
    # cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s, 1600 Gbit/s over 4 ports
    "v5e": Chip(16e9, 197e12, 819e9, 50e9, units=4, width=128, wraps=16),
    # cloud.google.com/tpu/docs/v5p: 459 TFLOP/s, 95 GB, 2765 GB/s, 4800 Gbit/s over 6 ports; two cores
    "v5p": Chip(95e9, 459e12, 2765e9, 100e9, units=8, width=128, wraps=4),
    # cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 32 GB, 1640 GB/s, 3584 Gbit/s over 4 ports
    "v6e": Chip(32e9, 918e12, 1640e9, 112e9, units=4, width=256, wraps=16),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """Chips that are wired to each other."""

    name: str  # "v5p:4x4x4"
    chip: Chip
    sides: tuple[int, ...]
    devices: Any  # JAX's descriptions of its chips

    def link_bandwidth(self, size: int) -> float:
        """Bytes/s that a chip receives in a collective of `size` chips, laid along as few sides as can hold them."""
        bandwidth, room = 0.0, 1
        for side in sorted(self.sides, reverse=True):
            if room >= size:
                break
            room *= side
            bandwidth += self.chip.link * (2 if side >= self.chip.wraps else 1)
        return bandwidth


def describe(name: str) -> Slice:
    """The slice that a name like "v5e:16x16" means.

    Raises:
      TopologyError: the chip or the shape is not known, or libtpu is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        raise TopologyError(f"--topology {name}: the chip must be one of {', '.join(CHIPS)}, as in v5e:4x4")
    sides = tuple(int(side) for side in shape.split("x") if side.isdigit())
    if len(sides) != len(shape.split("x")) or not math.prod(sides):
        raise TopologyError(f"--topology {name}: the shape must be like {'4x4x4' if kind == 'v5p' else '4x4'}")
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise TopologyError(
            "libtpu is not installed: pip install 'metaagentx[aot]' (it compiles without a TPU)"
        ) from None
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # of XLA's own type, whose message says what is wrong with the shape
        raise TopologyError(f"--topology {name}: {str(error).splitlines()[0]}") from None
    return Slice(name, CHIPS[kind], sides, found.devices)
