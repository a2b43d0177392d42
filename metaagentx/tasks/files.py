"""Questions from the user's own JSONL files, checked row by row; a bad row is an error that names file and line.

A row: {"question": text, "domain": "mathematics" | "code" | "qa" | "text", "answer": text or number, "id"?, "kind"?};
for code, instead of the answer, "entry_point": name and "tests": [{"arguments": [...], "result": ...}, ...], where
arguments and results are JSON, with {"tuple": [...]}, {"set": [...]} and {"dict": [[key, value], ...]} for what JSON
lacks (`tools.spelling`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metaagentx.tasks.answers import normalise
from metaagentx.tasks.grading import REFERENCE
from metaagentx.tasks.gym import DOMAINS, SPLITS, Record, digest

_KEYS = frozenset({"id", "question", "answer", "tests", "entry_point", "domain", "kind"})


class BadRow(ValueError):
    """A row that cannot be used: the message begins with file:line."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Where the questions are; "" where there are none."""

    train: str = ""
    validation: str = ""
    test: str = ""
    demonstrations: str = ""  # of the cold start: conversations in the manner of ShareGPT (`tasks.sharegpt`)
    grading: Literal["match", "equivalence"] = "match"  # mathematics: equal normal forms, or math-verify beyond them


def read_splits(options: FileOptions) -> dict[str, list[Record]]:
    """All records by split. Raises BadRow, also where two rows ask the same question."""
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    seen: dict[tuple[str, str], str] = {}  # where a question or an id was seen first
    for split in SPLITS:
        path = getattr(options, split)
        for place, row in rows(Path(path).expanduser()) if path else ():
            record = _record(row, split, place)
            for what, value in (("question", digest(record.question).hex()), ("id", record.id)):
                if (what, value) in seen:
                    raise BadRow(f"{place}: the same {what} as {seen[what, value]}; keep one of the two")
                seen[what, value] = place
            splits[split].append(record)
    if not any(splits.values()):
        raise ValueError("files.train, files.validation and files.test name no questions: give at least one path")
    return splits


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) of every line of a JSONL file that is not blank."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadRow(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"{place}: not a line of JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadRow(f"{place}: must be an object, not {type(row).__name__}")
        yield place, row


def _record(row: Mapping[str, Any], split: str, place: str) -> Record:
    unknown = sorted(row.keys() - _KEYS)
    if unknown:
        raise BadRow(f"{place}: unknown key {unknown[0]!r}; a row may have {', '.join(sorted(_KEYS))}")
    question, domain = _text(row, "question", place), row.get("domain")
    if domain not in DOMAINS:
        raise BadRow(f"{place}: domain must be one of {', '.join(DOMAINS)}, not {domain!r}")
    kind = _text(row, "kind", place) if "kind" in row else domain
    name = _text(row, "id", place) if "id" in row else f"{split}-{digest(question).hex()[:12]}"
    entry = _tested(row, place) if domain == "code" else _answered(row, place)
    return Record(name, kind, domain, question, json.dumps(entry, sort_keys=True))


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{place}: {key} must be a text that is not blank, not {value!r:.80}")
    return value


def _answered(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    for key in ("tests", "entry_point"):
        if key in row:
            raise BadRow(f"{place}: {key} is for the domain 'code', not {row['domain']!r}")
    answer = row.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise BadRow(f"{place}: answer must be a text or a number, not {answer!r:.80}")
    return {"answer": normalise(answer), "metadata": {"source_dataset": REFERENCE}}


def _tested(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    if "answer" in row:
        raise BadRow(f"{place}: code is graded by tests: give tests and entry_point instead of answer")
    name, tests = _text(row, "entry_point", place), row.get("tests")
    if not name.isidentifier():
        raise BadRow(f"{place}: entry_point must be a function's name, not {name!r:.80}")
    if not isinstance(tests, list) or not tests:
        raise BadRow(f'{place}: tests must be a list of {{"arguments": [...], "result": ...}}, not empty')
    for number, test in enumerate(tests):
        if not isinstance(test, dict) or test.keys() != {"arguments", "result"}:
            raise BadRow(f'{place}: tests[{number}] must be {{"arguments": [...], "result": ...}}, not {test!r:.80}')
        if not isinstance(test["arguments"], list):
            raise BadRow(f"{place}: tests[{number}].arguments must be a list, not {test['arguments']!r:.80}")
    return {"answer": "", "metadata": {"source_dataset": REFERENCE, "entry_point": name, "tests": tests}}
