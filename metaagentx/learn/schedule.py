"""Which role trains when: one function of the step. Nothing else in the program branches on the mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metaagentx.learn.options import StageOptions

ROLES = ("designer", "executor")


@dataclass(frozen=True, slots=True)
class Phase:
    """What one step trains. A role with scale 0 is frozen: it contributes nothing at all."""

    name: str  # what plots and logs show
    trains: Mapping[str, float]  # role -> scale of its learning rate


def phases(options: StageOptions) -> list[Phase]:
    """Every phase that there is, once, in the order in which they come."""
    both = phase(options, 0), phase(options, options.length)
    return list({each.name: each for each in both}.values())


def phase(options: StageOptions, step: int) -> Phase:
    """The phase at `step` (from 0). `stagewise` alternates every `length` steps (MetaAgent-X: executor first)."""
    if options.mode == "joint":
        return Phase("joint", MappingProxyType(dict.fromkeys(ROLES, 1.0)))
    if options.mode == "none":
        return Phase("none", MappingProxyType(dict.fromkeys(ROLES, 0.0)))

    if options.mode == "stagewise":
        second = (step // options.length) % 2 == 1
        active = ROLES[(ROLES.index(options.first) + second) % 2]
    else:
        active = options.mode.removesuffix("_only")
    frozen = options.soft_scale if options.freeze == "soft" else 0.0
    return Phase(active, MappingProxyType({role: 1.0 if role == active else frozen for role in ROLES}))
