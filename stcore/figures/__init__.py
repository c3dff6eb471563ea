"""The drawing of what `stcore.analysis` found. matplotlib is imported here, and nowhere else."""

import importlib.util

from stcore.errors import UsageError

if importlib.util.find_spec("matplotlib") is None:
    raise UsageError("figures: matplotlib not installed; in the repository: pip install '.[plots]'")
