"""A design in; its short form, its worst case and remarks on it, or what is wrong with it, out. Nothing is run.

    python -m metaagentx.design two_ways.py            # a script
    python -m metaagentx.design response.txt           # a model's whole response, or a short form; "-": standard input

Short forms may name the roles of small language models (tasks/language_palette.py). Exits with 1 if it is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from metaagentx.tasks.language_palette import palette
from metaagentx.tasks.toolbox import BUILT_IN
from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.ir import Diagnosis, Limits
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script
from metaagentx.workflow.short import print_short


def describe(text: str, limits: Limits, tools: Sequence[str], *, script: bool = False) -> tuple[str, bool]:
    """What there is to say of the design in `text`, lines of text, and whether it is accepted.

    tools: that agents may call. script: `text` is a script and nothing else, and lines count from its first.
    """
    roles = palette(tools)
    if script:
        result = parse_script(text, limits, frozenset(tools))
    else:
        result = parse_response(text, limits=limits, tools=frozenset(tools), palette=roles)
    if isinstance(result, Diagnosis):
        return f"{result.line}:{result.column}: {result.refusal}: {result.message}", False
    most = bounds(result.workflow)
    return "\n".join(
        (
            print_short(result.workflow, roles),
            f"at most {most.agent_calls} agent calls, {most.model_calls} model calls, "
            f"{most.critical_path} of them in a row",
            *(f"{remark.line}:{remark.column}: remark: {remark.message}" for remark in result.remarks),
        )
    ), True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m metaagentx.design", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a script (.py), a response or a short form; - is standard input")
    parser.add_argument("--tools", default=",".join(BUILT_IN), help="what agents may call (default: %(default)s)")
    parser.add_argument("--agents", type=int, default=Limits().agents, help="most agents (default: %(default)s)")
    parser.add_argument(
        "--calls", type=int, default=Limits().model_calls, help="most model calls (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    if min(given.agents, given.calls) < 1:
        parser.error("--agents and --calls must be at least 1")
    try:
        text = sys.stdin.read() if given.file == "-" else Path(given.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {given.file}: {error}", file=sys.stderr)
        return 2
    limits = Limits(agents=given.agents, model_calls=given.calls)
    tools = [name for name in given.tools.split(",") if name]
    said, accepted = describe(text, limits, tools, script=given.file.endswith(".py"))
    print(said)
    return 0 if accepted else 1


if __name__ == "__main__":
    sys.exit(main())
