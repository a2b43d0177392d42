"""Writes each notebook's .ipynb from its .py (jupytext, percent format), without outputs.

    python notebooks/render.py

Cells are numbered rather than given random ids, so that the same source always makes the same file.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

SOURCES = sorted(set(Path(__file__).parent.glob("*.py")) - {Path(__file__)})


def render(source: Path) -> str:
    """The text of the .ipynb file that belongs to `source`."""
    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for each in SOURCES:
        each.with_suffix(".ipynb").write_text(render(each), encoding="utf-8")
