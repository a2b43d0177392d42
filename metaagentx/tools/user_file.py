"""Tools from a user's Python file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from metaagentx.tools.tool import Tool


def read_tools(path: Path) -> list[Tool]:
    """The tools that the file makes, in its order; those that it merely imports are not among them.

    The file is imported, which runs it, with all that this process may do: it is the user's own code, trusted like the
    config that names it. Nothing that a model wrote is ever imported.

    Raises:
      ValueError: the file cannot be imported or makes no tool; the message names it.
    """
    name = f"tools_of_{path.stem}_{hashlib.sha256(bytes(path.absolute())).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path}: must be a Python file (.py) that is there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    found = [value for value in vars(module).values() if isinstance(value, Tool)]
    own = [tool for tool in found if getattr(tool.function, "__module__", None) == name]
    if not own:
        raise ValueError(f"{path}: makes no tool; a function becomes one by @tool (metaagentx.tools.tool)")
    return own
