"""How a record's answer is graded: by its verifier, by its tests in a sandbox, or against the true answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from metaagentx.tasks.equivalence import Equivalence
from metaagentx.tasks.gym import LONGEST_ANSWER, Record, score
from metaagentx.tasks.task import GradingFailed, Verdict
from metaagentx.tools.sandbox import Sandbox, SandboxError
from metaagentx.tools.spelling import same

REFERENCE = "reference"  # the source of records whose answer is compared


class Grader:
    """Begins to grade. Programs run side by side in the sandbox; the rest is graded at once."""

    def __init__(self, sandbox: Sandbox | None, equivalence: Equivalence | None) -> None:
        """`sandbox`: needed for records with tests. `equivalence`: beyond equal normal forms; None: those alone."""
        self._sandbox, self._equivalence = sandbox, equivalence

    def __call__(self, record: Record, answer: str) -> Verdict:
        entry = json.loads(record.entry)
        if "tests" in entry["metadata"]:
            return self._run_tests(entry["metadata"], answer)
        if entry["metadata"]["source_dataset"] != REFERENCE:
            verdict = score(record.entry, answer)
        elif len(answer) > LONGEST_ANSWER:
            verdict = 0.0
        else:
            verdict = float(answer == entry["answer"] or self._equivalent(record, entry["answer"], answer))
        return lambda: verdict

    def _equivalent(self, record: Record, wanted: str, answer: str) -> bool:
        return (
            record.domain == "mathematics" and self._equivalence is not None and self._equivalence.holds(wanted, answer)
        )

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
