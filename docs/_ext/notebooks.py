"""docs/notebooks: two of the tutorials as notebooks. Python and shell blocks are their cells, all else is text.

python docs/_ext/notebooks.py
"""

from pathlib import Path

import jupytext
import nbformat

DOCS = Path(__file__).parents[1]
NAMES = ("researcher", "student")
FIRST = """import os

os.environ |= {"FORCE_COLOR": "", "COLUMNS": "120"}  # the commands' tables as plain text, and wide enough"""
HEAD = """---
jupyter:
  kernelspec:
    display_name: Python 3
    language: python
    name: python3
---

"""


def path_of(name):
    return DOCS / "notebooks" / f"{name}.ipynb"


def notebook(name):
    """The notebook of a tutorial, without outputs; links are as on the page, from a folder as deep."""
    page = jupytext.reads(HEAD + (DOCS / "tutorials" / f"{name}.md").read_text("utf-8"), fmt="md")
    page.metadata = nbformat.from_dict({"kernelspec": page.metadata["kernelspec"]})
    page.cells.insert(1, nbformat.v4.new_code_cell(FIRST))
    for number, cell in enumerate(page.cells, 1):
        cell.id = f"cell-{number}"
    return page


def text_of(name):
    """Its file."""
    return nbformat.writes(notebook(name)) + "\n"


if __name__ == "__main__":
    for name in NAMES:
        path_of(name).write_text(text_of(name), "utf-8")
