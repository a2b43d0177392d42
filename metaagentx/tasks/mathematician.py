"""The script of a worker process that decides whether two mathematical answers are equal, by math-verify.

Standard input and output hold a line of JSON each: [wanted, given] -> true or false. The first line out is "ready".
"""

from __future__ import annotations

import json
import resource
import sys

MEMORY = 2 << 30  # bytes of address space


def main() -> None:
    from math_verify import parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        wanted, given = json.loads(line)
        try:
            parsed = [parse(f"${text}$", parsing_timeout=None, raise_on_error=False) for text in (wanted, given)]
            equal = bool(verify(*parsed, timeout_seconds=None, raise_on_error=False))
        except Exception:  # hostile text; whatever it trips over, it is not shown to be equal
            equal = False
        print(json.dumps(equal), flush=True)


if __name__ == "__main__":
    main()
