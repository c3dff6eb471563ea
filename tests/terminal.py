"""What is printed on a terminal of 80 columns."""

import io
import re

from rich.console import Console


def on_a_terminal(table, width=80):
    """The lines of a table's cells; none is wider than the terminal, none was cut off."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert not any("…" in line for line in lines)
    inner = [re.split("[│┃]", line)[1:-1] for line in lines]
    return [cell.strip() for cells in inner for cell in cells if cell.strip()]
