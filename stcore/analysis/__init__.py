"""Analyses: the numbers behind the paper's figures, for any models and runs. `stcore.figures` draws them.

`stcore.analysis.registry.ANALYSES` lists them. Each analysis is a module with

* `Settings`, a frozen dataclass whose defaults are the paper's values;
* `compute(subjects, settings, *, progress)` for checkpoints (see `stcore.analysis.subject`), or
  `compute(runs, settings)` for run folders by name;
* a frozen result with three methods: `rows()` gives a dict of plain values per point of the figure, `content()`
  the rows and settings as plain JSON values, and `table()` the few rows that a terminal shows.
"""
