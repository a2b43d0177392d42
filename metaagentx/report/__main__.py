"""`python -m metaagentx.report WORKDIR`: write the page of a run anew."""

from __future__ import annotations

import argparse
import sys

from metaagentx.report import page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m metaagentx.report", description=__doc__)
    parser.add_argument("workdir", help="the work directory of a run")
    try:
        print(page.write(parser.parse_args(arguments).workdir))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
