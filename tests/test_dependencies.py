"""What the code imports is what setup.py declares, with lower bounds and no others."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {"metaagentx", "configs", "launch", "benchmarks", "notebooks", "tests"}
# Asked for by what we import, without being imported here.
BEHIND = {
    "array-record": "the files of tensorflow-datasets",
    "grain": "the data sources of tensorflow-datasets",
    "jinja2": "the chat templates of transformers",
}


def requirements() -> dict[str, list[str]]:
    """The requirements in setup.py: "" for those of everyone, else by extra."""
    call = next(
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    return {"": ast.literal_eval(given["install_requires"])} | ast.literal_eval(given["extras_require"])


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-")


def imported(*folders: str) -> Iterator[set[str]]:
    """For each import of the code in `folders`, the distributions that hold it (parts of orbax share one name)."""
    owners = packages_distributions()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                for name in {name.split(".")[0] for name in names} - OURS - sys.stdlib_module_names:
                    if name in owners:  # else a module beside the file
                        yield {owner.lower().replace("_", "-") for owner in owners[name]}


def test_the_code_imports_what_is_declared_and_nothing_is_declared_in_vain() -> None:
    every = requirements()
    declared = set(map(distribution, every[""]))
    optional = {distribution(each) for extra in every.keys() - {"", "dev"} for each in every[extra]}
    used = list(imported("metaagentx", "configs", "launch", "benchmarks"))
    assert [owners for owners in used if not owners & (declared | optional)] == []
    assert declared - BEHIND.keys() - set().union(*used) == set()


def test_notebooks_and_tests_import_what_their_extras_declare() -> None:
    every = requirements()
    declared = {distribution(requirement) for extra in ("", "dev", "parity", "fuzz") for requirement in every[extra]}
    assert [owners for owners in imported("tests", "notebooks") if not owners & declared] == []


def test_dependencies_have_lower_bounds_only() -> None:
    bounded = [r for extra, each in requirements().items() if not extra.startswith(("cuda", "tpu")) for r in each]
    assert [r for r in bounded if not re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", r)] == []
