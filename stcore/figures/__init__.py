"""Figures of the results of `stcore.analysis`. Only this package imports matplotlib."""

import importlib.util

from stcore.errors import UsageError

if importlib.util.find_spec("matplotlib") is None:
    raise UsageError("figures: matplotlib not installed; in the repository: pip install '.[plots]'")
