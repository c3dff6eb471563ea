"""Presets that were run: the settings of a training, and what was measured of its runs over seeds.

`benchmarks/preset_add.py` writes their files from the folders of the runs.
"""

from stcore.measured.preset import FOLDER, KIND, NOT_SETTINGS, Measured, file_of, names, read

__all__ = ["FOLDER", "KIND", "NOT_SETTINGS", "Measured", "file_of", "names", "read"]
