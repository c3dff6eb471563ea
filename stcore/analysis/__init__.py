"""The paper's figures as numbers, from anyone's own models and runs; `stcore.figures` draws them.

`stcore.analysis.registry.ANALYSES` lists them. Each is a module that has

* `Settings`, a frozen dataclass: what the analysis can be asked, with the paper's values;
* `compute(subjects, settings, *, progress)` of checkpoints (see `stcore.analysis.subject`), or
  `compute(runs, settings)` of run folders by name;
* a frozen result with `rows()`, one dict of plain values per point of the figure, `content()`, the same as plain
  JSON with the settings that made it, and `table()`, the few rows that a terminal shows.
"""
