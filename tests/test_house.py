"""Who may import whom, and what nothing is called. The rules are read from the sources, nothing is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JAX = frozenset({"jax", "jaxlib", "flax", "optax", "orbax", "chex"})


@dataclass(frozen=True)
class Rule:
    """What a room may import: from this package by dotted prefix, and from outside."""

    rooms: tuple[str, ...] = ()
    jax: bool = True
    only_standard_library: bool = False


SYSTEM = ("system", "teams.options", "options", "settings", "score", "report", "learn", "rollout", "tasks", "workflow")
BENCH = ("workbench", "designs", "teamwork", "policies", "mesh", "sections", "policy", "tools", *SYSTEM)
ROOMS = {
    "workflow": Rule(("workflow", "tools"), jax=False, only_standard_library=True),
    "tools": Rule(("tools", "workflow"), jax=False, only_standard_library=True),
    "tasks": Rule(("tasks", "workflow", "tools"), jax=False),
    "policy": Rule(("policy", "mesh")),
    "rollout": Rule(("rollout", "policy", "workflow", "tasks", "tools", "mesh")),
    "learn": Rule(("learn", "policy", "mesh", "rollout.trajectory", "rollout.compilation")),
    "ahead": Rule(("ahead", "settings", "sections", "memory", "learn", "rollout", "policy", "mesh")),
    "report": Rule(
        ("report", "atomic", "metrics", "workflow", "tasks", "tools", "rollout.trajectory", "teams.tree"), jax=False
    ),
    "teams": Rule(
        (
            "teams",
            "workflow",
            "tasks",
            "tools",
            "rollout",
            "learn",
            "policy",
            "mesh",
            "hosts",
            "atomic",
            "metrics",
            "checkpoint",
            "preemption",
            "settings",
            "sections",
            "command_line",
            "policies",
            "pipeline",
            "step",
            "system",
            "teamwork",
            "workbench",
        )
    ),
    # The plumbing, one file each.
    "mesh": Rule(("mesh",)),
    "hosts": Rule(("hosts",)),
    "primary": Rule(("primary", "hosts", "mesh", "tasks", "workflow")),
    "atomic": Rule(("atomic",), jax=False, only_standard_library=True),
    "metrics": Rule(("metrics", "atomic"), jax=False),
    "checkpoint": Rule(("checkpoint", "atomic", "mesh", "hosts")),
    "preemption": Rule(("preemption",), jax=False),
    "sections": Rule(("sections",), jax=False),
    "options": Rule(("options", "learn", "policy", "rollout"), jax=False),
    "settings": Rule(
        (
            "settings",
            "sections",
            "options",
            "learn",
            "policy",
            "rollout",
            "tasks",
            "teams.options",
            "workflow",
        ),
        jax=False,
    ),
    "command_line": Rule(
        (
            "command_line",
            "settings",
            "sections",
            "checkpoint",
            "policy.errors",
            "teams.database",
            "preemption",
            "mesh",
            "hosts",
        )
    ),
    "memory": Rule(("memory", "settings", "sections", "transfer", "policies", "policy", "rollout", "learn")),
    "policies": Rule(("policies", "settings", "policy", "rollout", "learn")),
    "transfer": Rule(("transfer", "policies", "policy", "mesh")),
    "pipeline": Rule(("pipeline", "transfer", "policies")),
    "wire": Rule(("wire", "hosts", "rollout", "workflow")),
    "devices": Rule(("devices", "sections", "settings", "mesh", "transfer")),
    "speaker": Rule(("speaker", "sections", "settings", "policy", "tasks")),
    # What a run samples: one of two.
    "score": Rule(("score", "report"), jax=False),
    "system": Rule(("system", "options", "score", "learn", "policy", "rollout", "tasks", "workflow")),
    "designs": Rule(("designs", *SYSTEM)),
    "teamwork": Rule(("teamwork", "teams", *SYSTEM)),
    # What stories are made of.
    "workbench": Rule(("workbench", "memory", "transfer", "wire", "primary", "devices", "speaker", *BENCH)),
    "step": Rule(("step", "hosts", "pipeline", *BENCH)),
    "design_table": Rule(("design_table", *BENCH)),
    "team_table": Rule(("team_table", "design_table", *BENCH)),
}
STORIES = frozenset({"train", "sft", "evaluate", "solve", "design", "export", "aot", "teams.server", "teams.gather"})
VAGUE = frozenset({"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"})


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that the file of `module` imports, wherever in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            for alias in node.names:
                yield (
                    node.lineno,
                    ".".join([*base, *((node.module or "").split(".") if node.module else []), alias.name]),
                )


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _complaint(module: str, name: str) -> str | None:
    """Why `module` may not import `name`, or None if it may."""
    home, *rest = module.split(".")
    outside, *inside = name.split(".")
    if any(part.startswith("_") and not part.startswith("__") for part in name.split(".")) and outside != home:
        return "a private name"
    if home == "launch":
        counts = _within(name, "metaagentx.report.statistics")
        return "launch only starts processes" if outside in JAX | {"metaagentx"} and not counts else None
    if home == "configs":
        story = outside == "metaagentx" and inside and inside[0] in STORIES
        return "a config is data" if story or outside in JAX else None
    room = rest[0] if rest else ""
    if not room or room in STORIES or ".".join(rest) in STORIES:
        return None
    rule = ROOMS[room]
    if outside == "metaagentx":
        target = ".".join(inside)
        allowed = not inside or target.startswith("__") or any(_within(target, each) for each in rule.rooms)
        return None if allowed else f"{room} may import {', '.join(rule.rooms)}"
    if outside in {"launch", "configs", "tests"}:
        return "the library stands alone"
    if outside in JAX and not rule.jax:
        return f"{room} is free of jax"
    if rule.only_standard_library and outside not in sys.stdlib_module_names:
        return f"{room} needs the standard library only"
    return None


def violations(root: Path) -> list[str]:
    """Every broken rule of the house below `root`, as "file:line: what"."""
    found = []
    for home in ("metaagentx", "launch", "configs"):
        for path in sorted((root / home).rglob("*.py")):
            file = path.relative_to(root)
            parts = [*file.parts[:-1], *([] if file.stem == "__init__" else [file.stem])]
            if vague := VAGUE.intersection(parts):
                found.append(f"{file}: {min(vague)!r} says nothing; name the thing")
            if home == "metaagentx" and len(parts) > 1 and parts[1] not in ROOMS.keys() | STORIES:
                found.append(f"{file}: {parts[1]!r} is no room; give it a rule")
                continue
            for line, name in imports(path, ".".join(parts)):
                if complaint := _complaint(".".join(parts), name):
                    found.append(f"{file}:{line}: imports {name}: {complaint}")
    return found


def test_the_house_keeps_its_rules() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("metaagentx/workflow/a.py", "import jax.numpy as jnp", "workflow is free of jax"),
        ("metaagentx/workflow/a.py", "def f():\n    from metaagentx import tasks", "workflow may import"),
        ("metaagentx/tools/a.py", "import numpy", "standard library only"),
        ("metaagentx/tasks/a.py", "from flax import struct", "tasks is free of jax"),
        ("metaagentx/tasks/a.py", "from ..rollout import tree", "imports metaagentx.rollout.tree: tasks may import"),
        ("metaagentx/policy/a/b.py", "from ...workflow.ir import Role", "policy may import policy, mesh"),
        ("metaagentx/rollout/a.py", "import metaagentx.learn.options as o", "rollout may import"),
        ("metaagentx/learn/a.py", "from metaagentx.rollout import engine", "learn may import"),
        ("metaagentx/learn/a.py", "from metaagentx.rollout import trajectory_store", "learn may import"),
        ("metaagentx/learn/a.py", "if True:\n    import metaagentx.tasks", ":2: imports metaagentx.tasks"),
        ("metaagentx/learn/__init__.py", "from ..workflow import ir", "imports metaagentx.workflow.ir: learn"),
        ("metaagentx/report/a.py", "from metaagentx.train import train", "report may import"),
        ("metaagentx/mesh.py", "from metaagentx import policy", "mesh may import"),
        ("metaagentx/policy/a.py", "from jax._src import core", "a private name"),
        ("metaagentx/policy/a.py", "import launch.sweep", "the library stands alone"),
        ("metaagentx/kitchen/a.py", "", "'kitchen' is no room"),
        ("metaagentx/policy/utils.py", "", "'utils' says nothing"),
        ("launch/a.py", "import jax", "launch only starts processes"),
        ("configs/a.py", "from metaagentx.train import train", "a config is data"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, file: str, source: str, expected: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")
    found = violations(tmp_path)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("metaagentx/train.py", "import jax\nfrom metaagentx import sft, learn, workflow"),
        ("metaagentx/workflow/a.py", "from __future__ import annotations\nimport json\nfrom .ir import Role"),
        ("metaagentx/learn/a.py", "import jax\nfrom metaagentx.rollout.trajectory import Trajectory"),
        ("metaagentx/learn/b.py", "from metaagentx.rollout import trajectory"),
        ("metaagentx/rollout/a.py", "from metaagentx.policy.config import ModelConfig\nimport jax"),
        ("metaagentx/policy/a.py", "from metaagentx import __version__\nfrom metaagentx.mesh import rules"),
        ("configs/a.py", "from launch.sweep import product\nimport ml_collections"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")
    assert violations(tmp_path) == []
