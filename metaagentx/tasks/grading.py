"""How a record's answer is graded: by its verifier, by its tests in a sandbox, or against the true answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metaagentx.tasks.equivalence import Equivalence
from metaagentx.tasks.gym import Record, score
from metaagentx.tasks.task import GradingFailed, Verdict
from metaagentx.tools.sandbox import Sandbox, SandboxError
from metaagentx.tools.spelling import same

REFERENCE = "reference"  # the source of records whose answer is compared
PROGRAMS_PER_PROCESS = 100


class Grader:
    """Begins to grade. Programs and mathematics run in processes of their own; the rest is graded at once."""

    def __init__(self, sandbox: Sandbox | None, equivalence: Equivalence | None) -> None:
        """`sandbox`: needed for records with tests. `equivalence`: beyond equal normal forms; None: those alone."""
        self._sandbox, self._equivalence = sandbox, equivalence

    def __call__(self, record: Record, answer: str) -> Verdict:
        entry = json.loads(record.entry)
        if "tests" in entry["metadata"]:
            return self._run_tests(entry["metadata"], answer)
        if entry["metadata"]["source_dataset"] == REFERENCE:
            return self._compare(record, entry["answer"], answer)
        verdict = score(record.entry, answer)
        return lambda: verdict

    def check_programs(self, records: Sequence[Record]) -> None:
        """Check reference programs by their tests, many to a process: they are our own, so they may share one.

        Raises:
          ValueError: a program fails; the message names its question.
        """
        assert self._sandbox is not None
        for start in range(0, len(records), PROGRAMS_PER_PROCESS):
            batch = records[start : start + PROGRAMS_PER_PROCESS]
            entries = [json.loads(record.entry) for record in batch]
            program, calls, wanted = [], [], []
            for number, entry in enumerate(entries):
                name, own = entry["metadata"]["entry_point"], f"program_{number}"
                program.append(entry["answer"].replace(f"def {name}(", f"def {own}(", 1))
                for test in entry["metadata"]["tests"]:
                    calls.append((own, test["arguments"]))
                    wanted.append((batch[number], test["result"]))
            answers = self._sandbox.run("\n".join(program), calls)
            for place, (record, result) in enumerate(wanted):
                value = answers.value(place)
                if value is None or not same(result, value[0]):
                    raise ValueError(f"question {record.id}: its own program fails a test")

    def _compare(self, record: Record, wanted: str, answer: str) -> Verdict:
        """1.0 if the normal forms are equal, or else the mathematical values."""
        if answer == wanted:
            return lambda: 1.0
        if self._equivalence is None or record.domain != "mathematics":
            return lambda: 0.0
        deciding = self._equivalence.submit(wanted, answer)
        return lambda: float(deciding.result())

    def _run_tests(self, metadata: Mapping[str, Any], program: str) -> Verdict:
        """1.0 if the program gives the right result in every case."""
        if self._sandbox is None:
            raise RuntimeError("a question with tests needs a sandbox")
        tests = metadata["tests"]
        running = self._sandbox.submit(program, [(metadata["entry_point"], test["arguments"]) for test in tests])

        def verdict() -> float:
            try:
                answers = running.result()
            except SandboxError as error:
                raise GradingFailed(str(error)) from error
            values = [answers.value(number) for number in range(len(tests))]
            return float(
                all(v is not None and same(test["result"], v[0]) for test, v in zip(tests, values, strict=True))
            )

        return verdict
