"""Which role trains when: one function of the step. Nothing else in the program branches on the mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from metaagentx.learn.options import StageOptions

ONLY = "_only"  # a mode that names the one role that trains: "executor_only"


@dataclass(frozen=True, slots=True)
class Phase:
    """What one step trains. A role with scale 0 is frozen: it contributes nothing at all."""

    name: str  # what plots and logs show
    trains: Mapping[str, float]  # role -> scale of its learning rate


def check(options: StageOptions, roles: Sequence[str]) -> None:
    """That `options` can be used with these roles. Raises ValueError."""
    modes = ("stagewise", "joint", "none", *(role + ONLY for role in roles))
    if options.mode not in modes:
        raise ValueError(f"stages.mode must be one of {', '.join(map(repr, modes))}, not {options.mode!r}")
    if options.first and options.first not in roles:
        raise ValueError(f"stages.first must be one of {', '.join(map(repr, roles))}, not {options.first!r}")


def phases(options: StageOptions, roles: Sequence[str]) -> list[Phase]:
    """Every phase that there is, once, in the order in which they come."""
    turns = [phase(options, roles, turn * options.length) for turn in range(len(roles))]
    return list({each.name: each for each in turns}.values())


def phase(options: StageOptions, roles: Sequence[str], step: int) -> Phase:
    """The phase at `step` (from 0). `stagewise`: roles take turns of `length` steps (MetaAgent-X: executor first)."""
    if options.mode == "joint":
        return Phase("joint", MappingProxyType(dict.fromkeys(roles, 1.0)))
    if options.mode == "none":
        return Phase("none", MappingProxyType(dict.fromkeys(roles, 0.0)))

    if options.mode == "stagewise":
        first = roles.index(options.first or roles[-1])
        active = roles[(first + step // options.length) % len(roles)]
    else:
        active = options.mode.removesuffix(ONLY)
    frozen = options.soft_scale if options.freeze == "soft" else 0.0
    return Phase(active, MappingProxyType({role: 1.0 if role == active else frozen for role in roles}))
