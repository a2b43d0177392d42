"""What agents may call, and how long and how much. Bad values are errors that name their key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Limits of every call of a tool."""

    seconds: float = 30.0  # of one call; tools with limits of their own (the sandbox's) keep to those
    longest: int = 4096  # characters of a result; the middle of a longer one is left out
    workers: int = 16  # calls that run at a time
    abandoned: int = 8  # calls of a tool that took too long and have not ended, before further ones are turned down

    def __post_init__(self) -> None:
        for name, least in (("longest", 2), ("workers", 1), ("abandoned", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"tools.{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.seconds <= 86400:
            raise ValueError(f"tools.seconds must be above 0 and at most 86400, not {self.seconds}")
