"""Analyses: the paper's figures as numbers, for any model or run; `stcore.figures` draws them.

`stcore.analysis.registry.ANALYSES` lists them. Each is a module with

* `Settings`, a frozen dataclass: its options, with the paper's values as defaults;
* `compute(subjects, settings, *, progress)` for checkpoints (see `stcore.analysis.subject`), or
  `compute(runs, settings)` for run folders by name;
* a frozen result with `rows()`, one dict of plain values per point of the figure, `content()`, the same as plain
  JSON with its settings, and `table()`, a few rows for the terminal.
"""
