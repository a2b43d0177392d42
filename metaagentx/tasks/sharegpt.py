"""Demonstrations from the user's own JSONL file, in the manner of ShareGPT; a bad row names its file and line.

A row: {"conversations": [{"from": "system" | "human" | "gpt" | "tool", "value": text}, ...], "role"?: one of the run's
("designer" | "executor", which is the default; a team has others, and no default), "kind"?: text}. Loss falls on what
"gpt" says.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from metaagentx.tasks.files import BadRow, rows
from metaagentx.tasks.task import Demonstration
from metaagentx.workflow.protocol import Message

_SPEAKERS: Mapping[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "human": "user",
    "gpt": "assistant",
    "tool": "tool",
}
_DEFAULT = "executor"
_KEYS = frozenset({"conversations", "role", "kind", "id"})


def read_demonstrations(path: str | Path, roles: Sequence[str]) -> list[Demonstration]:
    """Every row as a demonstration for one of `roles`, in order. Raises BadRow."""
    found = [_demonstration(row, place, roles) for place, row in rows(Path(path).expanduser())]
    if not found:
        raise BadRow(f"{path}: no demonstration in it")
    return found


def _demonstration(row: Mapping[str, Any], place: str, roles: Sequence[str]) -> Demonstration:
    unknown = sorted(row.keys() - _KEYS)
    if unknown:
        raise BadRow(f"{place}: unknown key {unknown[0]!r}; a row may have {', '.join(sorted(_KEYS))}")
    role, kind = row.get("role", _DEFAULT if _DEFAULT in roles else None), row.get("kind", "demonstration")
    if role not in roles:
        given = f"not {role!r:.80}" if "role" in row else "and is missing"
        raise BadRow(f"{place}: role must be one of this run's ({', '.join(roles)}), {given}")
    if not isinstance(kind, str) or not kind:
        raise BadRow(f"{place}: kind must be a text, not {kind!r:.80}")
    said = row.get("conversations")
    if not isinstance(said, list) or not said:
        raise BadRow(f"{place}: conversations must be a list of messages, not {said!r:.80}")
    messages = tuple(_message(each, f"{place}: conversations[{number}]") for number, each in enumerate(said))
    _check_order([message.role for message in messages], place)
    return Demonstration(role, messages, kind)


def _message(said: object, place: str) -> Message:
    if not isinstance(said, dict) or said.keys() != {"from", "value"}:
        raise BadRow(f'{place} must be {{"from": ..., "value": ...}}, not {said!r:.80}')
    if said["from"] not in _SPEAKERS:
        raise BadRow(f"{place}.from must be one of {', '.join(_SPEAKERS)}, not {said['from']!r:.80}")
    if not isinstance(said["value"], str):
        raise BadRow(f"{place}.value must be a text, not {said['value']!r:.80}")
    return Message(_SPEAKERS[said["from"]], said["value"])


def _check_order(roles: list[str], place: str) -> None:
    if "system" in roles[1:]:
        raise BadRow(f"{place}: a system message comes first or not at all")
    if roles[-1] != "assistant":
        raise BadRow(f"{place}: the last message must be from 'gpt': nothing after it would be learned")
    for number, (before, after) in enumerate(itertools.pairwise(roles), 1):
        if after == "assistant" and before not in ("user", "tool"):
            raise BadRow(f"{place}: conversations[{number}] from 'gpt' must follow 'human' or 'tool', not {before!r}")
